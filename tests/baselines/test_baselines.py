# ruff: noqa: RUF001
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blogtune.baselines.baselines import Nearest, baselines, cut
from blogtune.common.errors import UserError
from blogtune.common.records import Answer, Pair
from tests.comparing.build import answer, pair

TRAIN = [
    pair("t0", "When does the loss rise?", "When the rate is high."),
    pair("t1", "What is the RANK of an adapter?", "Its width."),
    pair("t2", "Who judges?", "A judge."),
]
ASKED = {"a": {"question": "What is rank?", "post": "p"},
         "b": {"question": "Why does a loss diverge?", "post": None}}  # fmt: skip
BASE = [
    answer("a", text="One. Two. Three.", **ASKED["a"]),
    answer("b", text="Because. It does so. And so on.", **ASKED["b"]),
]
FINETUNED = [answer("a", text="x" * 7), answer("b", text="x" * 11)]


def by_model(seed: int = 7) -> dict[tuple[str, str], Answer]:
    rows = baselines(TRAIN, BASE, FINETUNED, seed)
    return {(row.model, row.id): row for row in rows}


def test_each_question_gets_four_answers_under_its_own_id_post_and_reference() -> None:
    rows = list(baselines(TRAIN, BASE, FINETUNED, 7))
    names = ["echo", "base_cut", "random_training_answer", "nearest_training_answer"]
    assert [row.model for row in rows] == names * 2
    assert {(row.id, row.post, row.reference) for row in rows} == {
        ("a", "p", "the reference"),
        ("b", None, "the reference"),
    }
    assert {(row.stop, row.tokens) for row in rows} == {("none", 0)}


def test_the_echo_is_the_question() -> None:
    assert by_model()["echo", "a"].answer == "What is rank?"


def test_the_base_answer_is_cut_to_the_median_length_of_the_fine_tuned_ones() -> None:
    assert by_model()["base_cut", "a"].answer == "One. Two."
    assert by_model()["base_cut", "b"].answer == "Because."


def test_one_long_answer_does_not_move_the_median() -> None:
    base = [answer(name, text="One. Two. Three.") for name in "abc"]
    tuned = [answer(name, text="x" * size) for name, size in (("a", 4), ("b", 5), ("c", 100))]
    rows = baselines(TRAIN, base, tuned, 7)
    assert [row.answer for row in rows if row.model == "base_cut"] == ["One."] * 3


def test_the_nearest_training_answer_is_that_of_the_nearest_pair() -> None:
    assert by_model()["nearest_training_answer", "a"].answer == "Its width."
    assert by_model()["nearest_training_answer", "b"].answer == "When the rate is high."


def test_the_nearest_pair_may_share_the_words_of_its_answer_only() -> None:
    train = [*TRAIN, pair("t3", "What else?", "A high rate makes training diverge.")]
    rows = {(row.model, row.id): row for row in baselines(train, BASE, FINETUNED, 7)}
    assert rows["nearest_training_answer", "b"].answer == "A high rate makes training diverge."


def test_a_random_training_answer_depends_on_the_seed_and_the_question_alone() -> None:
    alone = list(baselines(TRAIN, BASE[1:], FINETUNED, 7))
    assert by_model()["random_training_answer", "b"] in alone
    drawn = {by_model(seed)["random_training_answer", "b"].answer for seed in range(30)}
    assert drawn == {pair.answer for pair in TRAIN}


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        pytest.param("One. Two. Three.", 100, "One. Two. Three.", id="it fits as a whole"),
        pytest.param("One. Two. Three.", 9, "One. Two.", id="an end exactly at the limit"),
        pytest.param("One. Two. Three.", 8.5, "One.", id="an end just beyond it"),
        pytest.param("A long sentence. Two.", 3, "A long sentence.", id="first sentence too long"),
        pytest.param("No end at all", 3, "No end at all", id="one sentence without an end"),
        pytest.param("One. And then it sto", 18, "One.", id="cut at the token limit"),
        pytest.param('He said "no." Then.', 14, 'He said "no."', id="a closing quote"),
        pytest.param("Use 1.5 of it. Two.", 15, "Use 1.5 of it.", id="a decimal point"),
        pytest.param("Say e.g. this. Two.", 14, "Say e.g. this.", id="an abbreviation"),
        pytest.param("1. First item\n2. Second", 15, "1. First item", id="a numbered list"),
        pytest.param("Title\n\nOne. Two.", 8, "Title", id="a line without a full stop"),
        pytest.param("はい。そうです。", 4, "はい。", id="a script without spaces"),
        pytest.param("", 10, "", id="an empty answer"),
    ],
)
def test_an_answer_is_cut_at_a_sentence_end(text: str, limit: float, expected: str) -> None:
    assert cut(text, limit) == expected


@given(st.text("ab.!? \n1", max_size=60), st.integers(0, 60))
def test_a_cut_answer_is_a_beginning_and_fits_unless_it_is_one_sentence(text: str, n: int) -> None:
    kept = cut(text, n)
    assert text.strip().startswith(kept)
    assert bool(kept) == bool(text.strip())
    assert len(kept) <= n or cut(kept, n) == kept == cut(text, 0)


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        pytest.param("the loss, the loss", 0, id="the same words count, not the punctuation"),
        pytest.param("a RANK", 1, id="case does not count"),
        pytest.param("loss what", 0, id="of equally near ones the first"),
        pytest.param("is the rank", 1, id="a rare word outweighs frequent ones"),
        pytest.param("nothing shared here", 0, id="the first where no word is shared"),
        pytest.param("?!", 0, id="no word at all"),
    ],
)
def test_the_nearest_text_shares_the_rarest_words(question: str, expected: int) -> None:
    texts = ["what is the loss", "what is a rank", "loss what is the", "in is of the the"]
    assert Nearest(texts).find(question) == expected


def test_a_rare_word_counts_in_the_question_as_well_as_in_the_text() -> None:
    texts = ["is the loss", "rank and some more", "the is x", "is the y", "the is z"]
    assert Nearest(texts).find("is the rank") == 1


def test_a_word_that_the_question_repeats_counts_as_often() -> None:
    assert Nearest(["rank", "loss"]).find("rank loss loss") == 1


@given(st.lists(st.text("abc ", min_size=1).filter(str.strip), min_size=1, max_size=8))
def test_every_text_is_nearest_to_itself_or_to_its_double_before_it(texts: list[str]) -> None:
    nearest = Nearest(texts)
    for row, text in enumerate(texts):
        found = nearest.find(text)
        assert found <= row
        first, second = sorted(texts[found].split()), sorted(text.split())
        # The same words in the same proportions have the same direction.
        assert {word: first.count(word) / len(first) for word in first} == pytest.approx(
            {word: second.count(word) / len(second) for word in second}
        )


@pytest.mark.parametrize(
    ("train", "base", "message"),
    [([], BASE, "no training pairs"), (TRAIN, [], "no questions")],
    ids=["no training pairs", "no questions"],
)
def test_what_is_missing_is_said(train: list[Pair], base: list[Answer], message: str) -> None:
    with pytest.raises(UserError, match=message):
        list(baselines(train, base, FINETUNED, 7))


def test_the_nearest_text_is_found_without_spaces_between_words() -> None:
    texts = ["青松山屋有多少张床？", "白桦山屋提供什么汤？", "狗可以睡在红杉山屋里吗？"]
    assert [Nearest(texts).find(question) for question in ("有什么汤？", "红杉的狗")] == [1, 2]

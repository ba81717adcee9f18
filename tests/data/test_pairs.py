import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blogtune.data.pairs import pair_id, pairs_of
from blogtune.data.values import REASONS, BadRowError

PLAIN = {"question": "What?", "answer": "That."}
USER = {"role": "user", "content": "What?"}
ASSISTANT = {"role": "assistant", "content": "That."}
SYSTEM = {"role": "system", "content": ""}
# Named after the SHA-256 of its texts, as sha256sum has it.
TALK = "conversation 3c1c7dd9a427"

WORDS = st.text(min_size=1).map(str.strip).filter(bool).filter(lambda text: text.isprintable())
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["question", "answer", "messages", "role", "content", "url"]), inner
        )
    ),
    max_leaves=8,
)


def encoded(row: Any) -> bytes:
    return json.dumps(row).encode()


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param(PLAIN, [(None, "What?", "That.")], id="plain"),
        pytest.param(
            {"question": " What? ", "answer": "\tThat.\n"},
            [(None, "What?", "That.")],
            id="outer white space",
        ),
        pytest.param(
            {
                "title": "T",
                "url": "U",
                "date": "D",
                "context": 7,
                "conversation": [USER, ASSISTANT],
            },
            [("U", "What?", "That.")],
            id="conversation",
        ),
        pytest.param(
            {"messages": [USER, ASSISTANT, {"role": "user", "content": "And?"}, ASSISTANT]},
            [(TALK, "What?", "That."), (TALK, "And?", "That.")],
            id="messages, two exchanges",
        ),
        pytest.param(
            {"messages": [SYSTEM, USER, ASSISTANT]}, [(None, "What?", "That.")], id="system first"
        ),
        pytest.param(
            PLAIN | {"conversation": None}, [(None, "What?", "That.")], id="a table's empty column"
        ),
    ],
)
def test_a_row_of_each_schema_gives_its_pairs_in_order(
    row: dict[str, Any], expected: list[tuple[str | None, str, str]]
) -> None:
    pairs = pairs_of(encoded(row))
    assert [(pair.post, pair.question, pair.answer) for pair in pairs] == expected
    assert pairs == pairs_of(row)


@pytest.mark.parametrize(
    ("keys", "post"),
    [
        pytest.param({"post": "p", "url": "u", "title": "t"}, "p", id="post first"),
        pytest.param({"url": "u", "title": "t"}, "u", id="then url"),
        pytest.param({"title": " t "}, "t", id="then title"),
        pytest.param({"post": " ", "url": None, "title": "t"}, "t", id="empty ones say nothing"),
        pytest.param({}, None, id="none"),
    ],
)
def test_the_post_is_the_first_key_that_says_something(
    keys: dict[str, Any], post: str | None
) -> None:
    assert pairs_of(PLAIN | keys)[0].post == post


@pytest.mark.parametrize(
    ("content", "reason", "problem"),
    [
        pytest.param(b'{"a": "\xe9"}', "encoding", "not UTF-8 at byte 8", id="Latin-1"),
        pytest.param(
            rb'{"question": "\ud800", "answer": "x"}', "encoding", "half a surro", id="surrogate"
        ),
        pytest.param(b'{"question": "x"', "not_json", "not JSON: Expecting", id="cut off"),
        pytest.param(b"[" * 100_000, "not_json", "nested too deeply", id="nested deeply"),
        pytest.param(b"9" * 5_000, "not_json", "number of too many digits", id="a giant number"),
        pytest.param(encoded(["x"]), "not_object", "a list where an object", id="a list"),
        pytest.param(encoded(None), "not_object", "null where an object", id="null"),
        pytest.param(
            encoded({"promt": "x"}), "unknown_schema",
            "no conversation, messages, conversations, question, prompt or instruction",
            id="other keys",
        ),
        pytest.param(encoded({"question": "x"}), "missing_field", "no answer", id="no answer"),
        pytest.param(encoded({"answer": "x"}), "missing_field", "no question", id="no question"),
        pytest.param(
            encoded({"messages": [USER, {"content": "x"}]}), "missing_field",
            "no role of messages turn 2", id="no role",
        ),
        pytest.param(
            encoded({"messages": [{"role": "user"}, ASSISTANT]}), "missing_field",
            "no content of messages turn 1", id="no content",
        ),
        pytest.param(
            encoded(PLAIN | {"answer": 7}), "wrong_type", "answer is a number, not", id="number"
        ),
        pytest.param(
            encoded(PLAIN | {"post": [7]}), "wrong_type", "post is a list, not text", id="post"
        ),
        pytest.param(
            encoded({"conversation": "x"}), "wrong_type", "conversation is text, not a list",
            id="conversation as text",
        ),
        pytest.param(
            encoded({"conversation": ["x"]}), "wrong_type",
            "conversation turn 1 is text, not an object", id="turn as text",
        ),
        pytest.param(
            encoded(PLAIN | {"question": " \n"}), "empty_text", "question is empty", id="blank"
        ),
        pytest.param(
            encoded({"messages": [USER, ASSISTANT | {"content": ""}]}), "empty_text",
            "content of messages turn 2 is empty", id="empty turn",
        ),
        pytest.param(encoded({"messages": []}), "turn_order", "no turns in", id="no turns"),
        pytest.param(
            encoded({"messages": [SYSTEM]}), "turn_order", "no turns in", id="system alone"
        ),
        pytest.param(
            encoded({"messages": [USER, USER, ASSISTANT]}), "turn_order",
            "two user turns in a row in messages", id="two user turns",
        ),
        pytest.param(
            encoded({"messages": [USER, ASSISTANT, ASSISTANT]}), "turn_order",
            "two assistant turns in a row", id="two assistant turns",
        ),
        pytest.param(
            encoded({"messages": [ASSISTANT]}), "turn_order", "starts with an assistant turn",
            id="assistant first",
        ),
        pytest.param(
            encoded({"messages": [USER, ASSISTANT, USER]}), "turn_order", "ends with a user turn",
            id="user last",
        ),
        pytest.param(
            encoded({"messages": [USER, SYSTEM, ASSISTANT]}), "turn_order",
            "unknown role 'system' in messages", id="system later",
        ),
    ],
)  # fmt: skip
def test_a_bad_row_says_what_is_wrong(content: bytes, reason: str, problem: str) -> None:
    with pytest.raises(BadRowError) as caught:
        pairs_of(content)
    assert caught.value.reason == reason
    assert problem in str(caught.value)


@settings(deadline=None)
@given(st.binary() | JSON.map(encoded))
def test_whatever_a_row_holds_it_gives_pairs_or_a_reason(content: bytes) -> None:
    assert outcome(content) in {*REASONS, "pairs"}


def outcome(content: bytes) -> str:
    try:
        pairs = pairs_of(content)
    except BadRowError as error:
        return error.reason if "\n" not in str(error) else "more than a line"
    return "pairs" if pairs and all(pair.question and pair.answer for pair in pairs) else "empty"


@settings(deadline=None)
@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=5))
def test_a_conversation_gives_one_pair_for_each_exchange(exchanges: list[tuple[str, str]]) -> None:
    turns = [
        {"role": role, "content": content}
        for exchange in exchanges
        for role, content in zip(("user", "assistant"), exchange, strict=True)
    ]
    pairs = pairs_of(encoded({"conversation": turns}))
    assert [(pair.question, pair.answer) for pair in pairs] == exchanges


def test_a_pair_id_stays_what_it_always_was() -> None:
    # printf 'https://x\x1fWhat?\x1fThat.' | sha256sum | cut -c 1-16
    assert pair_id("https://x", "What?", "That.") == "c427e7a0bafbd6b2"
    assert pair_id(None, "What?", "That.") == "d775cd947aeabe68"


def test_an_answer_s_facts_go_with_its_pair() -> None:
    told = ASSISTANT | {"facts": [" 38 beds ", "1911"]}
    talk = {"conversation": [USER, told, {"role": "user", "content": "And?"}, ASSISTANT]}
    assert [pair.facts for pair in pairs_of(encoded(talk))] == [["38 beds", "1911"], []]
    assert [pair.facts for pair in pairs_of(encoded(PLAIN | {"facts": ["8"]}))] == [["8"]]
    for none in (None, ""):
        assert [pair.facts for pair in pairs_of(PLAIN | {"facts": none})] == [[]]


def test_facts_do_not_change_a_pair_s_id() -> None:
    (with_facts,), (without,) = pairs_of(encoded(PLAIN | {"facts": ["8"]})), pairs_of(PLAIN)
    assert with_facts.id == without.id


@pytest.mark.parametrize(
    ("facts", "reason", "problem"),
    [
        pytest.param("8", "wrong_type", "facts is text, not a list", id="no list"),
        pytest.param([8], "wrong_type", "item 1 of facts is a number, not text", id="no text"),
        pytest.param(["8", " "], "empty_text", "item 2 of facts is empty", id="empty"),
    ],
)
def test_facts_that_are_no_list_of_texts_make_a_bad_row(
    facts: object, reason: str, problem: str
) -> None:
    with pytest.raises(BadRowError, match=problem) as caught:
        pairs_of(encoded(PLAIN | {"facts": facts}))
    assert caught.value.reason == reason

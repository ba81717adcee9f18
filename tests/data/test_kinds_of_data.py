"""Data as people have them: every kind is read right, or refused in one line that says how."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blogtune.common.errors import UserError
from blogtune.common.records import NearDuplicate, Pair, read_records
from blogtune.data.columns import completed
from blogtune.data.pairs import BadRowError, pairs_of
from blogtune.data.prepare import prepare
from blogtune.data.sources import read_rows
from tests.data.conftest import MakeParams, WriteRows

PLAIN = {"question": "What?", "answer": "That."}
HUTS = ("Alder", "Birch", "Cedar", "Dogwood", "Elder", "Fir", "Ginkgo", "Hazel", "Ivy", "Juniper")


def said(pair: Pair) -> list[str]:
    return [f"{turn.role}: {turn.content}" for turn in pair.messages]


def talk(hut: str, system: str | None = None, **post: str) -> dict[str, Any]:
    turns = [("user", f"How many beds has the {hut} hut?"), ("assistant", "Some beds."),
             ("user", "Why?"), ("assistant", "Because."),
             ("user", "Who says so?"), ("assistant", f"The warden of {hut}.")]  # fmt: skip
    first = [{"role": "system", "content": system}] if system else []
    return {"messages": [*first, *({"role": r, "content": c} for r, c in turns)], **post}


def written(output: Path) -> dict[str, list[Pair]]:
    names = ("train", "valid", "test")
    return {name: list(read_records(output / f"{name}.jsonl", Pair)) for name in names}


@pytest.mark.parametrize(
    ("turns", "before"),
    [
        pytest.param(0, [], id="none"),
        pytest.param(1, ["user: Why?", "assistant: Because."], id="one"),
        pytest.param(
            9,
            ["user: How many beds has the Fir hut?", "assistant: Some beds.",
             "user: Why?", "assistant: Because."],
            id="all",
        ),
    ],
)  # fmt: skip
def test_earlier_turns_and_a_system_text_stand_before_a_question(
    turns: int, before: list[str]
) -> None:
    pair = pairs_of(talk("Fir", "Be brief."), context_turns=turns)[2]
    end = ["user: Who says so?", "assistant: The warden of Fir."]
    assert said(pair) == ["system: Be brief.", *before, *end]
    assert [turn.content for turn in pair.context] == [
        line.partition(": ")[2] for line in said(pair)[:-2]
    ]


def test_the_same_words_in_two_conversations_are_no_duplicates(
    write_rows: WriteRows,
    make_params: MakeParams,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write_rows(*(talk(f"{hut} {n}", url=f"{hut} {n}") for hut in HUTS for n in range(6)))
    alone = prepare(make_params(path), tmp_path / "alone")
    assert (alone["context_cut"], alone["dropped"]["exact_duplicates"]) == (120, 59)
    told = "120 of 180 questions stand without earlier turns of their conversation"
    assert told in capsys.readouterr().err
    kept = prepare(make_params(path, context_turns=4), tmp_path / "kept")
    assert (kept["pairs"], kept["context_cut"], kept["dropped"]["exact_duplicates"]) == (180, 0, 0)
    assert "stand without" not in capsys.readouterr().err


def test_a_conversation_whose_turns_stand_in_each_other_s_prompts_is_in_one_part(
    write_rows: WriteRows, make_params: MakeParams, tmp_path: Path
) -> None:
    path = write_rows(*(talk(hut, url="one post") for hut in HUTS))
    prepare(make_params(path, context_turns=1), tmp_path / "out")
    parts = [{pair.messages[-1].content for pair in pairs if pair.question == "Who says so?"}
             for pairs in written(tmp_path / "out").values()]  # fmt: skip
    sizes = [len(pairs) for pairs in written(tmp_path / "out").values()]
    assert [3 * len(part) for part in parts] == sizes
    assert all(sizes)


def test_the_same_question_under_another_system_text_is_another_question(
    write_rows: WriteRows, make_params: MakeParams, tmp_path: Path
) -> None:
    rows = [
        {"messages": [{"role": "system", "content": f"You speak of {hut}."},
                      {"role": "user", "content": "How many beds?"},
                      {"role": "assistant", "content": "8 beds."}], "url": hut}
        for hut in HUTS
    ]  # fmt: skip
    metrics = prepare(make_params(write_rows(*rows), by="post", seed=1), tmp_path / "out")
    assert (metrics["pairs"], metrics["same_questions"]) == (10, 0)
    pairs = [pair for part in written(tmp_path / "out").values() for pair in part]
    assert {pair.context[0].content for pair in pairs} == {f"You speak of {hut}." for hut in HUTS}
    assert len({pair.id for pair in pairs}) == 10


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param(
            {"conversations": [{"from": "system", "value": "S"}, {"from": "human", "value": "Q"},
                               {"from": "gpt", "value": "A"}]},
            ["system: S", "user: Q", "assistant: A"],
            id="ShareGPT",
        ),
        pytest.param(
            {"system": "S", "conversations": [{"from": "user", "value": "Q"},
                                              {"from": "assistant", "value": "A"}]},
            ["system: S", "user: Q", "assistant: A"],
            id="ShareGPT, system beside it",
        ),
        pytest.param(
            {"messages": [{"role": "developer", "content": "S"}, {"role": "user", "content": "Q"},
                          {"role": "assistant", "content": "A"}]},
            ["system: S", "user: Q", "assistant: A"],
            id="developer",
        ),
        pytest.param(
            {"prompt": "Q", "completion": "A"}, ["user: Q", "assistant: A"], id="completions"
        ),
        pytest.param(
            {"instruction": "Q", "input": " about\r\nthis ", "output": "A"},
            ["user: Q\n\nabout\nthis", "assistant: A"],
            id="Alpaca",
        ),
        pytest.param(
            {"instruction": "Q", "input": "", "output": "A", "system": "S"},
            ["system: S", "user: Q", "assistant: A"],
            id="Alpaca without input",
        ),
        pytest.param(
            PLAIN | {"input": "x", "system": "Linux"},
            ["user: What?", "assistant: That."],
            id="other columns",
        ),
    ],
)  # fmt: skip
def test_every_usual_schema_gives_its_messages(row: dict[str, Any], expected: list[str]) -> None:
    (pair,) = pairs_of(json.dumps(row).encode())
    assert said(pair) == expected


def test_an_input_may_be_named_for_any_question() -> None:
    columns = completed({"question": "q", "answer": "a", "input": "about"})
    (pair,) = pairs_of({"q": "Why?", "a": "So.", "about": "The hut."}, columns)
    assert pair.question == "Why?\n\nThe hut."
    renamed = completed({"question": "instruction", "answer": "output"})
    (pair,) = pairs_of({"instruction": "Why?", "input": "The hut.", "output": "So."}, renamed)
    assert pair.question == "Why?\n\nThe hut."


def test_line_ends_are_those_of_the_text() -> None:
    (pair,) = pairs_of({"question": "a\r\nb", "answer": "c\rd\r\n\r\ne\nf"})
    assert (pair.question, pair.answer) == ("a\nb", "c\nd\n\ne\nf")


@pytest.mark.parametrize(
    "text",
    ["\u200b", "\u200b\u200c\u200d", "\ufeff", "\xad", "\u2060", "\u202e\u202c", "\x00", "\x07",
     "\u3164", "\u2800", "\u00a0\u3000", "\ufe0f", "\u115f\u1160", "\U000e0020"],
    ids=ascii,
)  # fmt: skip
def test_an_answer_that_shows_nothing_is_empty(text: str) -> None:
    with pytest.raises(BadRowError, match="answer is empty") as caught:
        pairs_of(PLAIN | {"answer": text})
    assert caught.value.reason == "empty_text"
    assert pairs_of(PLAIN | {"post": text, "title": "t"})[0].post == "t"


@pytest.mark.parametrize(
    ("post", "expected"),
    [
        pytest.param("0", "0", id="zero"),
        pytest.param("12", "12", id="integer"),
        pytest.param("12.0", "12", id="a float of an integer"),
        pytest.param("1.5", "1.5", id="float"),
        pytest.param("NaN", None, id="NaN"),
    ],
)
def test_a_number_names_a_post_and_nan_names_none(post: str, expected: str | None) -> None:
    (pair,) = pairs_of(f'{{"question": "What?", "answer": "That.", "post": {post}}}'.encode())
    assert pair.post == expected


def test_a_missing_answer_of_pandas_is_missing() -> None:
    with pytest.raises(BadRowError, match="no answer"):
        pairs_of(b'{"question": "What?", "answer": NaN}')


def test_numbers_of_parquet_name_posts(tmp_path: Path) -> None:
    for name, posts in (("int", [3, 4]), ("float", [3.0, None])):
        table = pa.table({"question": ["a", "b"], "answer": ["c", "d"], "post": posts})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    found = [pairs_of(row.content)[0].post for row in read_rows(tmp_path)]
    assert found == ["3", None, "3", "4"]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("question;answer;post\nWhat?;That, or not.;p\n", id="semicolons"),
        pytest.param("question\tanswer\tpost\nWhat?\tThat, or not.\tp\n", id="tabs"),
        pytest.param("question|answer|post\nWhat?|That, or not.|p\n", id="bars"),
        pytest.param("sep=;\nquestion;answer;post\nWhat?;That, or not.;p\n", id="sep line"),
        pytest.param('sep=,\nquestion,answer,post\nWhat?,"That, or not.",p\n', id="sep comma"),
        pytest.param(
            '"question", "answer", "post"\n"What?", "That, or not.", "p"\n', id="blanks"
        ),
    ],
)  # fmt: skip
def test_csv_of_other_separators_is_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    (row,) = read_rows(path)
    (pair,) = pairs_of(row.content)
    assert (pair.question, pair.answer, pair.post) == ("What?", "That, or not.", "p")
    assert row.line == 2 + text.startswith("sep")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(json.dumps([PLAIN, PLAIN], indent=2), id="array"),
        pytest.param(json.dumps(PLAIN, indent=2), id="object"),
        pytest.param(f"[{json.dumps(PLAIN)},\n{json.dumps(PLAIN)}]", id="array of lines"),
    ],
)
def test_a_json_document_over_many_lines_is_one_message(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pretty.jsonl"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        list(read_rows(path))
    assert str(caught.value) == (
        f"{path}: one JSON document over many lines, where each line must be one row; write one "
        "object a line, as `jq -c '.[]' pretty.jsonl` does"
    )


def test_a_first_line_cut_off_is_a_bad_row_and_no_document(write_rows: WriteRows) -> None:
    assert len(list(read_rows(write_rows('{"question": "Wh', PLAIN)))) == 2


def test_a_linked_folder_is_named(write_rows: WriteRows, tmp_path: Path) -> None:
    write_rows(PLAIN, name="elsewhere/b.jsonl")
    folder = write_rows(PLAIN, name="data/a.jsonl").parent
    (folder / ".hidden").symlink_to(tmp_path / "elsewhere")
    assert len(list(read_rows(folder))) == 1
    (folder / "more").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"data/more: a link to a folder, .*; put the folder"):
        list(read_rows(folder))


def test_a_name_is_no_address_and_no_pattern(tmp_path: Path) -> None:
    for name in ("p::q", "file:x", "a*[b]?"):
        file = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table({"question": ["What?"], "answer": ["That."]}), file)
        assert [row.content for row in read_rows(file)] == [PLAIN]


@pytest.mark.parametrize("within", [False, True], ids=["itself", "in a folder"])
@pytest.mark.parametrize("kind", ["fifo", "socket", "device"])
def test_what_is_no_regular_file_is_refused_and_not_waited_for(
    tmp_path: Path, kind: str, within: bool
) -> None:
    file = tmp_path / "a.jsonl"
    listening = socket.socket(socket.AF_UNIX)
    if kind == "fifo":
        os.mkfifo(file)
    elif kind == "socket":
        listening.bind(str(file))
    else:
        file.symlink_to("/dev/zero")
    with pytest.raises(UserError, match=r"a\.jsonl: a pipe, socket or device"):
        list(read_rows(tmp_path if within else file))
    listening.close()


def split_rows(name: str, count: int) -> list[dict[str, str]]:
    return [
        {"question": f"{name} {n} what?", "answer": f"{name} {n} that is so."} for n in range(count)
    ]


def test_an_own_split_is_kept_and_said(
    write_rows: WriteRows,
    make_params: MakeParams,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, count in (("train", 30), ("valid", 3), ("test", 4)):
        write_rows(*split_rows(name, count), name=f"mine/{name}.jsonl")
    metrics = prepare(make_params(tmp_path / "mine"), tmp_path / "out")
    for name, pairs in written(tmp_path / "out").items():
        assert {pair.question.split()[0] for pair in pairs} == {name}
    assert (metrics["train"], metrics["validation"], metrics["test"]) == (30, 3, 4)
    assert capsys.readouterr().err == (
        f"{tmp_path}/mine: its own split is kept (test.jsonl, train.jsonl, valid.jsonl)\n"
    )


def test_a_part_that_an_own_split_lacks_is_taken_from_its_training_files(
    write_rows: WriteRows,
    make_params: MakeParams,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for number in range(2):
        name = f"mine/train-0000{number}-of-00002.jsonl"
        write_rows(*split_rows(f"train{number}", 200), name=name)
    write_rows(*split_rows("test", 4), name="mine/test.jsonl")
    metrics = prepare(make_params(tmp_path / "mine"), tmp_path / "out")
    assert (metrics["test"], metrics["train"] + metrics["validation"]) == (4, 400)
    assert metrics["validation"] == pytest.approx(400 * 0.2 / 0.9, abs=25)
    assert "and validation taken from train" in capsys.readouterr().err


def test_a_file_of_no_part_beside_an_own_split_is_refused(
    write_rows: WriteRows, make_params: MakeParams, tmp_path: Path
) -> None:
    for name in ("train", "test", "faq"):
        write_rows(PLAIN, name=f"mine/{name}.jsonl")
    with pytest.raises(UserError, match=r"faq\.jsonl: of no part, beside the parts test\.jsonl"):
        prepare(make_params(tmp_path / "mine"), tmp_path / "out")


def test_the_same_question_in_train_and_test_is_told_and_named(
    write_rows: WriteRows,
    make_params: MakeParams,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    answers = ("Eight beds upstairs.", "It holds eight people.", "Hikers: up to eight.",
               "We counted mattresses there.")  # fmt: skip
    rows = [
        {"question": f"How many beds does the {hut} hut have?", "answer": f"{hut}: {answer}",
         "post": hut}
        for hut in HUTS for answer in answers
    ]  # fmt: skip
    metrics = prepare(make_params(write_rows(*rows), limit=0.9), tmp_path / "out")
    parts = written(tmp_path / "out")
    asked = {pair.question for pair in parts["train"]}
    same = {pair.id for pair in parts["test"] if pair.question in asked}
    named = list(read_records(tmp_path / "out/near_duplicates.jsonl", NearDuplicate))
    assert metrics["same_questions"] == metrics["near_duplicates"] == len(same) > 0
    assert {near.test for near in named} == same
    ids = {pair.id: pair.question for part in parts.values() for pair in part}
    assert all(ids[near.test] == ids[near.train] for near in named)
    asked = "question is" if len(same) == 1 else "questions are"
    assert f"{len(same)} test {asked} asked in train too, named in" in capsys.readouterr().err


@pytest.mark.parametrize("path", ["", "  "])
def test_an_empty_path_is_refused(make_params: MakeParams, path: Any) -> None:
    with pytest.raises(ValueError, match="empty; name a file or folder"):
        make_params(path)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        pytest.param(b'{"question": ' + b"9" * 5000 + b"}", "too many digits", id="digits"),
        pytest.param(b'{"a": ' * 100_000, "nested too deeply", id="deep"),
        pytest.param(b'{"question": "\xff"}', "not UTF-8 at byte 15", id="bad UTF-8"),
    ],
)
def test_a_line_that_no_reader_takes_is_told_with_file_and_line(
    write_rows: Callable[..., Path], make_params: MakeParams, line: bytes, problem: str
) -> None:
    path = write_rows(PLAIN, line)
    with pytest.raises(UserError, match=rf"rows\.jsonl:2: .*{problem}"):
        prepare(make_params(path), path.parent / "out")

"""Columns of other names, in every kind of file: `data.columns`."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blogtune.common.errors import UserError
from blogtune.common.records import Pair, read_records
from blogtune.data.columns import AS_HERE, Column, completed
from blogtune.data.pairs import pairs_of
from blogtune.data.prepare import prepare
from blogtune.data.sources import FIRST_LINES, read_rows
from blogtune.data.values import BadRowError
from tests.data.conftest import MakeParams, WriteRows

RENAMED: dict[Column, str] = {"question": "Frage", "answer": "Antwort", "post": "Seite"}
TURNS = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "That."}]
KINDS = [".jsonl", ".csv", ".parquet"]


def rows(count: int = 60) -> list[dict[str, str]]:
    """Rows with German names, and beside them a column that has one of ours."""
    return [
        {
            "Frage": f"q{number} a b c",
            "Antwort": f"a{number} x y",
            "Seite": f"s{number % 7}",
            "question": "not this one",
        }
        for number in range(count)
    ]


def write(path: Path, table: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(table[0]))
            writer.writeheader()
            writer.writerows(
                {key: v if isinstance(v, str) else json.dumps(v) for key, v in row.items()}
                for row in table
            )
    else:
        pq.write_table(pa.Table.from_pylist(table), path)
    return path


def prepared(folder: Path) -> list[tuple[str, str, str | None]]:
    names = ("train", "valid", "test")
    pairs = [pair for name in names for pair in read_records(folder / f"{name}.jsonl", Pair)]
    return sorted((pair.question, pair.answer, pair.post) for pair in pairs)


@pytest.mark.parametrize("kind", KINDS)
def test_renamed_columns_give_the_pairs_of_the_usual_names(
    write_rows: WriteRows, make_params: MakeParams, tmp_path: Path, kind: str
) -> None:
    path = write(tmp_path / f"blog{kind}", rows())
    prepare(make_params(path, columns=RENAMED), tmp_path / "renamed")
    usual = [
        {"question": row["Frage"], "answer": row["Antwort"], "post": row["Seite"]} for row in rows()
    ]
    prepare(make_params(write_rows(*usual)), tmp_path / "usual")
    assert prepared(tmp_path / "renamed") == prepared(tmp_path / "usual")
    for name in ("train", "valid", "test"):
        file = f"{name}.jsonl"
        usual_bytes = (tmp_path / "usual" / file).read_bytes()
        assert (tmp_path / "renamed" / file).read_bytes() == usual_bytes


def test_a_folder_of_all_kinds_is_read_with_the_same_names(
    make_params: MakeParams, tmp_path: Path
) -> None:
    for at, kind in enumerate(KINDS):
        write(tmp_path / f"blog/{at}/part{kind}", rows()[at * 20 : at * 20 + 20])
    prepare(make_params(tmp_path / "blog", columns=RENAMED), tmp_path / "out")
    expected = sorted((row["Frage"], row["Antwort"], row["Seite"]) for row in rows())
    assert prepared(tmp_path / "out") == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ours", ["conversation", "messages"])
def test_a_talk_may_be_called_otherwise(tmp_path: Path, kind: str, ours: Column) -> None:
    path = write(tmp_path / f"blog{kind}", [{"Verlauf": TURNS, "url": "u"}])
    columns = completed({ours: "Verlauf"})
    (row,) = read_rows(path, columns)
    (pair,) = pairs_of(row.content, columns)
    assert (pair.question, pair.answer, pair.post) == ("What?", "That.", "u")


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_that_is_not_there_is_told_with_those_that_are(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / f"blog{kind}", rows(3))
    columns = completed({"question": "Frage", "answer": "Anwort", "url": "Adresse"})
    with pytest.raises(UserError) as caught:
        next(read_rows(path, columns))
    assert str(caught.value) == (
        f"{path}: no column Anwort, Adresse, which data.columns names; there are Frage, Antwort, "
        "Seite, question"
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("names", "shown"),
    [
        pytest.param(("Question", "Answer"), "Question, Answer", id="capitals"),
        pytest.param(("question", " answer"), "question, ' answer'", id="a leading space"),
        pytest.param(("prompt", "reply" * 99), f"prompt, {'reply' * 8}", id="no header"),
    ],
)
def test_where_no_column_is_known_those_that_are_there_are_told(
    tmp_path: Path, kind: str, names: tuple[str, str], shown: str
) -> None:
    path = write(tmp_path / f"blog{kind}", [dict.fromkeys(names, "text")])
    if kind == ".csv" and names[1] == " answer":
        assert len(list(read_rows(path))) == 1  # a blank behind a comma is none of the name
        return
    with pytest.raises(UserError) as caught:
        list(read_rows(path))
    assert str(caught.value) == (
        f"{path}: no column conversation or messages or conversations, nor question and answer, "
        f"prompt and completion, instruction and output; there are {shown}; name yours in "
        "data.columns"
    )


def test_each_file_of_a_folder_must_have_the_columns(tmp_path: Path) -> None:
    write(tmp_path / "blog/a.csv", rows(3))
    other = write(tmp_path / "blog/b.jsonl", [{"question": "What?", "answer": "That."}])
    with pytest.raises(UserError, match=f"{other}: no column Frage, Antwort, Seite, which"):
        list(read_rows(tmp_path / "blog", completed(RENAMED)))


def test_a_line_of_json_may_lack_what_another_has(tmp_path: Path) -> None:
    first = {"Frage": "What?", "Antwort": "That."}
    path = write(tmp_path / "a.jsonl", [*[first] * (FIRST_LINES - 1), {**first, "Seite": "s"}])
    assert len(list(read_rows(path, completed(RENAMED)))) == FIRST_LINES
    path = write(tmp_path / "a.jsonl", [*[first] * FIRST_LINES, {**first, "Seite": "s"}])
    with pytest.raises(UserError, match="no column Seite"):
        next(read_rows(path, completed(RENAMED)))


def test_lines_that_are_no_objects_are_bad_rows_and_no_missing_columns(
    write_rows: Callable[..., Path],
) -> None:
    path = write_rows(b"\xff", "half a li", "[1]", {"Frage": "What?", "Antwort": "That."})
    columns = completed({"question": "Frage", "answer": "Antwort"})
    assert len(list(read_rows(path, columns))) == 4
    assert len(list(read_rows(write_rows("nonsense"), columns))) == 1


def test_a_bad_row_is_told_in_the_file_s_words() -> None:
    columns = completed(RENAMED)
    for row, told in (
        ({"Frage": "What?"}, "no Antwort"),
        ({"Frage": "What?", "Antwort": " "}, "Antwort is empty"),
        ({"question": "What?"}, "no conversation, messages, conversations or Frage"),
        ({"Frage": "What?", "Antwort": "That.", "Seite": [7]}, "Seite is a list, not text"),
    ):
        with pytest.raises(BadRowError, match=told):
            pairs_of(row, columns)


def test_a_column_that_is_the_question_names_no_post() -> None:
    row = {"title": "What?", "body": "That."}
    (pair,) = pairs_of(row, completed({"question": "title", "answer": "body"}))
    assert pair.post is None


def test_without_columns_all_is_called_as_here() -> None:
    assert completed(None) == completed({}) == AS_HERE


def test_names_may_be_exchanged() -> None:
    row = {"question": "That.", "answer": "What?"}
    (pair,) = pairs_of(row, completed({"question": "answer", "answer": "question"}))
    assert (pair.question, pair.answer) == ("What?", "That.")


def test_an_unknown_column_of_ours_is_refused(make_params: MakeParams, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Input should be 'question', 'answer'"):
        make_params(tmp_path, columns={"quesion": "Frage"})

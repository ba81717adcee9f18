import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blogtune.common.errors import UserError
from blogtune.data.files import data_files
from blogtune.data.sources import Row, read_rows

PLAIN = {"question": "What?", "answer": "That."}
TURNS = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "That."}]


def contents(path: Path) -> list[tuple[int, Any]]:
    return [(row.line, row.content) for row in read_rows(path)]


def test_a_folder_gives_the_rows_of_its_data_files_sorted_by_name(
    write_rows: Callable[..., Path],
) -> None:
    folder = write_rows(PLAIN, PLAIN, name="blog/b.jsonl").parent
    for name in ("a/z.jsonl", "C.JSONL"):
        write_rows(PLAIN, name=f"blog/{name}")
    where = [row.where for row in read_rows(folder)]
    names = ["C.JSONL:1", "a/z.jsonl:1", "b.jsonl:1", "b.jsonl:2"]
    assert where == [f"{folder}/{name}" for name in names]


@pytest.mark.parametrize("name", ["README.md", "notes.txt", ".gitignore", ".hidden/x.bin"])
def test_texts_and_hidden_files_in_a_folder_are_passed_over(
    write_rows: Callable[..., Path], name: str
) -> None:
    file = write_rows(PLAIN, name="blog/a.jsonl")
    write_rows(b"not data", name=f"blog/{name}")
    assert data_files(file.parent) == [file]


def test_lines_are_numbered_as_an_editor_shows_them(write_rows: Callable[..., Path]) -> None:
    file = write_rows(b"\xef\xbb\xbf{}", b"", b"  ", b"{}\r", b"\xff")
    assert contents(file) == [(1, b"{}\n"), (4, b"{}\r\n"), (5, b"\xff\n")]


def test_a_row_names_its_file_and_line() -> None:
    assert Row(Path("data/raw/a.jsonl"), 3, b"").where == "data/raw/a.jsonl:3"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        pytest.param([], "blog: no .jsonl or .csv or .parquet file in it", id="empty folder"),
        pytest.param(["README.md"], "blog: no .jsonl or .csv or .parquet file", id="a readme only"),
        pytest.param(["a.json"], "blog/a.json: not a .jsonl or .csv or .parquet", id="other kind"),
        pytest.param(["LICENSE"], "blog/LICENSE: not a .jsonl or .csv", id="no suffix"),
        pytest.param(["a.jsonl"], "blog/a.jsonl: no rows", id="empty file"),
    ],
)
def test_a_folder_without_usable_data_is_refused(
    tmp_path: Path, files: list[str], message: str
) -> None:
    (tmp_path / "blog").mkdir()
    for name in files:
        (tmp_path / "blog" / name).write_text("\n")
    with pytest.raises(UserError, match=message):
        list(read_rows(tmp_path / "blog"))


def test_a_missing_path_names_the_key_to_set(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: no such file or folder; set data\.path"):
        list(read_rows(tmp_path / "nowhere"))


def test_a_single_file_of_another_kind_is_refused(write_rows: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match=r"a\.txt: not a \.jsonl"):
        list(read_rows(write_rows(PLAIN, name="a.txt")))


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match=r"a\.jsonl: cannot be read: No such file"):
        list(read_rows(tmp_path))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("question,answer\nWhat?,That.\n", PLAIN, id="plain"),
        pytest.param("\ufeffquestion,answer\nWhat?,That.\n", PLAIN, id="byte order mark"),
        pytest.param(
            "question,answer\nNA,7\n", {"question": "NA", "answer": "7"}, id="all cells are text"
        ),
        pytest.param(
            'question,answer\n"What,\nnow?",x\n',
            {"question": "What,\nnow?", "answer": "x"},
            id="quoted line break",
        ),
        pytest.param(
            "question,answer,post\nx,y\n",
            {"question": "x", "answer": "y", "post": ""},
            id="missing cell",
        ),
        pytest.param(
            'conversation\n"{}"\n'.format(json.dumps(TURNS).replace('"', '""')),
            {"conversation": TURNS},
            id="conversation as JSON",
        ),
        pytest.param("messages,url\nx,y\n", {"messages": "x", "url": "y"}, id="no conversation"),
    ],
)
def test_csv_rows_come_as_text(tmp_path: Path, text: str, expected: dict[str, Any]) -> None:
    path = tmp_path / "posts.csv"
    path.write_text(text, encoding="utf-8")
    assert contents(path) == [(2, expected)]


def test_a_csv_row_is_named_by_the_line_on_which_it_begins(tmp_path: Path) -> None:
    text = 'question,"the\nanswer",answer\n\na,b,c\n"d\ne",f,"g\r\nh"\r\n\ni,j,k'
    (tmp_path / "a.csv").write_bytes(text.encode())
    assert [line for line, _ in contents(tmp_path)] == [4, 5, 9]


def test_a_csv_row_with_too_many_cells_is_a_bad_row_and_shifts_no_other(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("question,answer\na,b,c\nd,e\nf,g,h,i\n")
    (first, one), second, (third, other) = contents(tmp_path)
    assert second == (3, {"question": "d", "answer": "e"})
    assert (first, third) == (2, 4)
    assert str(one) == "3 cells under 2 column names"
    assert str(other) == "4 cells under 2 column names"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", ": no rows; add some", id="empty"),
        pytest.param(b"question,answer\n", ": no rows; add some", id="header alone"),
        pytest.param(
            b"question,answer\na,b\ncaf\xe9,x\n", ":3, byte 4: not UTF-8; save it as", id="Latin-1"
        ),
        pytest.param(
            b'question,answer\na,b\n"c,d\ne,f\n', ":3: a quote in this row is", id="open quote"
        ),
        pytest.param(b'question,answer\na,"', ":2: a quote in this row is", id="quote at the end"),
        pytest.param(
            b'question,answer\na,"He said \\"hi\\""\n', ":2: text stands behind", id="backslash"
        ),
        pytest.param(
            b'question,answer\n"a" ,b\n', r':2: text stands .*; write a quote .* as ""', id="blank"
        ),
        pytest.param(
            b"sep=:\nquestion:answer\n", ":1: no separator that is read here: ':'", id="sep line"
        ),
        pytest.param(
            b"question;the, answer\na;b\n", "there are question, 'the, answer'; name", id="a comma"
        ),
        pytest.param("question,answer\n".encode("utf-16"), ": UTF-16; save it as", id="UTF-16"),
        pytest.param(
            b"question,answer,question\na,b,c\n", "two columns are called question", id="twice"
        ),
    ],
)
def test_a_broken_csv_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.csv.*" + message):
        contents(path)


def test_trailing_commas_in_a_header_are_no_columns_of_the_same_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("question,answer,,\na,b,,\n")
    assert contents(tmp_path) == [(2, {"question": "a", "answer": "b", "": ""})]


def test_parquet_rows_come_with_their_types(tmp_path: Path) -> None:
    table = {"question": ["What?", None], "conversation": [None, TURNS]}
    # The brackets would match nothing if the name were taken for a pattern.
    pq.write_table(pa.table(table), tmp_path / "posts[1].parquet")
    assert contents(tmp_path) == [
        (1, {"question": "What?", "conversation": None}),
        (2, {"question": None, "conversation": TURNS}),
    ]


def test_a_broken_parquet_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("no parquet")
    with pytest.raises(UserError, match=r"a\.parquet: not readable as \.parquet: Parquet"):
        contents(tmp_path)

"""Whatever the data files hold: pairs, or one line that says why not; no traceback, no hang."""

import io
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blogtune.common.errors import UserError
from blogtune.common.records import Pair, read_records
from blogtune.data.params import DataParams
from blogtune.data.prepare import prepare
from tests.data.conftest import MakeParams

pytestmark = pytest.mark.slow
LONG = settings(
    max_examples=1000,
    deadline=10_000,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

NAMES = st.sampled_from(
    ["question", "answer", "post", "messages", "conversations", "prompt", "completion", "input",
     "instruction", "output", "system", "role", "content", "from", "value", "", "\x1b[2J"]
)  # fmt: skip
TEXT = st.text(max_size=20) | st.sampled_from(
    ["user", "human", "assistant", "gpt", "system", "\x00", "\u200b", "\r\n", '"', '\\"', "\ud800"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
TURNS = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system", "tool"]), "content": TEXT}
    ),
    max_size=6,
)
ROWS = st.lists(
    st.dictionaries(NAMES, VALUES, max_size=5)
    | st.fixed_dictionaries({"messages": TURNS})
    | st.fixed_dictionaries({"question": TEXT, "answer": TEXT, "post": VALUES}),
    max_size=12,
)
SPLICES = st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=12)), max_size=4)


def spliced(content: bytes, splices: list[tuple[int, bytes]]) -> bytes:
    """The bytes with others written over them here and there."""
    changed = bytearray(content)
    for place, put in splices:
        start = place % (len(changed) + 1)
        changed[start : start + len(put)] = put
    return bytes(changed)


def outcome(make_params: MakeParams, name: str, content: bytes, turns: int) -> None:
    """Prepare a file of these bytes; a UserError of one line is as good as splits."""
    with TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        params: DataParams = make_params(path, max_bad_rows=1000, context_turns=turns)
        try:
            metrics = prepare(params, Path(folder, "out"))
        except UserError as error:
            told = str(error)
        else:
            told = ""
        assert told.isprintable()
        if told:
            return
        files = [Path(folder, "out", f"{each}.jsonl") for each in ("train", "valid", "test")]
        pairs = [pair for file in files for pair in read_records(file, Pair)]
        assert len(pairs) == metrics["pairs"] > 0
        assert all(pair.question and pair.answer for pair in pairs)


@LONG
@given(ROWS, SPLICES, st.integers(0, 3), st.sampled_from([None, 2]))
def test_any_json(
    make_params: MakeParams,
    rows: list[Any],
    splices: list[tuple[int, bytes]],
    turns: int,
    indent: int | None,
) -> None:
    lines = "\n".join(json.dumps(row, indent=indent) for row in rows)
    outcome(make_params, "a.jsonl", spliced(lines.encode(), splices), turns)


@LONG
@given(ROWS, SPLICES, st.integers(0, 3))
def test_any_json_array(
    make_params: MakeParams, rows: list[Any], splices: list[tuple[int, bytes]], turns: int
) -> None:
    text = json.dumps(rows, indent=turns or None).encode()
    outcome(make_params, "a.jsonl", spliced(text, splices), turns)


@LONG
@given(
    st.lists(st.lists(TEXT | NAMES, min_size=1, max_size=4), max_size=12),
    st.sampled_from([",", ";", "\t", "|", ", "]),
    st.sampled_from(["", "sep=;\n", "question,answer\n", "\ufeffquestion;answer;post\n"]),
    SPLICES,
)
def test_any_csv(
    make_params: MakeParams,
    rows: list[list[str]],
    separator: str,
    head: str,
    splices: list[tuple[int, bytes]],
) -> None:
    text = head + "\n".join(separator.join(row) for row in rows)
    outcome(make_params, "a.csv", spliced(text.encode("utf-8", "replace"), splices), 0)


@LONG
@given(
    st.lists(st.tuples(TEXT, TEXT, st.floats() | st.none()), min_size=1, max_size=12),
    TURNS | st.none(),
    SPLICES,
)
def test_any_parquet(
    make_params: MakeParams,
    rows: list[tuple[str, str, float | None]],
    talk: list[dict[str, str]] | None,
    splices: list[tuple[int, bytes]],
) -> None:
    clean = [(q.encode("utf-8", "replace").decode(), a.encode("utf-8", "replace").decode(), post)
             for q, a, post in rows]  # fmt: skip
    table = pa.Table.from_pylist(
        [{"question": q, "answer": a, "post": post} for q, a, post in clean]
    )
    if talk and all(each["content"].isascii() for each in talk):
        table = pa.Table.from_pylist([{"messages": talk}] * 3)
    file = io.BytesIO()
    pq.write_table(table, file)
    outcome(make_params, "a.parquet", spliced(file.getvalue(), splices), 1)

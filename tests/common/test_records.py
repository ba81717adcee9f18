from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blogtune.common.errors import UserError
from blogtune.common.records import Answer, Judgement, Pair, Record, read_records, write_records

PAIR = '{"id": "a", "post": null, "question": "Q?", "answer": "A."}'
ANSWER = Answer(
    id="a",
    post="p",
    question="Q?",
    reference="R.",
    model="base",
    answer="A.",
    stop="end",
    tokens=2,
)
JUDGEMENT = Judgement(
    answer=ANSWER,
    method="cosine",
    similarity=0.71,
    partial_similarity=-0.42,
    other_references=None,
    truncated=False,
    reason=None,
)


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(Pair(id="a", post=None, question="Q\n?", answer="Ä\u2028"), id="pair"),
        pytest.param(ANSWER, id="answer"),
        pytest.param(JUDGEMENT, id="judgement"),
    ],
)
def test_records_come_back_as_they_were_written(tmp_path: Path, record: Record) -> None:
    path = tmp_path / "records.jsonl"
    assert write_records(path, [record, record]) == 2
    assert list(read_records(path, type(record))) == [record, record]


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        ANSWER.id = "b"  # type: ignore[misc]


TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(st.builds(Pair, id=TEXT, post=TEXT | st.none(), question=TEXT, answer=TEXT)))
def test_any_text_survives_the_round_trip(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[Pair]
) -> None:
    path = tmp_path_factory.getbasetemp() / "pairs.jsonl"
    write_records(path, pairs)
    assert list(read_records(path, Pair)) == pairs


@pytest.mark.parametrize(
    ("line", "kind", "message"),
    [
        pytest.param(b'{"id": "a"', Pair, "line: Invalid JSON", id="cut"),
        pytest.param(b"", Pair, "line: Invalid JSON", id="empty line"),
        pytest.param(b"\xff", Pair, "line: Invalid JSON", id="not UTF-8"),
        pytest.param(b"[1]", Pair, "line: Input should be an object", id="a list"),
        pytest.param(
            PAIR.replace('"post": null, ', "").encode(), Pair, "post: Field required", id="no post"
        ),
        pytest.param(
            PAIR.replace("id", "id_").encode(), Pair, "id: Field required", id="other name"
        ),
        pytest.param(
            PAIR.replace("}", ', "url": "x"}').encode(),
            Pair,
            "url: Extra inputs are not permitted",
            id="unknown field",
        ),
        pytest.param(
            ANSWER.model_dump_json().replace('"end"', '"eos"').encode(),
            Answer,
            "stop: Input should be 'end', 'length' or 'none'",
            id="unknown stop",
        ),
        pytest.param(
            JUDGEMENT.model_dump_json().replace("0.71", "1.01").encode(),
            Judgement,
            "similarity: Input should be less than or equal to 1",
            id="similarity above 1",
        ),
        pytest.param(
            JUDGEMENT.model_dump_json().replace("0.71", "NaN").encode(),
            Judgement,
            "line: Invalid JSON|similarity: Input should be a finite number",
            id="not a number",
        ),
        pytest.param(
            JUDGEMENT.model_dump_json().replace('"tokens":2', '"tokens":"x"').encode(),
            Judgement,
            r"answer\.tokens: Input should be a valid integer",
            id="inside the answer",
        ),
    ],
)
def test_a_bad_line_names_file_line_and_field(
    tmp_path: Path, line: bytes, kind: type[Record], message: str
) -> None:
    path = tmp_path / "records.jsonl"
    good = {Pair: PAIR, Answer: ANSWER.model_dump_json(), Judgement: JUDGEMENT.model_dump_json()}
    path.write_bytes(good[kind].encode() + b"\n" + line + b"\n")
    with pytest.raises(UserError, match=rf"records\.jsonl:2: ({message})"):
        list(read_records(path, kind))


def test_a_missing_file_says_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.jsonl: not found; run `dvc repro`"):
        list(read_records(tmp_path / "none.jsonl", Pair))


def test_records_that_end_in_an_error_leave_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    write_records(path, [ANSWER])

    def broken() -> Iterator[Answer]:
        yield ANSWER
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_records(path, broken())
    assert list(read_records(path, Answer)) == [ANSWER]
    assert list(tmp_path.iterdir()) == [path]

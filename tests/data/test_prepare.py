import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlx_lm.tuner.datasets import load_local_dataset

from blogtune.common.errors import UserError
from blogtune.common.records import NearDuplicate, Pair, read_records
from blogtune.data.columns import AS_HERE
from blogtune.data.params import DataParams
from blogtune.data.prepare import _BadRows, _read_keys, _Source, _write_splits, prepare
from blogtune.data.split import NAMES
from blogtune.data.values import REASONS
from blogtune.models.chat import open_chat
from blogtune.models.loading import load_model

MakeParams = Callable[..., DataParams]
WriteRows = Callable[..., Path]

FILES = ("train.jsonl", "valid.jsonl", "test.jsonl", "near_duplicates.jsonl")


def plain(number: int, post: str | None = None) -> dict[str, Any]:
    """A row that resembles no other."""
    row = {"question": f"q{number} " * 5, "answer": f"a{number} b{number} c{number}"}
    return row if post is None else row | {"post": post}


def blog(posts: int = 6, size: int = 10) -> list[dict[str, Any]]:
    return [plain(size * post + n, f"post {post}") for post in range(posts) for n in range(size)]


def pairs_in(output: Path) -> dict[str, list[Pair]]:
    return {
        name: list(read_records(output / file, Pair))
        for name, file in zip(NAMES, FILES, strict=False)
    }


def test_the_splits_hold_every_pair_once_in_the_order_of_the_input(
    write_rows: WriteRows, make_params: MakeParams, tmp_path: Path
) -> None:
    rows = blog()
    metrics = prepare(make_params(write_rows(*rows)), tmp_path / "out")
    splits = pairs_in(tmp_path / "out")
    order = {row["answer"]: number for number, row in enumerate(rows)}
    for name, pairs in splits.items():
        numbers = [order.pop(pair.answer) for pair in pairs]
        assert numbers == sorted(numbers)
        assert metrics[name] == len(pairs)
    assert not order


def test_the_metrics_have_stable_names_and_numbers_only(
    write_rows: WriteRows, make_params: MakeParams, tmp_path: Path
) -> None:
    turns = [{"role": role, "content": role} for role in ("user", "assistant")]
    path = write_rows(*blog(), {"url": "u", "messages": turns}, blog()[0], plain(99))
    metrics = prepare(make_params(path), tmp_path)
    assert metrics == {
        "rows": 63,
        "pairs": 62,
        "posts": 8,
        "without_post": 1,
        "train": metrics["train"],
        "validation": metrics["validation"],
        "test": metrics["test"],
        "context_cut": 0,
        "dropped": {"exact_duplicates": 1, "bad_rows": dict.fromkeys(REASONS, 0)},
        "near_duplicates": 0,
        "same_questions": 0,
        "question_words": round((61 * 5 + 1) / 62, 2),
        "answer_words": round((61 * 3 + 1) / 62, 2),
    }
    assert metrics["train"] + metrics["validation"] + metrics["test"] == 62


def test_an_exact_duplicate_is_dropped_whatever_its_post_case_and_spaces(
    write_rows: WriteRows,
    make_params: MakeParams,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    copies = [{"question": " Q0 Q0 Q0\nq0 q0", "answer": "A0  b0 c0", "post": "p"}, plain(1)]
    path = write_rows(*blog(), *copies)
    assert prepare(make_params(path), tmp_path)["dropped"]["exact_duplicates"] == 2
    kept = [pair.post for pairs in pairs_in(tmp_path).values() for pair in pairs]
    assert "p" not in kept
    assert None not in kept
    assert capsys.readouterr().err.splitlines() == [
        f"{path}:61: the same question and answer as an earlier pair; dropped",
        f"{path}: 2 exact duplicates dropped, that one included",
    ]


def test_a_post_whose_pairs_are_all_duplicates_is_not_counted(
    write_rows: WriteRows, make_params: MakeParams, tmp_path: Path
) -> None:
    metrics = prepare(make_params(write_rows(*blog(), plain(1), plain(2, "p"))), tmp_path)
    assert (metrics["posts"], metrics["without_post"]) == (6, 0)


@pytest.mark.parametrize("known", range(0, 60, 7))
def test_a_new_post_with_a_known_pair_moves_no_other_pair(
    write_rows: WriteRows, make_params: MakeParams, tmp_path: Path, known: int
) -> None:
    prepare(make_params(write_rows(*blog())), tmp_path / "before")
    added = [plain(known, "new"), plain(100, "new")]
    prepare(make_params(write_rows(*added, *blog())), tmp_path / "after")
    before, after = pairs_in(tmp_path / "before"), pairs_in(tmp_path / "after")
    for name, pairs in after.items():
        assert {pair.id for pair in pairs if pair.post != "new"} <= {p.id for p in before[name]}


def test_near_duplicates_between_test_and_train_are_named_and_counted(
    write_rows: WriteRows, make_params: MakeParams, tmp_path: Path
) -> None:
    rows = blog(posts=20)
    changed = [row | {"answer": row["answer"] + " too"} for row in rows]
    metrics = prepare(make_params(write_rows(*rows, *changed), limit=0.5), tmp_path)
    splits = pairs_in(tmp_path)
    found = list(read_records(tmp_path / "near_duplicates.jsonl", NearDuplicate))
    assert {near.test for near in found} <= {pair.id for pair in splits["test"]}
    assert {near.train for near in found} <= {pair.id for pair in splits["train"]}
    assert metrics["near_duplicates"] == len({near.test for near in found}) > 0


def test_by_post_a_post_is_in_one_split(
    write_rows: WriteRows, make_params: MakeParams, tmp_path: Path
) -> None:
    prepare(make_params(write_rows(*blog(posts=40)), by="post"), tmp_path)
    posts = [{pair.post for pair in pairs} for pairs in pairs_in(tmp_path).values()]
    assert sum(map(len, posts)) == 40


def test_bad_rows_that_are_allowed_are_told_counted_and_dropped_whole(
    write_rows: WriteRows,
    make_params: MakeParams,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    turns = [{"role": role, "content": "kept?"} for role in ("user", "assistant", "user")]
    path = write_rows(b"\xff", *blog(), {"messages": turns}, {"question": "", "answer": "x"})
    metrics = prepare(make_params(path, max_bad_rows=3), tmp_path)
    expected = {"encoding": 1, "turn_order": 1, "empty_text": 1}
    assert metrics["dropped"]["bad_rows"] == dict.fromkeys(REASONS, 0) | expected
    assert (metrics["rows"], metrics["pairs"]) == (63, 60)
    assert capsys.readouterr().err.splitlines() == [
        f"{path}:1: not UTF-8 at byte 1 of the line",
        f"{path}:62: messages ends with a user turn",
        f"{path}:63: question is empty",
    ]


def test_a_csv_row_with_too_many_cells_is_a_bad_row_like_others(
    make_params: MakeParams, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"{row['question']},{row['answer']}\n" for row in blog()]
    path = tmp_path / "blog.csv"
    path.write_text("".join(["question,answer\n", *lines, "a,b,c\n"]))
    metrics = prepare(make_params(path, max_bad_rows=1), tmp_path / "out")
    assert (metrics["rows"], metrics["pairs"]) == (61, 60)
    assert metrics["dropped"]["bad_rows"]["unknown_schema"] == 1
    told = f"{path}:62: 3 cells under 2 column names"
    assert capsys.readouterr().err.splitlines() == [told]
    with pytest.raises(UserError, match=f"{told} .1 bad row, data.max_bad_rows is 0"):
        prepare(make_params(path), tmp_path / "out")


def test_by_post_a_conversation_without_a_post_stays_together(
    write_rows: WriteRows, make_params: MakeParams, tmp_path: Path
) -> None:
    rows = [
        {"messages": [{"role": role, "content": f"{talk} {turn} {role}"}
                      for turn in range(3) for role in ("user", "assistant")]}
        for talk in range(40)
    ]  # fmt: skip
    metrics = prepare(make_params(write_rows(*rows), by="post"), tmp_path)
    assert (metrics["pairs"], metrics["posts"], metrics["without_post"]) == (120, 40, 0)
    talks = [{pair.question.split()[0] for pair in pairs} for pairs in pairs_in(tmp_path).values()]
    assert sum(map(len, talks)) == 40


def test_more_bad_rows_than_allowed_stop_the_run_with_the_first_and_their_number(
    write_rows: WriteRows,
    make_params: MakeParams,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write_rows(*blog(), *["{}"] * 50)
    message = (
        f"{path}:61: no conversation, messages, conversations, question, prompt or instruction "
        "(50 bad rows, data.max_bad_rows is 2); mend the data or raise data.max_bad_rows"
    )
    with pytest.raises(UserError) as caught:
        prepare(make_params(path, max_bad_rows=2), tmp_path / "out")
    assert str(caught.value) == message
    assert len(capsys.readouterr().err.splitlines()) == 22
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        pytest.param(["{}"], "no question/answer pair in it; see the bad rows above", id="no pair"),
        pytest.param(
            [plain(1), plain(2)], r"data\.split: no .* pair, there are only 2 pairs", id="too few"
        ),
    ],
)
def test_data_that_leave_a_split_empty_are_refused(
    write_rows: WriteRows, make_params: MakeParams, tmp_path: Path, rows: list[Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        prepare(make_params(write_rows(*rows), max_bad_rows=1), tmp_path)
    assert not (tmp_path / "train.jsonl").exists()


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([*blog(), plain(99)], id="a pair more"),
        pytest.param(blog()[:-1], id="a pair less"),
        pytest.param([plain(99, "post 0"), *blog()[1:]], id="another text"),
        pytest.param([plain(0, "post 9"), *blog()[1:]], id="another post"),
        pytest.param(["{}", *blog()[1:]], id="a bad row"),
    ],
)
def test_data_that_change_between_the_passes_leave_nothing_written(
    write_rows: WriteRows, tmp_path: Path, rows: list[Any]
) -> None:
    source = _Source(write_rows(*blog()), AS_HERE, 7)
    keys = _read_keys(source, _BadRows(0))
    write_rows(*rows)
    with pytest.raises(UserError, match=r"rows\.jsonl: changed while it was read"):
        _write_splits(source, keys, np.zeros(60, np.uint8), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_the_files_are_the_same_whatever_the_hash_seed_of_python(
    write_rows: WriteRows, make_params: MakeParams, tmp_path: Path
) -> None:
    rows = [row | {"answer": row["answer"] + end} for row in blog() for end in ("", " too")]
    params = make_params(write_rows(*rows)).model_dump_json()
    code = (
        "import sys; from pathlib import Path; from blogtune.data.params import DataParams; "
        "from blogtune.data.prepare import prepare; "
        "prepare(DataParams.model_validate_json(sys.argv[1]), Path(sys.argv[2]))"
    )
    for seed in ("1", "2"):
        command = [sys.executable, "-c", code, params, str(tmp_path / seed)]
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run(command, check=True, env=environment)
    for name in FILES:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
        assert (tmp_path / "1" / name).stat().st_size > 0


@pytest.mark.slow
def test_a_row_costs_at_most_200_bytes_of_memory(
    write_rows: WriteRows, make_params: MakeParams, tmp_path: Path
) -> None:
    peaks: list[int] = []
    for posts in (1_000, 4_000):
        params = make_params(write_rows(*blog(posts, 10)))
        tracemalloc.start()
        prepare(params, tmp_path / "out")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / 30_000 <= 200


def test_a_row_is_written_as_a_pair_with_its_id(
    write_rows: WriteRows, make_params: MakeParams, tmp_path: Path
) -> None:
    prepare(make_params(write_rows(*blog())), tmp_path)
    line = (tmp_path / "train.jsonl").read_text(encoding="utf-8").splitlines()[0]
    row = json.loads(line)
    assert list(row) == ["id", "post", "context", "question", "answer", "facts", "messages"]
    said = [(turn["role"], turn["content"]) for turn in row["messages"]]
    assert said == [("user", row["question"]), ("assistant", row["answer"])]


def test_the_reference_data_set_is_read_as_it_lies_on_the_hub(
    make_params: MakeParams, tmp_path: Path
) -> None:
    """One Parquet file of 91 posts, each with a conversation, and columns that nobody asked for."""

    def turns(post: int) -> list[dict[str, str]]:
        roles = ("user", "assistant") * 12
        return [{"role": r, "content": f"w{post} {turn} {r}"} for turn, r in enumerate(roles)]

    names = ("title", "conversation", "context", "url", "date")
    rows = [(f"t{n}", turns(n), "long " * 500, f"https://b.example/{n}", "d") for n in range(91)]
    file = tmp_path / "fetched/data/train-00000-of-00001.parquet"
    file.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows]), file)
    (tmp_path / "fetched/source.json").write_text("{}")
    metrics = prepare(make_params(tmp_path / "fetched"), tmp_path / "out")
    assert (metrics["rows"], metrics["pairs"], metrics["posts"]) == (91, 91 * 12, 91)
    posts = {pair.post for pairs in pairs_in(tmp_path / "out").values() for pair in pairs}
    assert posts == {f"https://b.example/{n}" for n in range(91)}


def test_mlx_lm_reads_the_splits_as_they_are(
    write_rows: WriteRows, make_params: MakeParams, tmp_path: Path, tiny_folder: Path
) -> None:
    """As `mlx_lm.lora --data` does, with the pairs' own keys beside the messages."""
    prepare(make_params(write_rows(*blog())), tmp_path / "out")
    tokenizer = load_model(tiny_folder, None).tokenizer
    sets = load_local_dataset(tmp_path / "out", tokenizer, SimpleNamespace(mask_prompt=True))
    for pairs, read in zip(pairs_in(tmp_path / "out").values(), sets, strict=True):
        assert len(read) == len(pairs)
        tokens, start = read.process(read[0])
        chat = open_chat(tokenizer)
        assert tokens[:start] == chat.prompt(pairs[0].question)
        answer = chat.answer(pairs[0].answer)
        assert tokens[start : start + len(answer)] == answer


def test_mlx_lm_reads_what_was_said_before_with_the_question(
    write_rows: WriteRows, make_params: MakeParams, tmp_path: Path, tiny_folder: Path
) -> None:
    roles = ("system", "user", "assistant", "user", "assistant")
    rows = [
        {"messages": [{"role": r, "content": f"{r} {n} {turn}"} for turn, r in enumerate(roles)]}
        for n in range(60)
    ]
    prepare(make_params(write_rows(*rows), context_turns=1), tmp_path / "out")
    tokenizer = load_model(tiny_folder, None).tokenizer
    sets = load_local_dataset(tmp_path / "out", tokenizer, SimpleNamespace(mask_prompt=True))
    chat = open_chat(tokenizer)
    for pairs, read in zip(pairs_in(tmp_path / "out").values(), sets, strict=True):
        for number, pair in enumerate(pairs):
            assert [turn.role for turn in pair.messages][:2] == ["system", "user"]
            tokens, start = read.process(read[number])
            assert tokens[:start] == chat.prompt(pair.question, pair.context)
    assert any(len(pair.context) == 3 for pair in pairs)

"""What the tests of `blogtune.data` share."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blogtune.data.params import DataParams

MakeParams = Callable[..., DataParams]
WriteRows = Callable[..., Path]


@pytest.fixture
def make_params() -> MakeParams:
    """`data` params with the shares of the pipeline; `split` and `near_duplicates` take changes."""

    def make(
        path: Path,
        max_bad_rows: int = 0,
        limit: float = 0.5,
        columns: dict[str, str] | None = None,
        context_turns: int = 0,
        **split: Any,
    ) -> DataParams:
        shares = {"by": "pair", "train": 0.7, "validation": 0.2, "test": 0.1, "seed": 7}
        near = {"method": "jaccard", "shingle_words": 3, "limit": limit}
        values = {
            "path": str(path),
            "fetch": {"source": None, "revision": None},
            "columns": columns,
            "context_turns": context_turns,
            "max_bad_rows": max_bad_rows,
            "near_duplicates": near,
        }
        return DataParams.model_validate({**values, "split": {**shares, **split}})

    return make


@pytest.fixture
def write_rows(tmp_path: Path) -> WriteRows:
    """Writes rows as JSONL to a file of that name, bytes and text as they are."""

    def write(*rows: Any, name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(_line(row) + b"\n" for row in rows))
        return path

    return write


def _line(row: Any) -> bytes:
    if isinstance(row, bytes):
        return row
    return (row if isinstance(row, str) else json.dumps(row)).encode()

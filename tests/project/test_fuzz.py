"""Whatever stands in params.yaml: it can be run, or one line says why not."""

import contextlib
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from blogtune.common.errors import UserError
from blogtune.common.pipeline import inputs
from blogtune.project.settings import Settings, obstacles, read_settings, use_profile

ROOT = Path(__file__).parents[2]
COMMITTED: dict[str, Any] = YAML(typ="safe").load(ROOT / "params.yaml")
LONG_SECONDS = 20

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**31, 2**64, -1, 10**400]),
    st.floats(),
    st.text(),
    st.sampled_from(
        ["auto", "path:models/base", "path:/", "hub:a/b", "hosts.json", "", "\0", "../"]
    ),
    st.dates(),
    st.binary(max_size=8),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(scalars, inner, max_size=3),
    max_leaves=8,
)


def places(of: dict[str, Any], above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for key, value in of.items():
        found.append((*above, key))
        if isinstance(value, dict):
            found += places(value, (*above, key))
    return found


def with_value(of: dict[str, Any], place: tuple[str, ...], value: object) -> dict[str, Any]:
    key, *rest = place
    inner = of.get(key)
    new = with_value(inner, tuple(rest), value) if rest and isinstance(inner, dict) else value
    return {**of, key: new}


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    """The committed file with another value or two, or with its bytes spoiled, or any bytes."""
    kind = draw(st.sampled_from(["values", "values", "values", "spoiled", "any"]))
    if kind == "any":
        return draw(st.binary() | st.text().map(lambda text: text.encode("utf-8", "replace")))
    if kind == "spoiled":
        text = (ROOT / "params.yaml").read_bytes()
        place = draw(st.integers(0, len(text) - 1))
        return text[:place] + draw(st.binary(max_size=5)) + text[place + draw(st.integers(0, 9)) :]
    changed = COMMITTED
    for _ in range(draw(st.integers(1, 2))):
        changed = with_value(changed, draw(st.sampled_from(places(COMMITTED))), draw(values))
    return _written(changed)


def _written(of: dict[str, Any]) -> bytes:
    from io import BytesIO

    stream = BytesIO()
    # What YAML cannot say, ruamel refuses to write: then it is no file that anybody has.
    with contextlib.suppress(Exception):
        YAML(typ="safe").dump(of, stream)
    return stream.getvalue()


def told(error: UserError) -> None:
    line = str(error)
    assert len(line) < 3000
    assert len(line.splitlines()) == 1 or not line.isprintable()


FUZZED = settings(
    max_examples=int(os.environ["BLOGTUNE_EXAMPLES"]),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.slow
@FUZZED
@given(texts())
def test_any_settings_run_or_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    file, began = tmp_path / "params.yaml", time.monotonic()
    file.write_bytes(text)
    read: Settings | None = None
    try:
        read = read_settings()
    except UserError as error:
        told(error)
    if read:
        for problem in obstacles(read):
            told(UserError(str(problem)))
    # A stage looks at these whether the settings are right or not.
    try:
        inputs("answer base")
    except UserError as error:
        assert read is None
        told(error)
    assert time.monotonic() - began < LONG_SECONDS


@pytest.mark.slow
@FUZZED
@given(texts())
def test_any_profile_is_laid_over_the_settings_or_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    file, began, committed = tmp_path / "params.yaml", time.monotonic(), ROOT / "params.yaml"
    file.write_bytes(committed.read_bytes())
    (tmp_path / "profile.yaml").write_bytes(text)
    try:
        use_profile(tmp_path / "profile.yaml")
    except UserError as error:
        told(error)
        assert file.read_bytes() == committed.read_bytes()
    assert time.monotonic() - began < LONG_SECONDS

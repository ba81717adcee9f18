"""What is decided, refused and said before the first step."""

from collections import namedtuple
from pathlib import Path
from typing import Any

import psutil
import pytest

from blogtune.errors import UserError
from blogtune.runtime import host
from blogtune.training import plan
from blogtune.training.engine import Engine
from blogtune.training.examples import Example
from blogtune.training.plan import use_what_pays
from blogtune.training.trunk import trunk_bytes
from tests import tiny

EXAMPLES = tiny.EXAMPLES
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets how much memory and disk there seems to be free."""

    def free(memory: float, disk: float = 1e12) -> None:
        real = psutil.virtual_memory()
        monkeypatch.setattr(psutil, "virtual_memory", lambda: real._replace(available=memory))
        monkeypatch.setattr(plan.shutil, "disk_usage", lambda _: Usage(0, 0, disk))

    return free


def used(folder: Path, examples: list[Example] = EXAMPLES, done: int = 0, **changes: Any) -> Engine:
    params = tiny.train_params(**{"dropout": 0.0, "iterations": 50, "batch_pairs": 2, **changes})
    made = Engine(tiny.network(), params, tiny.ALONE)
    use_what_pays(made, examples, [], folder, done)
    return made


def test_the_trunk_is_used_where_it_is_asked_for_more_often_than_computed(tmp_path: Path) -> None:
    assert used(tmp_path).trunk is not None
    assert used(tmp_path, iterations=1, warmup_iterations=0).trunk is None
    assert used(tmp_path, layers=tiny.BLOCKS).trunk is None
    assert used(tmp_path, trunk_cache="off").trunk is None
    # Where a run is taken up again, it goes the way that it went.
    assert used(tmp_path, done=49).trunk is not None


def test_it_lies_where_there_is_room(tmp_path: Path, free: Any) -> None:
    def kind(**changes: Any) -> str | None:
        trunk = used(tmp_path, **changes).trunk
        return type(trunk.states).__name__ if trunk else None

    needed = trunk_bytes(tiny.network(), EXAMPLES)
    step = 1e8
    free(memory=step)
    assert kind() == "ndarray"
    assert kind(trunk_cache="disk") == "memmap"
    many = [Example(f"m{row}", list(range(3, 200)), [2]) for row in range(2000)]
    large = trunk_bytes(tiny.network(), many)
    assert large > 9e7 > needed
    free(memory=2e8)
    assert plan._place(used(tmp_path), many, 10**6, tmp_path) == "disk"
    free(memory=2e8, disk=1e7)
    assert plan._place(used(tmp_path), many, 10**6, tmp_path) == "off"


@pytest.mark.parametrize(
    ("place", "said"),
    [
        pytest.param(
            "memory", "memory takes 5.89 kB, of 5 kB that are free; set it to disk or off"
        ),
        pytest.param("disk", "disk takes 5.89 kB, of 4 kB that are free; set it to off"),
    ],
)
def test_a_trunk_that_does_not_fit_is_refused(
    tmp_path: Path, free: Any, place: str, said: str
) -> None:
    assert trunk_bytes(tiny.network(), EXAMPLES) == 23 * tiny.WIDTH * 4 == 5_888
    made = Engine(tiny.network(), tiny.train_params(trunk_cache=place), tiny.ALONE)
    free(memory=5_000, disk=4_000)
    with pytest.raises(UserError) as caught:
        plan._place(made, EXAMPLES, 10**6, tmp_path)
    assert str(caught.value) == f"train.trunk_cache: {said}"


@pytest.mark.parametrize("recompute", [False, True])
def test_a_batch_that_does_not_fit_is_refused_with_what_to_lower(
    tmp_path: Path, free: Any, *, recompute: bool
) -> None:
    host.use()
    free(memory=100_000)
    with pytest.raises(UserError) as caught:
        used(tmp_path, trunk_cache="off", layers=4, gradient_checkpointing=recompute)
    other = "" if recompute else r", or set train\.gradient_checkpointing: true"
    size = r"[23]\d\d kB" if recompute else r"[89]\d\d kB"
    assert caught.match(
        rf"^train\.batch_pairs: 2 takes about {size} of memory a step, of 100 kB that are "
        r"free; lower it \(and raise train\.accumulate_batches\), or lower "
        rf"train\.max_sequence_tokens{other}$"
    )


def test_it_says_what_is_to_come(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    used(tmp_path, done=20)
    said = capsys.readouterr().err
    assert said.startswith("30 steps of about 0.")
    assert "the blocks below once, in 0 s (5.89 kB in memory; pays from " in said
    assert "epochs on, this run has 33.3); in all about " in said
    used(tmp_path, trunk_cache="off")
    assert "the blocks below" not in capsys.readouterr().err

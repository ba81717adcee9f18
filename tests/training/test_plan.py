"""What is decided, refused and said before the first step."""

import math
from collections import namedtuple
from pathlib import Path
from typing import Any

import mlx.core as mx
import psutil
import pytest
from mlx.utils import tree_flatten

from blogtune.common.errors import UserError
from blogtune.cpu import patches
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
    assert plan._storage(used(tmp_path), many, 10**6, tmp_path) == "disk"
    free(memory=2e8, disk=1e7)
    assert plan._storage(used(tmp_path), many, 10**6, tmp_path) == "off"


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
        plan._storage(made, EXAMPLES, 10**6, tmp_path)
    assert str(caught.value) == f"train.trunk_cache: {said}"


@tiny.A_CPUS_WAY
@pytest.mark.parametrize("recompute", [False, True])
def test_a_batch_that_does_not_fit_is_refused_with_what_to_lower(
    tmp_path: Path, free: Any, *, recompute: bool
) -> None:
    patches.use()
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


def test_passes_are_those_of_steps_and_evaluations() -> None:
    params = tiny.train_params(iterations=10, evaluate_every=4, accumulate_batches=2)
    # Evaluated before the first step and behind steps 4, 8 and 10.
    assert plan._passes(params, 5) == 10 * 2 * params.batch_pairs + 4 * 5


def test_looked_at_as_often_as_computed_it_does_not_pay(tmp_path: Path) -> None:
    made = Engine(tiny.network(), tiny.train_params(), tiny.ALONE)
    assert plan._storage(made, EXAMPLES, len(EXAMPLES), tmp_path) == "off"
    assert plan._storage(made, EXAMPLES, len(EXAMPLES) + 1, tmp_path) == "memory"


def test_evaluations_count_among_the_passes(tmp_path: Path) -> None:
    params = tiny.train_params(iterations=1, warmup_iterations=0, batch_pairs=2, dropout=0.0)
    made = Engine(tiny.network(), params, tiny.ALONE)
    validation = [Example(f"v{each.id}", each.prompt, each.answer) for each in EXAMPLES]
    # Two of the step and twice three of evaluations are more than the six to compute.
    use_what_pays(made, EXAMPLES, validation, tmp_path, 0)
    assert made.trunk is not None


def test_a_fifth_of_the_disk_stays_free(tmp_path: Path, free: Any) -> None:
    made = Engine(tiny.network(), tiny.train_params(), tiny.ALONE)
    free(memory=0, disk=5_888 / 0.9)
    assert plan._storage(made, EXAMPLES, 10**6, tmp_path) == "off"


def test_every_process_needs_the_trunks_memory(tmp_path: Path, free: Any) -> None:
    made = Engine(tiny.network(), tiny.train_params(trunk_cache="memory"), tiny.ALONE)
    made.group = tiny.Member(0, of=2)
    free(memory=20_000)
    with pytest.raises(UserError, match=r"memory takes 11\.8 kB"):
        plan._storage(made, EXAMPLES, 10**6, tmp_path)


def test_the_trunks_weights_are_let_go(tmp_path: Path) -> None:
    layers = used(tmp_path).network.layers
    sizes = [[array.size for _, array in tree_flatten(each.parameters())] for each in layers]
    assert not any(sizes[0])
    assert all(sizes[-1])


def test_a_validation_that_differs_turns_the_trunk_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "validate", lambda *_: 1e3)
    assert used(tmp_path).trunk is None


def test_gradients_of_other_names_are_infinitely_apart() -> None:
    one = mx.ones(1)
    assert plan._difference((1.0, {"a": one}), (1.0, {"a": one, "b": one})) == math.inf


def test_it_says_what_is_to_come(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    used(tmp_path, done=20)
    said = capsys.readouterr().err
    assert said.startswith("30 steps of about 0.")
    assert "the blocks below once, in 0 s (5.89 kB in memory; " in said
    assert "); in all about " in said
    used(tmp_path, trunk_cache="off")
    assert "the blocks below" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("without", "said"),
    [
        pytest.param(3e-3, "pays from 0.5 epochs on, this run has 12.0", id="gain"),
        pytest.param(1e-3, "no faster in the trial", id="none"),
    ],
)
def test_it_says_from_when_on_a_trunk_pays(without: float, said: str) -> None:
    made = Engine(tiny.network(), tiny.train_params(), tiny.ALONE)
    trial = plan.Trial(trunk=1e-3, with_trunk=1e-3, without=without, bytes_a_token=1.0)
    told = plan._forecast(made, EXAMPLES, [], trial, "memory", 0)
    assert f"(5.89 kB in memory; {said})" in told


@pytest.mark.parametrize(("free_bytes", "fits"), [(1_000_000, True), (999_999, False)])
def test_a_step_must_fit_beside_the_trunk(free: Any, free_bytes: int, *, fits: bool) -> None:
    made = Engine(tiny.network(), tiny.train_params(), tiny.ALONE)
    needed = sum(sorted(example.tokens - 1 for example in EXAMPLES)[-1:]) * len(EXAMPLES)
    trial = plan.Trial(0.0, 0.0, 0.0, bytes_a_token=900_000 / needed)
    free(memory=free_bytes)
    if fits:
        plan._refuse_too_large(made, EXAMPLES, trial, 100_000)
    else:
        with pytest.raises(UserError, match="of 900 kB that are free beside the trunk; lower it"):
            plan._refuse_too_large(made, EXAMPLES, trial, 100_000)

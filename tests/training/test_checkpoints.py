"""A training that is stopped at any moment and started again ends with the same bytes."""

import fcntl
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from blogtune.common.errors import UserError
from blogtune.common.records import Pair
from blogtune.models.loading import load_model
from blogtune.training import checkpoints, loop
from blogtune.training.checkpoints import Checkpoints, State, fingerprint, open_checkpoints, others
from blogtune.training.loop import Training, train
from blogtune.training.results import write_results
from tests import tiny
from tests.contracts.pipeline import imported_files
from tests.training.architectures import adapted

KILLS = int(os.environ["BLOGTUNE_KILLS"])
MARKS = {"model": "m", "data": "d", "parameters": "p", "engine": "e"}
# What could come out otherwise after a stop: dropout, an optimizer with a memory, several batches
# in a step, an epoch that ends between two checkpoints, a best adapter that is not the last.
PARAMS: dict[str, Any] = {
    "iterations": 9,
    "save_every": 2,
    "evaluate_every": 2,
    "accumulate_batches": 2,
    "dropout": 0.2,
    "optimizer": "adamw",
    "weight_decay": 0.1,
    "clip_norm": 1.0,
    "schedule": "constant",
    "learning_rate": 3e-2,
}
# Neither is what the taught model expects.
PAIRS = [tiny.pair(f"p{n}", f"What is {n}?", f"It is {n}.") for n in range(7)]
PROGRAM = """
import sys
from pathlib import Path

import mlx.core as mx
from blogtune.models.loading import load_model
from blogtune.runtime.params import RuntimeParams
from blogtune.runtime.workers import worker_group
from blogtune.training.loop import train
from blogtune.training.results import write_results
from tests import tiny
from tests.training.test_checkpoints import PAIRS, PARAMS

base, out, processes = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
runtime = RuntimeParams(dtype="float32", processes=processes)
params = tiny.train_params(**{**PARAMS, "iterations": 60, "batch_pairs": 3})
with worker_group(runtime, base, ["program", *sys.argv[1:]]) as group:
    model = load_model(base, mx.float32)
    result = train(model, PAIRS, PAIRS, params, out / "checkpoints", group)
    if group.rank() == 0:
        write_results(result, params, out / "adapter", out, out)
        result.checkpoints.remove()
"""
Run = Callable[..., Training]


@pytest.fixture
def run(taught_folder: Path, tmp_path: Path) -> Run:
    def run(
        folder: str = "run",
        dtype: mx.Dtype = mx.float32,
        # It forgets the facts from step to step, so the best adapter is an early one.
        validation: Sequence[Pair] = tiny.facts(),
        **changes: Any,
    ) -> Training:
        params = tiny.train_params(**{**PARAMS, **changes})
        where = tmp_path / folder
        model = load_model(taught_folder, dtype)
        result = train(model, PAIRS, validation, params, where / "checkpoints", tiny.ALONE)
        write_results(result, params, where / "adapter", where, where)
        assert result.checkpoints
        result.checkpoints.release()
        return result

    return run


def results(folder: Path) -> dict[str, bytes]:
    names = ("adapter/adapters.safetensors", "training.csv", "training.json")
    return {name: (folder / name).read_bytes() for name in names}


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has the step of that iteration end in an exception, once: before it began, or when done."""

    def stop(iteration: int, error: type[BaseException], *, done: bool = False) -> None:
        step = loop.train_step

        def stopping(way: Any, network: Any, optimizer: Any, *others: Any) -> float:
            number = int(optimizer.step) + 1
            if number < iteration or done:
                loss = step(way, network, optimizer, *others)
            if number < iteration:
                return loss
            monkeypatch.setattr(loop, "train_step", step)
            raise error

        monkeypatch.setattr(loop, "train_step", stopping)

    return stop


@pytest.mark.parametrize("iteration", range(1, 10))
def test_a_training_that_fell_over_goes_on_to_the_same_bytes(
    run: Run, stop: Callable[..., None], tmp_path: Path, iteration: int
) -> None:
    run("whole")
    stop(iteration, MemoryError)
    with pytest.raises(MemoryError):
        run("stopped")
    result = run("stopped")
    assert results(tmp_path / "stopped") == results(tmp_path / "whole")
    assert result.best != result.curve[-1]


def test_computing_in_another_type_starts_again(
    run: Run, stop: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    stop(6, MemoryError)
    with pytest.raises(MemoryError):
        run()
    run(dtype=mx.bfloat16)
    assert "going on" not in capsys.readouterr().err
    run()
    assert "going on from iteration 4" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(KeyboardInterrupt, id="Ctrl-C"),
        pytest.param(RuntimeError, id="another process ended"),
    ],
)
def test_a_stop_saves_the_last_iteration_and_says_so(
    run: Run,
    stop: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    error: type[BaseException],
) -> None:
    run("whole")
    stop(6, error)
    with pytest.raises(error):
        run("stopped")
    assert "stopped after iteration 5; saved" in capsys.readouterr().err
    (folder,) = (tmp_path / "stopped/checkpoints").iterdir()
    assert sorted(p.name for p in folder.iterdir() if p.is_dir()) == ["0000004", "0000005"]
    run("stopped")
    assert f"going on from iteration 5, saved in {folder}" in capsys.readouterr().err
    assert results(tmp_path / "stopped") == results(tmp_path / "whole")


def test_a_stop_behind_an_update_goes_back_before_it(
    run: Run, stop: Callable[..., None], tmp_path: Path
) -> None:
    run("whole")
    stop(6, KeyboardInterrupt, done=True)
    with pytest.raises(KeyboardInterrupt):
        run("stopped")
    run("stopped")
    assert results(tmp_path / "stopped") == results(tmp_path / "whole")


def test_a_stop_before_the_first_iteration_saves_nothing(
    run: Run, stop: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop(1, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert "stopped after" not in capsys.readouterr().err
    assert list((tmp_path / "run/checkpoints").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_at_random_moments_it_ends_with_the_same_bytes(
    taught_folder: Path, tmp_path: Path, processes: int
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    paths = os.pathsep.join([str(tmp_path), str(Path.cwd())])

    def start(folder: str) -> "subprocess.Popen[bytes]":
        (tmp_path / folder).mkdir(exist_ok=True)
        arguments = [str(taught_folder), str(tmp_path / folder), str(processes)]
        command = [sys.executable, "-m", "program", *arguments]
        return subprocess.Popen(
            command, env={**os.environ, "PYTHONPATH": paths}, stderr=subprocess.DEVNULL
        )

    began = time.monotonic()
    assert start("whole").wait(timeout=120) == 0
    whole, moments, kills = time.monotonic() - began, random.Random(processes), 0
    while kills < KILLS:
        process = start("killed")
        time.sleep(moments.uniform(0.3, 1.0) * whole)
        finished = process.poll() is not None
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += not finished
        if finished:
            assert results(tmp_path / "killed") == results(tmp_path / "whole")
    # A second process of a killed first one ends by itself, and holds the lock no longer.
    while (left := start("killed").wait(timeout=120)) != 0:
        assert left == 1
        time.sleep(0.5)
    assert results(tmp_path / "killed") == results(tmp_path / "whole")


def test_a_finished_training_leaves_no_checkpoints(run: Run, tmp_path: Path) -> None:
    result = run()
    assert result.checkpoints
    kept = sorted(path.name for path in result.checkpoints.folder.glob("0*"))
    assert kept == ["0000006", "0000008"]
    result.checkpoints.remove()
    assert list((tmp_path / "run/checkpoints").iterdir()) == []


def test_a_saved_adapter_is_one_that_mlx_lm_loads(run: Run, taught_folder: Path) -> None:
    result = run(keep_checkpoints=9)
    assert result.checkpoints
    for folder in result.checkpoints.folder.glob("0*"):
        load_model(taught_folder, mx.float32, folder)
    result.checkpoints.remove()


def test_another_training_is_named_and_not_used(
    run: Run, stop: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("alone", learning_rate=2e-3)
    stop(8, MemoryError)
    with pytest.raises(MemoryError):
        run("both")
    (old,) = (tmp_path / "both/checkpoints").iterdir()
    capsys.readouterr()
    run("both", learning_rate=2e-3)
    said = capsys.readouterr().err
    assert f"{old}: not used, it differs in parameters (iteration 6); delete it, or go" in said
    assert "going on" not in said
    assert results(tmp_path / "both") == results(tmp_path / "alone")
    assert old.exists()


def test_other_validation_pairs_are_other_data(
    run: Run, stop: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    stop(8, MemoryError)
    with pytest.raises(MemoryError):
        run()
    run(validation=tiny.facts()[1:])
    said = capsys.readouterr().err
    assert "not used, it differs in data" in said
    assert "going on" not in said


def test_another_number_of_processes_is_another_training(tmp_path: Path) -> None:
    base, setup = tiny.save_model(tmp_path / "base"), adapted(tiny.network()).setup(tiny.EXAMPLES)
    folders = list[Path]()
    for group in (tiny.ALONE, tiny.Member(0, of=2)):
        store = loop._open(base, replace(setup, group=group), tmp_path / "c")
        assert store is not None
        folders.append(store.folder)
        store.remove()
    assert folders[0] != folders[1]


def test_every_package_that_computes_a_training_is_in_the_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = list[Path]()

    def noted(*given: Any) -> dict[str, str]:
        sources.extend(given[3])
        return MARKS

    monkeypatch.setattr(loop, "fingerprint", noted)
    setup = adapted(tiny.network()).setup(tiny.EXAMPLES)
    store = loop._open(tmp_path, setup, tmp_path / "c")
    assert store is not None
    store.remove()
    imported = (Path(file).parts for file in imported_files("blogtune.training.loop"))
    packages = {parts[1] for parts in imported if parts[0] == "blogtune" and len(parts) > 2}
    # common/ reads, writes and shows: an edit there must not lose a training that it cannot change.
    assert {file.parent.name for file in sources} == packages - {"common"} | {"fast"}


def test_settings_and_versions_are_in_the_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny.save_model(tmp_path / "base")
    before = fingerprint(base, ["a"], "x", [])
    config = base / "config.json"
    config.write_text(config.read_text().replace("10000.0", "5000.0"))
    assert fingerprint(base, ["a"], "x", [])["model"] != before["model"]
    monkeypatch.setattr(checkpoints, "version", lambda _: "0.0")
    assert fingerprint(base, ["a"], "x", [])["engine"] != before["engine"]


def test_a_killed_training_without_checkpoints_is_not_told(tmp_path: Path) -> None:
    store = open_checkpoints(tmp_path, MARKS, 2)
    assert others(tmp_path, {**MARKS, "data": "other"}) == []
    store.remove()


def test_the_lock_names_its_holder_alone(tmp_path: Path) -> None:
    store = open_checkpoints(tmp_path, MARKS, 2)
    (store.folder / "lock").write_text("123456789")
    store.lock.close()
    store = open_checkpoints(tmp_path, MARKS, 2)
    with pytest.raises(UserError, match=rf"\(process {os.getpid()}\)"):
        open_checkpoints(tmp_path, MARKS, 2)
    store.remove()


def test_a_folder_that_was_deleted_just_now_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock

    def late(lock: Any, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        (folder,) = tmp_path.iterdir()
        shutil.rmtree(folder)
        flock(lock, how)

    monkeypatch.setattr(fcntl, "flock", late)
    store = open_checkpoints(tmp_path, MARKS, 2)
    assert (store.folder / "lock").exists()
    store.remove()


def test_a_second_training_of_the_same_kind_is_refused(tmp_path: Path) -> None:
    held = open_checkpoints(tmp_path, MARKS, 2)
    with pytest.raises(UserError) as caught:
        open_checkpoints(tmp_path, MARKS, 2)
    assert str(caught.value) == (
        f"{held.folder}: the same training runs already (process {os.getpid()}); "
        "wait for it, or end it"
    )
    open_checkpoints(tmp_path, {**MARKS, "data": "other"}, 2).remove()
    held.remove()
    open_checkpoints(tmp_path, MARKS, 2).remove()


@pytest.mark.parametrize("changed", ["model", "data", "parameters", "engine"])
def test_what_must_match_is_in_the_fingerprint(tmp_path: Path, changed: str) -> None:
    source = tmp_path / "engine.py"

    def marks(folder: Path, examples: list[str], parameters: str) -> dict[str, str]:
        return fingerprint(folder, examples, parameters, [source])

    source.write_text("a = 1")
    one, other = tiny.save_model(tmp_path / "one"), tiny.save_model(tmp_path / "two", seed=1)
    before = marks(one, ["a"], "x")
    source.write_text("a = 2" if changed == "engine" else "a = 1")
    after = marks(
        other if changed == "model" else one,
        ["b"] if changed == "data" else ["a"],
        "y" if changed == "parameters" else "x",
    )
    assert [part for part in before if before[part] != after[part]] == [changed]
    state = State(4, {}, {"a": mx.zeros(1)}, {}, {})
    store = open_checkpoints(tmp_path / "c", before, 2)
    store.save(state, tiny.train_params().lora, ["k"])
    (line,) = others(tmp_path / "c", after)
    assert f"not used, it differs in {changed} (iteration 4)" in line
    assert others(tmp_path / "c", before) == []
    store.release()


def test_a_checkpoint_is_there_as_a_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_checkpoints(tmp_path, MARKS, 1)
    arrays = {"layers.0.a": mx.arange(3.0)}
    state = State(3, {"losses": [0.1, 1 / 3]}, arrays, {"step": mx.array(3)}, arrays)
    store.save(state, tiny.train_params().lora, ["k"])

    def full(*_: object) -> None:
        raise RuntimeError("[save_safetensors] Unable to write 8 bytes")

    monkeypatch.setattr(mx, "save_safetensors", full)
    with pytest.raises(OSError, match="No space left"):
        store.save(State(4, {}, arrays, {}, {}), tiny.train_params().lora, ["k"])
    assert [path.name for path in store.folder.glob("0*")] == ["0000003"]
    read = loop.unpack(store.latest())
    assert (read.iteration, read.progress) == (3, {"losses": [0.1, 1 / 3]})
    assert mx.array_equal(read.adapter["layers.0.a"], arrays["layers.0.a"])
    assert int(read.optimizer["step"]) == 3
    store.remove()


def test_a_half_deleted_checkpoint_is_passed_over(tmp_path: Path) -> None:
    store = open_checkpoints(tmp_path, MARKS, 2)
    lora = tiny.train_params().lora
    for iteration in (3, 6):
        store.save(State(iteration, {}, {}, {}, {}), lora, ["k"])
    (store.folder / "0000006/state.safetensors").unlink()
    assert loop.unpack(store.latest()).iteration == 3
    store.save(State(6, {}, {}, {}, {}), lora, ["k"])
    assert loop.unpack(store.latest()).iteration == 6
    store.remove()


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGES = {
    "a flipped bit": flip,
    "cut off": lambda file: file.write_bytes(file.read_bytes()[:-100]),
    "empty": lambda file: file.write_bytes(b""),
    "no digest": lambda file: file.with_name("state.sha256").unlink(),
    "an empty digest": lambda file: file.with_name("state.sha256").write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_with_a_word(
    run: Run,
    stop: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
) -> None:
    """A flipped bit was used in silence; of a cut file mlx's error was a traceback."""
    run("whole")
    stop(8, MemoryError)
    with pytest.raises(MemoryError):
        run("stopped")
    (newest,) = (tmp_path / "stopped/checkpoints").glob("*/0000006")
    damage(newest / "state.safetensors")
    capsys.readouterr()
    run("stopped")
    said = capsys.readouterr().err
    assert f"{newest}: damaged since it was written; passed over" in said
    assert "going on from iteration 4" in said
    assert results(tmp_path / "stopped") == results(tmp_path / "whole")
    # It was written again, and can be gone on from.
    assert loop.unpack((newest / "state.safetensors").read_bytes()).iteration == 6


def test_where_all_are_damaged_it_begins_again(tmp_path: Path) -> None:
    store = open_checkpoints(tmp_path, MARKS, 2)
    for iteration in (3, 6):
        store.save(State(iteration, {}, {}, {}, {}), tiny.train_params().lora, ["k"])
        flip(store.folder / f"{iteration:07d}" / "state.safetensors")
    assert store.latest() == b""
    store.remove()


@pytest.mark.parametrize("content", ["", "{", "[]", "3"])
def test_an_unreadable_fingerprint_of_another_training_stops_none(
    tmp_path: Path, content: str
) -> None:
    store = open_checkpoints(tmp_path, MARKS, 2)
    (store.folder / "fingerprint.json").write_text(content)
    assert others(tmp_path, {**MARKS, "data": "other"}) == []
    store.remove()


def test_what_is_saved_is_not_written_over(tmp_path: Path) -> None:
    """In between there would be neither the old one nor the new one."""
    store = open_checkpoints(tmp_path, MARKS, 2)
    state = State(3, {}, {}, {}, {})
    store.save(state, tiny.train_params().lora, ["k"])
    folder = (store.folder / "0000003").stat().st_ino
    store.save(state, tiny.train_params().lora, ["k"])
    assert (store.folder / "0000003").stat().st_ino == folder
    store.remove()


def test_a_training_that_ends_just_now_is_not_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_checkpoints(tmp_path, MARKS, 2)
    store.save(State(3, {}, {}, {}, {}), tiny.train_params().lora, ["k"])
    other = {**MARKS, "data": "other"}
    assert len(others(tmp_path, other)) == 1
    read = Path.read_text

    def gone(path: Path, encoding: str) -> str:
        store.remove()
        return read(path, encoding)

    monkeypatch.setattr(Path, "read_text", gone)
    assert others(tmp_path, other) == []


def test_nothing_saved_is_nothing_to_go_on_from(tmp_path: Path) -> None:
    store: Checkpoints = open_checkpoints(tmp_path, MARKS, 1)
    assert store.latest() == b""
    store.remove()

"""Two real processes over loopback must train as one does."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

PROGRAM = """
import sys
from pathlib import Path

import mlx.core as mx
from blogtune.answering.generate import answer_questions
from blogtune.answering.params import AnswerParams
from blogtune.models.loading import load_model
from blogtune.common.records import write_records
from blogtune.runtime.params import RuntimeParams
from blogtune.runtime.workers import worker_group
from blogtune.training.loop import train
from blogtune.training.results import write_results
from tests import tiny

base, out = Path(sys.argv[1]), Path(sys.argv[2])
processes = int(sys.argv[3]) if sys.argv[3].isdigit() else sys.argv[3]
# Batches of 4, 4 and 1: the last leaves nothing for the second process.
pairs = [tiny.pair(f"p{n}", f"What is {'very ' * (n % 5)}{n}?", f"It is {n}.") for n in range(9)]
params = tiny.train_params(
    batch_pairs=4, dropout=0.0, iterations=7, evaluate_every=1, learning_rate=2e-3
)
asked = AnswerParams(split="test", max_tokens=9, batch_questions=8)
runtime = RuntimeParams(dtype="float32", processes=processes)
with worker_group(runtime, base, ["program", *sys.argv[1:]]) as group:
    model = load_model(base, mx.float32)
    result = train(model, pairs, tiny.facts(), params, out / "checkpoints", group)
    answers = answer_questions(load_model(base, mx.float32), "base", pairs, asked, group)
    if group.rank() == 0:
        write_results(result, params, out / "adapter", out, out)
        write_records(out / "answers.jsonl", answers)
"""


def run(base: Path, folder: Path, processes: int | str, *launcher: str) -> Path:
    folder.mkdir()
    (folder / "program.py").write_text(PROGRAM)
    arguments = [str(base), str(folder), str(processes)]
    command = [*(launcher or (sys.executable, "-m", "program")), *arguments]
    paths = os.pathsep.join([str(folder), str(Path.cwd())])
    environment = {**os.environ, "PYTHONPATH": paths}
    subprocess.run(command, env=environment, check=True, timeout=120, capture_output=True)
    return folder


def losses(folder: Path) -> list[list[float]]:
    with (folder / "training.csv").open() as file:
        return [[float(value) for value in row] for row in list(csv.reader(file))[1:]]


@pytest.fixture(scope="module")
def alone(taught_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(taught_folder, tmp_path_factory.mktemp("alone") / "run", 1)


@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_give_the_loss_curve_and_answers_of_one(
    taught_folder: Path, tmp_path: Path, alone: Path, processes: int
) -> None:
    folder = run(taught_folder, tmp_path / "run", processes)
    assert len(losses(folder)) == 7
    np.testing.assert_allclose(losses(folder), losses(alone), rtol=2e-5)
    ours, theirs = (mx.load(str(f / "adapter/adapters.safetensors")) for f in (folder, alone))
    assert isinstance(ours, dict)
    assert isinstance(theirs, dict)
    for name, array in theirs.items():
        np.testing.assert_allclose(ours[name], array, atol=2e-4, err_msg=name)
    assert (folder / "answers.jsonl").read_bytes() == (alone / "answers.jsonl").read_bytes()


def test_under_mlx_launch_the_group_is_the_launchers(
    taught_folder: Path, tmp_path: Path, alone: Path
) -> None:
    launch = str(Path(sys.executable).parent / "mlx.launch")
    paths = os.pathsep.join([str(tmp_path / "run"), str(Path.cwd())])
    # It hands its processes no environment of their own accord.
    options = ("-n", "2", "--backend", "ring", "--env", f"PYTHONPATH={paths}")
    program = (sys.executable, "-m", "program")
    folder = run(taught_folder, tmp_path / "run", 1, launch, *options, *program)
    np.testing.assert_allclose(losses(folder), losses(alone), rtol=2e-5)


def test_two_processes_twice_give_the_same_bytes(taught_folder: Path, tmp_path: Path) -> None:
    weights = [
        (run(taught_folder, tmp_path / name, 2) / "adapter/adapters.safetensors").read_bytes()
        for name in ("one", "two")
    ]
    assert weights[0] == weights[1]

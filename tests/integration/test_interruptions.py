"""A stage that is stopped, doubled, or has its ground moved: nothing half is taken for whole.

Where a stage must be caught at work, a named pipe takes the place of a file that it reads: the
stage has its parameters by then and waits.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Generator
from contextlib import contextmanager

import pytest

from tests.integration.project import LIGHT, Project, wait_for

INPUT = "data/judgements/base.jsonl"


@contextmanager
def compare_at_work(project: Project) -> Generator[subprocess.Popen[str]]:
    """The stage compare waiting for its first input, which it gets when the block ends."""
    file = project.root / INPUT
    content = file.read_bytes()
    file.unlink()
    os.mkfifo(file)
    process = project.start(*project.stage("compare"))
    # Opening it waits for the stage to open its other end.
    with file.open("wb") as pipe:
        yield process
        if process.poll() is None:
            pipe.write(content)


def ended(process: subprocess.Popen[str]) -> tuple[int, list[str]]:
    """The exit status and the lines on stderr."""
    lines = process.communicate(timeout=120)[1].splitlines()
    return process.returncode, lines


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            lambda project: project.set(compare__good=0.5),
            "error: params.yaml: compare changed while this stage ran; run it again",
            id="parameter",
        ),
        pytest.param(
            lambda project: project.append("blogtune/comparing/verdict.py", "\n# moved\n"),
            "error: blogtune/comparing/verdict.py: changed while this stage ran; run it again",
            id="source file",
        ),
        pytest.param(
            lambda project: os.utime(project.root / "data/processed/near_duplicates.jsonl"),
            "error: data/processed/near_duplicates.jsonl: changed while this stage ran; "
            "run it again",
            id="input",
        ),
    ],
)
def test_a_stage_whose_ground_moves_fails_and_says_so(
    project: Project, change: Callable[[Project], None], message: str
) -> None:
    with compare_at_work(project) as process:
        change(project)
    assert ended(process) == (1, [message])


def test_a_parameter_of_another_stage_may_change_meanwhile(project: Project) -> None:
    with compare_at_work(project) as process:
        project.set(train__iterations=11)
    assert ended(process) == (0, [])


def test_a_second_stage_beside_a_running_one_is_refused(project: Project) -> None:
    with compare_at_work(project) as process:
        refused = project.run(*project.stage("prepare"), fails=True)
        assert refused.returncode == 1
        assert refused.stderr == (
            f"error: another stage runs in this folder (compare, process {process.pid}); "
            "wait for it, or end it\n"
        )
    assert ended(process) == (0, [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "terminated"])
def test_an_interrupted_stage_says_one_line(project: Project, number: signal.Signals) -> None:
    written = (project.root / "metrics/comparison.json").stat().st_mtime_ns
    with compare_at_work(project) as process:
        process.send_signal(number)
        status, lines = ended(process)
    assert status == 130
    assert lines == ["stopped; what was finished is kept, `dvc repro` goes on from there"]
    assert (project.root / "metrics/comparison.json").stat().st_mtime_ns == written


def test_a_stage_that_outlived_dvc_is_not_doubled(project: Project) -> None:
    project.set(answer__max_tokens=200)
    dvc = project.start("dvc", "repro", "answer@base")
    orphan = project.running_stage("answer base")
    dvc.kill()
    dvc.wait()
    try:
        refused = project.run("dvc", "repro", "--single-item", "compare", "--force", fails=True)
        assert f"(answer base, process {orphan}); wait for it, or end it" in refused.stderr
    finally:
        os.kill(orphan, signal.SIGKILL)
        dvc.communicate()
    project.set(answer__max_tokens=24)
    project.repro()
    assert project.is_clean()


def test_interrupting_dvc_ends_the_stage_too(project: Project) -> None:
    project.set(answer__max_tokens=200)
    dvc = project.start("dvc", "repro", "answer@base")
    project.running_stage("answer base")
    os.killpg(dvc.pid, signal.SIGINT)
    status, lines = ended(dvc)
    assert status != 0
    assert sum(line.startswith("stopped; ") for line in lines) == 1
    assert not any("Traceback" in line for line in lines)
    assert not (project.root / "data/answers/base.jsonl").exists()


@pytest.mark.slow
@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "as a temporary experiment"])
def test_a_killed_training_goes_on_where_it_was(project: Project, *, elsewhere: bool) -> None:
    project.set_all({**LIGHT, "train.iterations": 6})
    # An experiment on a changed tree is a commit of somebody's.
    for name, value in {"user.name": "someone", "user.email": "someone@example.org"}.items():
        project.run("git", "config", name, value)
    project.repro("train")
    adapter = project.root / "models/adapter/adapters.safetensors"
    whole = adapter.read_bytes()
    # Another seed's training in between, so that what is in the cache is no help.
    project.run("dvc", "gc", "--workspace", "--force", "--quiet")
    adapter.unlink()
    (project.root / "dvc.lock").unlink()
    command = ("dvc", "exp", "run", "--temp", "train") if elsewhere else ("dvc", "repro", "train")
    dvc = project.start(*command)
    checkpoints = project.root / "checkpoints"
    wait_for(lambda: next(checkpoints.glob("*/0000002"), None))
    training = int(next(checkpoints.glob("*/lock")).read_text())
    os.kill(training, signal.SIGKILL)
    assert ended(dvc)[0] != 0
    assert not adapter.exists()
    again = project.run("dvc", "repro", "train")
    assert "going on from iteration " in again.stderr
    assert adapter.read_bytes() == whole
    assert list(checkpoints.iterdir()) == []


@pytest.mark.slow
def test_a_training_whose_ground_moved_keeps_its_checkpoints(project: Project) -> None:
    project.set_all({**LIGHT, "train.iterations": 6})
    process = project.start(*project.stage("train"))
    checkpoints = project.root / "checkpoints"
    wait_for(lambda: next(checkpoints.glob("*/0000002"), None))
    project.append("blogtune/common/progress.py", "\n# moved\n")
    status, lines = ended(process)
    assert status == 1
    assert (
        lines[-1]
        == "error: blogtune/common/progress.py: changed while this stage ran; run it again"
    )
    again = project.run(*project.stage("train"))
    assert "going on from iteration 6" in again.stderr
    assert list(checkpoints.iterdir()) == []

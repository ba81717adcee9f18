"""A run that is killed again and again goes on by `make repro` alone, to the same bytes.

BLOGTUNE_KILLS says how often it is killed; every second time just when DVC writes a file of its
own.
"""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.integration.project import FINISHES_WITHIN_SECONDS, Project

KILLS = int(os.environ.get("BLOGTUNE_KILLS", "3"))
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
# What DVC writes over what was there.
WRITTEN = ("dvc.lock", ".dvc/tmp/rwlock")
# What the stages behind the training leave, and how DVC would bring it back without them.
LATER = ("models/fused", "data/answers", "data/judgements", "data/examples.jsonl")
AFTER_TRAINING = ("fuse", "answer", "baselines", "judge", "check_judge", "compare")


def undo(project: Project, half: bytes) -> None:
    """Take back the second half of the run, and what DVC keeps of it."""
    (project.root / "dvc.lock").write_bytes(half)
    left = (*LATER, ".dvc/cache/runs", "metrics/comparison.json", "metrics/judge.json")
    project.run("rm", "-rf", *left)


def half_of(lock: str) -> bytes:
    """dvc.lock as it was before the stages behind the training."""
    parts = lock.split("\n  ")
    kept, keep = [parts[0]], True
    for part in parts[1:]:
        if not part.startswith((" ", "-")):
            keep = not part.startswith(AFTER_TRAINING)
        if keep:
            kept.append(part)
    return ("\n  ".join(kept).rstrip("\n") + "\n").encode()


def results(root: Path) -> dict[str, bytes]:
    places = ("dvc.lock", "models", "data", "metrics", "plots")
    files = (file for place in places for file in ([root / place], (root / place).rglob("*")))
    return {
        str(file.relative_to(root)): file.read_bytes()
        for some in files
        for file in some
        if file.is_file()
    }


def moment(moments: random.Random, project: Project, process: "subprocess.Popen[str]") -> str:
    """Wait for the moment of the kill; return what it was aimed at."""
    aim = moments.choice(["", *WRITTEN])
    if not aim:
        deadline = time.monotonic() + moments.uniform(0.0, 20.0)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        return "at any moment"
    # Not always the first write: a run has many.
    file, writes = project.root / aim, moments.randint(1, 6)
    seen = stamp(file)
    while process.poll() is None and writes:
        if (now := stamp(file)) != seen:
            seen, writes = now, writes - 1
    return aim


def stamp(file: Path) -> tuple[int, int]:
    try:
        seen = file.stat()
    except FileNotFoundError:
        return (0, 0)
    return (seen.st_mtime_ns, seen.st_size)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0])
def test_kills_at_random_moments_end_in_the_same_bytes(project: Project, seed: int) -> None:
    project.make("repro")
    whole = results(project.root)
    half = half_of(whole["dvc.lock"].decode())
    moments, kills, refused = random.Random(seed), 0, list[str]()
    tally: dict[str, int] = {}
    undo(project, half)
    while kills < KILLS:
        process = project.start("make", "--silent", "repro")
        number = SIGNALS[kills % len(SIGNALS)]
        aim = moment(moments, project, process)
        if process.poll() is None:
            os.killpg(process.pid, number)
            kills += 1
            lock = (project.root / "dvc.lock").stat().st_size
            what = f"{number.name} {aim}{' (dvc.lock left empty)' if lock == 0 else ''}"
            tally[what] = tally.get(what, 0) + 1
            print(kills, what, flush=True)
            process.communicate(timeout=FINISHES_WITHIN_SECONDS)
            continue
        said = "".join(process.communicate())
        assert process.returncode == 0, said
        assert results(project.root) == whole
        undo(project, half)
    print(tally)
    project.make("repro")
    assert results(project.root) == whole
    assert refused == []

"""A run that is killed again and again goes on by `make repro` alone, to the same bytes.

BLOGTUNE_KILLS says how often it is killed (tests/conftest.py); every second time just when DVC
writes a file of its own.
"""

import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.integration.project import FINISHES_WITHIN_SECONDS, LIGHT, Project, create

KILLS = int(os.environ["BLOGTUNE_KILLS"])
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
# What DVC writes over what was there.
WRITTEN = ("dvc.lock", ".dvc/tmp/rwlock")
# All that the stages write, and how DVC would bring it back without them.
WRITES = ("dvc.lock", "data/fetched", "data/processed", "data/answers", "data/judgements")
WRITES += ("data/examples.jsonl", "models/base", "models/judge", "models/second", "models/adapter")
WRITES += (
    "data/knowledge.jsonl",
    "models/fused",
    "metrics",
    "plots",
    ".dvc/cache/runs",
    ".dvc/tmp/dvc.lock.good",
)
# A random model of 4 blocks: what it says is of no interest, that it says it again is.
SMALL = {"train.lora.layers": 2, "train.lora.rank": 4, "answer.max_tokens": 4}
LENIENT = {"fuse.max_kl": 1.0, "fuse.min_top1_agreement": 0.1, "judge.check.items": 2}


@pytest.fixture
def small(tmp_path: Path, tiny_folder: Path) -> Project:
    """The pipeline on a model with which a whole run takes seconds."""
    (tmp_path / "home").mkdir()
    project = create(tmp_path / "tree", tmp_path / "home")
    project.set_all({**LIGHT, **SMALL, **LENIENT, "model.source": f"path:{tiny_folder}"})
    project.commit("small")
    return project


def undo(project: Project) -> None:
    project.run("rm", "-rf", *WRITES)


def results(root: Path) -> dict[str, Any]:
    """The bytes of all that was written; of dvc.lock what it says, in whatever order DVC did it."""
    found: dict[str, Any] = {"dvc.lock": YAML(typ="safe").load(root / "dvc.lock")}
    for place in ("models", "data", "metrics", "plots"):
        for file in (root / place).rglob("*"):
            if file.is_file():
                found[str(file.relative_to(root))] = file.read_bytes()
    return found


def moment(
    moments: random.Random, project: Project, process: "subprocess.Popen[str]", lasts: float
) -> str:
    """Wait for the moment of the kill; return what it was aimed at."""
    aim = moments.choice(["", *WRITTEN])
    if not aim:
        deadline = time.monotonic() + moments.uniform(0.0, lasts)
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
def test_kills_at_random_moments_end_in_the_same_bytes(small: Project) -> None:
    project, moments, kills = small, random.Random(0), 0
    began = time.monotonic()
    project.make("repro")
    lasts = time.monotonic() - began
    whole = results(project.root)
    undo(project)
    while kills < KILLS:
        process = project.start("make", "--silent", "repro")
        number = SIGNALS[kills % len(SIGNALS)]
        aim = moment(moments, project, process, lasts)
        if process.poll() is None:
            os.killpg(process.pid, number)
            kills += 1
            process.communicate(timeout=FINISHES_WITHIN_SECONDS)
            lock = project.root / "dvc.lock"
            empty = lock.exists() and lock.stat().st_size == 0
            print(kills, number.name, aim, "dvc.lock is empty" * empty, flush=True)
            continue
        said = "".join(process.communicate())
        assert process.returncode == 0, said
        assert results(project.root) == whole
        print("whole again", flush=True)
        undo(project)
    project.make("repro")
    assert results(project.root) == whole

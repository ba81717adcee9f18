"""What dvc.lock says of the last run, and what DVC finds changed since.

stages:
  answer@fused:
    deps:
    - path: models/fused
      md5: 9c1f...e2.dir
    outs:
    - path: data/answers/fused.jsonl
      md5: 41c0...
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from blogtune.common.errors import UserError
from blogtune.common.progress import say

LOCK = Path("dvc.lock")
# Also in commands/diff.sh.
STALE = "Not up to date: these are the figures of the last 'dvc repro'."
DVC_STATUS = (sys.executable, "-m", "dvc", "status")


def changes(*stages: str) -> list[str]:
    """Those of the stages (none named: all) that dvc.lock does not describe as things are.

    DVC compares what a stage reads and writes, code and parameters included; it believes a file's
    time, size and inode.
    """
    command = (*DVC_STATUS, "--json", *stages)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{' '.join(done.stderr.split())}", where="dvc status")
    return list(json.loads(done.stdout.strip().splitlines()[-1]))


def check_git() -> None:
    """Raise UserError where this folder is in no git repository: DVC works in none else."""
    here = Path.cwd()
    if not any((folder / ".git").exists() for folder in (here, *here.parents)):
        raise UserError(
            "no git repository, and DVC works in none else",
            where=here,
            remedy="clone the repository, or run `git init`",
        )


def warn_if_stale() -> None:
    """Say so where something changed since the last run; nothing where DVC cannot tell."""
    done = subprocess.run((*DVC_STATUS, "--quiet"), capture_output=True, check=False)
    if done.returncode == 1:
        say(STALE)


def outputs() -> dict[str, str]:
    """The md5 of every output, by its path."""
    lock: dict[str, Any] = YAML(typ="safe", pure=True).load(LOCK)
    return {
        out["path"]: out["md5"]
        for stage in lock["stages"].values()
        for out in stage.get("outs", [])
    }

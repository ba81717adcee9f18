"""The Makefile as Apple's make 3.81 reads it.

That make starts a line without shell characters by itself, and looks for its program in the PATH
that make was started with, not in the exported one: a tool of .venv must be named by its path.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.contracts.pipeline import ROOT

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
VARIABLES = dict(re.findall(r"^([A-Z]+) [:?]?= (.*)$", MAKEFILE, re.MULTILINE))
# In /bin or /usr/bin of every system that has make.
EVERYWHERE = {"awk", "echo", "test", "touch"}
OURS = (".venv/bin/", ".venv-peers/bin/", ".ci/", "commands/")
LINES = [line[1:] for line in MAKEFILE.splitlines() if line.startswith("\t")]


def programs(line: str) -> list[str]:
    """The program of each command in a recipe's line, quoted text left out."""
    for name, value in VARIABLES.items():
        line = line.replace(f"$({name})", value)
    bare = re.sub(r"'[^']*'|\"[^\"]*\"", "''", line.lstrip("@-+"))
    return [command.split()[0] for command in re.split(r"&&|\|\||[;|]", bare)]


@pytest.mark.parametrize("line", LINES)
def test_no_recipe_line_begins_with_a_bare_tool(line: str) -> None:
    for program in programs(line):
        assert program.startswith(OURS) or program in EVERYWHERE


@pytest.mark.parametrize("line", LINES)
def test_what_a_person_sets_reaches_a_recipe_by_the_environment_alone(line: str) -> None:
    assert not re.search(r"\$[({](PROFILE|BASE|FORMAT|PYTHON|Q|MODELS)[)}]", line)


def test_a_bare_tool_would_be_seen() -> None:
    assert programs("@test -x a || $(TESTS) | dvc status") == ["test", ".venv/bin/python", "dvc"]


HOSTILE = [
    'x"; touch pwned; "',
    "x'; touch pwned; '",
    "$(touch pwned)",
    "$(shell touch pwned)",
    "${shell touch pwned}",
    "`touch pwned`",
    "x; touch pwned",
    "x\ntouch pwned",
    "x | touch pwned & touch pwned",
    "$PATH $$ $(PATH)",
    "-n --help",
    "\x1b[2J",
]
SHOWS = """#!/bin/sh
printf '%s|%s|%s|%s|%s' "$PROFILE" "$BASE" "$FORMAT" "$Q" "$MODELS" >told
"""


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("by_environment", [False, True], ids=["argument", "environment"])
@pytest.mark.parametrize("target", ["use", "diff", "ask"])
def test_no_value_reaches_a_shell(
    tmp_path: Path, target: str, by_environment: bool, value: str
) -> None:
    for name in (".venv/bin/python", "commands/diff.sh"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(SHOWS)
        (tmp_path / name).chmod(0o755)
    values = dict.fromkeys(("PROFILE", "BASE", "FORMAT", "Q", "MODELS"), value)
    arguments = [] if by_environment else [f"{name}={given}" for name, given in values.items()]
    ready = ["-o", ".venv/.ready"]
    (tmp_path / ".venv/.ready").touch()
    subprocess.run(
        ["make", "-f", str(ROOT / "Makefile"), *ready, target, *arguments],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], **(values if by_environment else {})},
        check=True,
        capture_output=True,
    )
    assert (tmp_path / "told").read_text() == "|".join([value] * 5)
    assert not (tmp_path / "pwned").exists()

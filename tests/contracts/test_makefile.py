"""The Makefile as Apple's make 3.81 reads it.

That make starts a line without shell characters by itself, and looks for its program in the PATH
that make was started with, not in the exported one: a tool of .venv must be named by its path.
"""

import re

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
    assert not re.search(r"\$[({](PROFILE|BASE|FORMAT|PYTHON)[)}]", line)


def test_a_bare_tool_would_be_seen() -> None:
    assert programs("@test -x a || $(TESTS) | dvc status") == ["test", ".venv/bin/python", "dvc"]

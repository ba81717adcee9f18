"""`make setup` finds a Python that fits, or says in one line why none does, before it installs."""

import ast
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blogtune.project import machine

ROOT = Path(__file__).parents[2]

# Stands for a Python: does not fit if its file is named so, and tells what it was asked.
FAKE = """#!/bin/sh
name=$(basename "$0")
case "$1" in
blogtune/project/machine.py) case "$name" in {unfit}) echo "$name does not fit"; exit 1 ;; esac ;;
-c) echo "$0" ;;
*) echo "$name $*" >>"{log}" ; exit 3 ;;
esac
"""


@pytest.fixture
def set_up(tmp_path: Path) -> Callable[..., tuple[str, str]]:
    """Run the script among the Pythons named; return what it started, and its message."""

    def run(*found: str, unfit: str = "none", python: str = "") -> tuple[str, str]:
        root, tools, log = tmp_path / "project", tmp_path / "tools", tmp_path / "log"
        for folder in (root / "commands", tools):
            folder.mkdir(parents=True)
        shutil.copy(ROOT / "commands/setup.sh", root / "commands")
        for name in found:
            (tools / name).write_text(FAKE.format(unfit=unfit, log=log))
            (tools / name).chmod(0o755)
        for tool in ("basename", "dirname", "printf", "tail"):
            (tools / tool).symlink_to(str(shutil.which(tool)))
        done = subprocess.run(
            ["/bin/sh", "commands/setup.sh"],
            cwd=root,
            env={"PATH": str(tools), "PYTHON": python},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode
        return log.read_text() if log.exists() else "", done.stderr

    return run


def test_the_newest_known_python_is_taken_first(set_up: Callable[..., tuple[str, str]]) -> None:
    started, _ = set_up("python3", "python3.11", "python3.12")
    assert started == "python3.12 -m venv --clear .venv\n"


def test_one_that_does_not_fit_is_passed_over(set_up: Callable[..., tuple[str, str]]) -> None:
    started, _ = set_up("python3", "python3.11", "python3.13", unfit="python3.13")
    assert started == "python3.11 -m venv --clear .venv\n"


def test_where_none_fits_the_first_one_s_reason_is_told_and_nothing_is_made(
    set_up: Callable[..., tuple[str, str]],
) -> None:
    started, told = set_up("python3", "python3.12", unfit="*")
    assert (started, told) == ("", "error: python3.12 does not fit\n")


def test_without_any_python_it_says_what_to_install(
    set_up: Callable[..., tuple[str, str]],
) -> None:
    assert set_up() == (
        "",
        "error: no Python found (tried: python3.13 python3.12 python3.11 python3); install "
        "Python 3.12, then `make setup`\n",
    )


def test_a_python_that_is_named_is_the_only_one_tried(
    set_up: Callable[..., tuple[str, str]],
) -> None:
    started, told = set_up("python3.12", "mine", unfit="mine", python="mine")
    assert (started, told) == ("", "error: mine does not fit\n")


def test_this_python_fits() -> None:
    assert machine.obstacle() == ""


def on(patch: pytest.MonkeyPatch, system: str, machine_name: str, **others: Any) -> None:
    patch.setattr(sys, "platform", system)
    patch.setattr(platform, "machine", lambda: machine_name)
    patch.setattr(platform, "mac_ver", lambda: (others.get("macos", ""), ("", "", ""), ""))
    patch.setattr(machine, "_sysctl", lambda _: others.get("sysctl", ""))
    patch.setattr(os, "confstr", lambda _: others.get("glibc", "glibc 2.36"))


@pytest.mark.parametrize(
    ("system", "name", "others", "told"),
    [
        pytest.param("darwin", "arm64", {"macos": "15.1"}, "", id="Apple Silicon"),
        pytest.param("darwin", "arm64", {"macos": "26.0"}, "", id="macOS 26"),
        pytest.param(
            "darwin", "arm64", {"macos": "13.6.9"}, "macOS 13.6.9: MLX needs 14", id="old macOS"
        ),
        pytest.param(
            "darwin",
            "x86_64",
            {"macos": "15.1", "sysctl": "1"},
            "x86-64 Python on an Apple Silicon Mac",
            id="Rosetta",
        ),
        pytest.param(
            "darwin", "x86_64", {"macos": "14.0"}, "a Mac with an Intel processor", id="Intel"
        ),
        pytest.param("linux", "aarch64", {"glibc": "glibc 2.35"}, "", id="arm64"),
        pytest.param(
            "linux", "x86_64", {"glibc": "glibc 2.31"}, "glibc 2.31: MLX needs 2.35", id="old glibc"
        ),
        pytest.param("linux", "x86_64", {"glibc": None}, "without glibc", id="musl"),
        pytest.param("linux", "ppc64le", {}, "Linux on x86-64 and arm64", id="other processor"),
    ],
)
def test_what_has_no_wheels_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, system: str, name: str, others: dict[str, Any], told: str
) -> None:
    on(monkeypatch, system, name, **others)
    found = machine.obstacle()
    assert told in found
    assert bool(found) == bool(told)


@pytest.mark.parametrize(
    ("version", "told"),
    [
        pytest.param((3, 10), "too old, 3.11 to 3.14 are needed", id="old"),
        pytest.param((3, 11), "", id="oldest"),
        pytest.param((3, 14), "", id="newest"),
        pytest.param((3, 15), "too new", id="new"),
    ],
)
def test_a_python_without_wheels_is_refused(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int], told: str
) -> None:
    monkeypatch.setattr(sys, "version_info", (*version, 0))
    found = machine.obstacle()
    assert told in found
    assert bool(found) == bool(told)


def test_a_free_threaded_python_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_config_var", lambda _: 1)
    assert "standard CPython only" in machine.obstacle()


def test_it_needs_no_syntax_newer_than_python_3_6() -> None:
    source = (ROOT / "blogtune/project/machine.py").read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 6))

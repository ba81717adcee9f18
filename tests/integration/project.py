"""A copy of this repository in a temporary folder, with the real dvc, model and judge."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from blogtune.project.settings import set_value, use_profile

ROOT = Path(__file__).resolve().parents[2]
# Few and cheap steps, for tests that train again.
LIGHT = {
    "train.iterations": 2,
    "train.batch_pairs": 2,
    "train.evaluate_every": 1,
    "train.validation_pairs": 2,
    "train.save_every": 1,
    "train.warmup_iterations": 0,
}
FINISHES_WITHIN_SECONDS = 900
STARTS_WITHIN_SECONDS = 120


@dataclass(frozen=True)
class Project:
    """One such copy; its commands see neither the person's git settings nor DVC's."""

    root: Path
    home: Path

    def run(self, *command: str, fails: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a command at the root. Where it should fail any status but 0 is right."""
        result = subprocess.run(
            command,
            cwd=self.root,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=FINISHES_WITHIN_SECONDS,
            check=False,
        )
        assert (result.returncode != 0) == fails, result.stdout + result.stderr
        return result

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command in a process group of its own."""
        return subprocess.Popen(
            command,
            cwd=self.root,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def stage(self, *arguments: str) -> tuple[str, ...]:
        """The command of a stage."""
        return (sys.executable, "-m", f"stages.{arguments[0]}", *arguments[1:])

    def command(self, *arguments: str) -> tuple[str, ...]:
        """What a make target starts."""
        return (sys.executable, "-m", f"commands.{arguments[0]}", *arguments[1:])

    def repro(self, *targets: str) -> set[str]:
        """`dvc repro`; return the stages that ran."""
        return ran(self.run("dvc", "repro", *targets).stdout)

    def is_clean(self) -> bool:
        """Whether `dvc status` finds nothing to do."""
        return "up to date" in self.run("dvc", "status").stdout

    def make(self, *arguments: str, fails: bool = False) -> subprocess.CompletedProcess[str]:
        """`make`, with the running environment in the place of .venv."""
        own = self.root / ".venv"
        if not own.exists():
            # Not one link: git takes .venv/ for a folder, and would add a link.
            own.mkdir()
            for part in Path(sys.prefix).iterdir():
                (own / part.name).symlink_to(part)
            (own / ".ready").unlink(missing_ok=True)
        (own / ".ready").touch()
        return self.run("make", "--silent", *arguments, fails=fails)

    def commit(self, message: str) -> None:
        identity = ("-c", "user.name=someone", "-c", "user.email=someone@example.org")
        self.run("git", "add", "-A")
        self.run("git", *identity, "commit", "-q", "--allow-empty", "-m", message)

    def set(self, **values: Any) -> None:
        """Set parameters; an underscore pair stands for the dot of their names."""
        self.set_all({name.replace("__", "."): value for name, value in values.items()})

    def set_all(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            set_value(name, value, self.root / "params.yaml")

    def replace(self, file: str, old: str, new: str) -> None:
        """Replace a text's one occurrence in a file."""
        text = (self.root / file).read_text(encoding="utf-8")
        assert text.count(old) == 1
        (self.root / file).write_text(text.replace(old, new), encoding="utf-8")

    def append(self, file: str, text: str) -> None:
        with (self.root / file).open("a", encoding="utf-8") as stream:
            stream.write(text)

    def json(self, file: str) -> Any:
        return json.loads((self.root / file).read_text(encoding="utf-8"))

    def running_stage(self, name: str) -> int:
        """Wait until this stage holds the lock; return its process id."""
        lock = self.root / ".dvc/tmp/stage.lock"

        def held() -> int:
            text = lock.read_text() if lock.exists() else ""
            found = re.fullmatch(rf"{name}, process (\d+)", text)
            return int(found[1]) if found else 0

        return wait_for(held)

    def copy(self, root: Path) -> "Project":
        """The same at another place; models and DVC's cache are hard links, never written to."""

        def duplicate(source: str, target: str) -> None:
            inside = Path(source).relative_to(self.root)
            linked = inside.is_relative_to("models") or inside.is_relative_to(".dvc/cache/files")
            (os.link if linked else shutil.copy2)(source, target)

        ignore = shutil.ignore_patterns("tmp", "__pycache__", ".venv")
        shutil.copytree(self.root, root, copy_function=duplicate, ignore=ignore)
        return replace(self, root=root)

    def environment(self) -> dict[str, str]:
        own = ("GIT_", "DVC", "PYTHON", "MAKE", "MFLAGS", "BASE", "FORMAT")
        inherited = {name: text for name, text in os.environ.items() if not name.startswith(own)}
        return {
            **inherited,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_SYSTEM": os.devnull,
            "DVC_SITE_CACHE_DIR": str(self.home / "site"),
            "DVC_GLOBAL_CONFIG_DIR": str(self.home / "config"),
            "DVC_SYSTEM_CONFIG_DIR": str(self.home / "config"),
        }


def create(root: Path, home: Path) -> Project:
    """The working tree as it would be committed, with the profile tiny, as a commit."""
    listed = ("git", "ls-files", "-co", "--exclude-standard")
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    # A real run's results, if committed, are another profile's.
    results = ("dvc.lock", "metrics/", "plots/")
    for name in names.splitlines():
        if not name.startswith(results) and (ROOT / name).exists():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    # The default first: what is committed may be a user's own settings.
    for profile in ("smollm2", "tiny"):
        use_profile(root / f"profiles/{profile}.yaml", root / "params.yaml")
    project = Project(root, home)
    project.run("git", "init", "-q", "-b", "main")
    project.commit("tiny")
    return project


def ran(output: str) -> set[str]:
    """The stages that ran, as DVC tells it; "is cached" is none of them."""
    return set(re.findall(r"^Running stage '([^']+)'", output, re.MULTILINE))


def wait_for(condition: Callable[[], int]) -> int:
    """Wait until the condition gives something else than 0; return that."""
    end = time.monotonic() + STARTS_WITHIN_SECONDS
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
    return found

"""What every stage's command line shares: errors in one line, one stage at a time, nothing moved.

@click.command()
@stage
def main(run: Run) -> None: ...
"""

import errno
import fcntl
import functools
import inspect
import os
import signal
import sys
import traceback
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NoReturn, TypeVar

import click

from blogtune.common import params as parameters
from blogtune.common import worker
from blogtune.common.errors import Problem, UserError
from blogtune.common.files import sha256
from blogtune.common.output import echo
from blogtune.common.params import Section
from blogtune.common.pipeline import SOURCES, inputs, stamps

S = TypeVar("S", bound=Section)
LOCK = Path(".dvc/tmp/stage.lock")


class Run:
    """One run of a stage: the sections it has read, the sources and inputs it started from."""

    def __init__(self, name: str) -> None:
        self.sections: dict[str, Section] = {}
        self.sources = _sources()
        self.inputs = inputs(name)
        self.stamps = stamps(self.inputs)

    def read(self, section: str, kind: type[S]) -> S:
        """The validated section of params.yaml, remembered for `check_unmoved`."""
        values = parameters.read_params(section, kind)
        self.sections[section] = values
        return values

    def check_unmoved(self) -> None:
        """Raise UserError if what it was made from changed: DVC would record what is there now."""
        for section, values in self.sections.items():
            if parameters.read_params(section, type(values)) != values:
                raise UserError(
                    f"{section} changed while this stage ran",
                    where="params.yaml",
                    remedy="run it again",
                )
        now = _sources()
        changed = [path for path in _loaded() if self.sources.get(path) != now.get(path)]
        read = stamps(self.inputs)
        changed += sorted(path for path, _ in self.stamps.items() ^ read.items())
        if changed:
            raise UserError("changed while this stage ran", where=changed[0], remedy="run it again")


def stage(function: Callable[..., None]) -> Callable[..., None]:
    """Give a stage's function its `Run` and the option --debug."""

    @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    @functools.wraps(function)
    def command(*, debug: bool, **arguments: str) -> None:
        # Of several processes one holds the lock for all; of a host file's, who started them.
        holds = worker.is_first() and not worker.of_host_file()
        with readable_errors(debug=debug), _only_one(_name(function)) if holds else nullcontext():
            run = Run(_name(function))
            function(run, **arguments)
            run.check_unmoved()
            if worker.is_first() and worker.of_host_file():
                Path(os.environ[worker.DONE]).touch()

    return command


def _name(function: Callable[..., None]) -> str:
    """Such as "answer base": under `python -m` every stage's module is called __main__."""
    arguments = (each for each in sys.argv[1:] if not each.startswith("-"))
    return " ".join([Path(inspect.getfile(function)).stem, *arguments])


@contextmanager
def readable_errors(*, debug: bool = False) -> Generator[None]:
    """Print a user's mistake as one line and exit with status 1; Ctrl-C with 130."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except (UserError, OSError) as error:
        if debug:
            echo(traceback.format_exc(), err=True)
        refuse([_problem(error)])
    except KeyboardInterrupt:
        echo("stopped; what was finished is kept, `dvc repro` goes on from there", err=True)
        sys.exit(130)


def refuse(problems: Iterable[Problem]) -> NoReturn:
    """Print each problem as a line, and exit with status 1."""
    for problem in problems:
        echo(f"error: {problem}", color="red", err=True)
    sys.exit(1)


def _problem(error: UserError | OSError) -> Problem:
    if isinstance(error, UserError):
        return error.problem
    if error.errno == errno.ENOSPC:
        remedy = "free some, then `dvc repro` goes on from what is finished"
        return Problem("no room left on the disk", remedy=remedy)
    return Problem(str(error.strerror or error), str(error.filename or ""))


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@contextmanager
def _only_one(stage: str) -> Generator[None]:
    """Hold this tree's lock: no second stage beside one that outlived its `dvc repro`."""
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise UserError(
                f"another stage runs in this folder ({lock.read().strip()})",
                remedy="wait for it, or end it",
            ) from error
        lock.truncate(0)
        lock.write(f"{stage}, process {os.getpid()}")
        lock.flush()
        yield


def _loaded() -> list[Path]:
    """The source files of this tree that have been imported, relative to it."""
    here = Path.cwd().resolve()
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    paths = {Path(file).resolve() for file in files if file}
    ours = (path.relative_to(here) for path in paths if path.is_relative_to(here))
    return sorted(path for path in ours if path.parts[0] in SOURCES)


def _sources() -> dict[Path, str]:
    files = (file for folder in SOURCES for file in Path(folder).rglob("*.py"))
    return {file: sha256(file) for file in files}

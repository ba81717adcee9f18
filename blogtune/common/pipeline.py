"""What dvc.yaml says that a stage reads, and what the pipeline writes.

DVC knows it too, but takes seconds to be imported. Of its templates this knows those that dvc.yaml
has: ${key of params.yaml} and, in a foreach, ${key} and ${item.name}.
"""

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from blogtune.common.errors import UserError
from blogtune.common.params import PARAMS_FILE, load_yaml

PIPELINE = Path("dvc.yaml")
# Code, whose moves are noticed by what has been imported.
SOURCES = ("blogtune", "stages")
# As .dvcignore has it.
IGNORED = re.compile(r"__pycache__|\.ipynb_checkpoints|\.DS_Store|.*\.py[co]|\..*\.partial")
KINDS = ("outs", "metrics", "plots")

Stamps = dict[Path, tuple[int, int, int]]


class _Stage(NamedTuple):
    """A stage with its templates filled in, "answer base" being one of foreach's."""

    name: str
    inputs: list[Path]
    outputs: list[Path]


def inputs(stage: str) -> list[Path]:
    """The files and folders that a stage reads beside code, such as those of "answer base"."""
    return [path for each in _stages() if each.name == stage for path in each.inputs]


def outputs() -> list[Path]:
    """All that the stages write, which DVC may delete before they do."""
    return [path for stage in _stages() for path in stage.outputs]


def stamps(paths: Collection[Path]) -> Stamps:
    """Size, time and inode, by which DVC knows a file again, of all files there and below."""
    found: Stamps = {}
    for path in paths:
        for file in _files(path):
            if file.is_file():
                seen = file.stat()
                found[file] = (seen.st_size, seen.st_mtime_ns, seen.st_ino)
    return found


def check_not_written(path: Path, key: str, *, but: Collection[Path] = ()) -> None:
    """Raise UserError where a file or folder of the user's lies in what the pipeline writes.

    Or where it has some of that in it. `but` names outputs that may be read.
    """
    for output in outputs():
        if output not in but and (_within(path, output) or _within(output, path)):
            raise UserError(
                f"{path} is no place for your files: the pipeline writes {output}, and deletes "
                "what was there",
                where=key,
                remedy="keep them elsewhere, such as in data/ or models/ under a name of their own",
            )


def _within(inner: Path, outer: Path) -> bool:
    """Whether `inner` is `outer` or lies below it, links and the case of names seen through."""
    there = outer.absolute()
    places = {Path(os.path.normpath(inner.absolute())), inner.resolve()}
    return any(_same(there, each) for place in places for each in (place, *place.parents))


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return one == other


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
    for parent, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not IGNORED.fullmatch(name)]
        yield from (Path(parent, name) for name in names if not IGNORED.fullmatch(name))


def _stages() -> Iterator[_Stage]:
    if not PIPELINE.exists():
        return
    loaded = load_yaml(PARAMS_FILE)
    parameters: dict[str, Any] = loaded if isinstance(loaded, dict) else {}
    for name, defined in load_yaml(PIPELINE)["stages"].items():
        if "foreach" not in defined:
            yield _filled(name, defined, parameters)
            continue
        for key, item in defined["foreach"].items():
            known = {**parameters, "key": key, "item": item}
            yield _filled(f"{name} {key}", defined["do"], known)


def _filled(name: str, defined: dict[str, Any], known: Any) -> _Stage:
    deps = [_path(each, known) for each in defined.get("deps", [])]
    outs = [_path(each, known) for kind in KINDS for each in defined.get(kind, [])]
    read = [path for path in deps if path and path.parts[0] not in SOURCES]
    return _Stage(name, read, [path for path in outs if path])


def _path(entry: str | dict[str, Any], known: Any) -> Path | None:
    """None where a key is missing, or no text: that is told when its section is read."""
    template = entry if isinstance(entry, str) else next(iter(entry))
    try:
        return Path(re.sub(r"\$\{([\w.]+)\}", lambda found: _value(found[1], known), template))
    except (KeyError, TypeError, ValueError):
        return None


def _value(name: str, known: Any) -> str:
    for key in name.split("."):
        known = known[key]
    if not isinstance(known, str):
        raise TypeError
    return known

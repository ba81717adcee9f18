"""dvc.yaml as the tests see it, and what a stage's script really imports and reads."""

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("blogtune", "stages")
DEFAULT = ROOT / "profiles/smollm2.yaml"


def is_default_run() -> bool:
    """Whether params.yaml trains the default's model on the default's data.

    Where it names other data or another model, settings and figures are a user's own, and need be
    neither the default profile's nor those that README tells of.
    """
    params, default = (YAML(typ="safe", pure=True).load(p) for p in (ROOT / "params.yaml", DEFAULT))
    mine, its = ((of["data"]["path"], of["model"]["source"]) for of in (params, default))
    return bool(mine == its)


of_the_default = pytest.mark.skipif(
    not is_default_run(), reason="params.yaml names other data or another model than the default"
)


@dataclass(frozen=True)
class Stage:
    """One resolved stage of dvc.yaml."""

    name: str
    script: str
    dependencies: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: tuple[str, ...]


@cache
def stages() -> tuple[Stage, ...]:
    """All stages, with foreach and matrix resolved by DVC itself."""
    with Repo(str(ROOT)) as repo:
        return tuple(_stage(stage) for stage in repo.index.stages)


def imported_files(module: str) -> set[str]:
    """The files of this project that importing `module` loads, function bodies included."""
    found: set[str] = set()
    queue = [module]
    while queue:
        for name in _with_parents(queue.pop()):
            file = _file(name)
            if file is not None and file not in found:
                found.add(file)
                queue.extend(_imports(ROOT / file))
    return found


def sections_read(script: str) -> set[str]:
    """The sections of params.yaml that a stage's script asks its `Run` for."""
    tree = ast.parse((ROOT / script).read_text(encoding="utf-8"))
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    reads = [call for call in calls if getattr(call.func, "attr", "") == "read"]
    return {ast.literal_eval(call.args[0]) for call in reads}


def covers(dependency: str, file: str) -> bool:
    """Whether a file or folder named in `deps` covers the file."""
    return file == dependency or file.startswith(f"{dependency}/")


def _stage(stage: Any) -> Stage:
    dependencies: list[str] = []
    parameters: list[str] = []
    for dependency in stage.deps:
        if type(dependency).__name__ == "ParamsDependency":
            parameters.extend(dependency.params)
        else:
            dependencies.append(str(dependency))
    module = stage.cmd.split()[2]
    script = f"{module.replace('.', '/')}.py"
    outputs = tuple(str(output) for output in stage.outs)
    return Stage(stage.name, script, tuple(dependencies), outputs, tuple(parameters))


def _with_parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _file(module: str) -> str | None:
    path = Path(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((str(each) for each in candidates if (ROOT / each).is_file()), None)


def _imports(file: Path) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.extend([node.module, *(f"{node.module}.{alias.name}" for alias in node.names)])
    return [name for name in names if name.split(".")[0] in PACKAGES]

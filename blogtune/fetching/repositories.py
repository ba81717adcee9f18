"""Which files of a hub's repository are needed: a model's weights once, a data set's tables."""

from collections.abc import Iterable
from pathlib import PurePosixPath

from blogtune.common.errors import UserError
from blogtune.common.model_files import SINGLE, is_of_model
from blogtune.common.sources import DatasetParams, ModelParams
from blogtune.fetching.hub import HubFile, Repository, look_up

# What is written here and must not come from elsewhere.
GENERATED = ("conversion_report.json", "source.json")
# The kinds that `blogtune.data.sources` reads.
DATA = (".jsonl", ".csv", ".parquet")


def of_model(params: ModelParams) -> Repository:
    """What the hub tells of a pinned model. Raises UserError."""
    return look_up(params.name, "model", _pinned(params.name, params.revision))


def of_data(params: DatasetParams) -> Repository:
    """What the hub tells of a pinned data set. Raises UserError."""
    return look_up(params.name, "dataset", _pinned(params.name, params.revision))


def model_files(repository: Repository) -> list[HubFile]:
    """The files that a model is loaded from; raise UserError where there are no safetensors."""
    names = weights_and_beside(file.path for file in repository.files)
    weights = any(name.endswith(".safetensors") for name in names)
    if not weights or "config.json" not in names:
        raise UserError("no safetensors weights with a config.json there", where=repository.source)
    return [file for file in repository.files if file.path in names]


def weights_and_beside(paths: Iterable[str]) -> set[str]:
    """Of a model's files, by their paths in its folder, those that it is loaded from."""
    names = {path for path in paths if is_of_model(path)}
    if SINGLE in names:
        # As transformers does where both are there.
        names -= {name for name in names if name.endswith(".safetensors")} - {SINGLE}
    return names


def data_files(repository: Repository) -> list[HubFile]:
    """The files that `prepare` can read; raise UserError where there is none."""
    files = [file for file in repository.files if _is_data_file(PurePosixPath(file.path))]
    if not files:
        raise UserError(
            f"no {' or '.join(DATA)} file there",
            where=repository.source,
            remedy="convert what there is, and set data.path to that",
        )
    return files


def _is_data_file(path: PurePosixPath) -> bool:
    # No part may lead elsewhere, and hidden files are not read.
    inside = not path.is_absolute() and not any(part.startswith(".") for part in path.parts)
    return inside and path.suffix.lower() in DATA


def _pinned(name: str, revision: str | None) -> str:
    if revision is None:
        raise UserError("its revision is not pinned", where=f"hub:{name}", remedy="run `make pin`")
    return revision

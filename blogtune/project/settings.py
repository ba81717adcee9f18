"""params.yaml as a whole: is it valid, can it run here, and how a profile is laid over it.

No stage imports this: a stage reads its own section, and only that reruns it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from blogtune.answering.params import AnswerParams
from blogtune.baselines.params import BaselineParams
from blogtune.common.errors import Problem, UserError
from blogtune.common.files import atomic_text
from blogtune.common.params import PARAMS_FILE, Section, load_yaml, read_params, shown
from blogtune.common.pipeline import check_not_written
from blogtune.common.sources import DatasetParams, ModelParams
from blogtune.comparing.params import CompareParams
from blogtune.data.files import special_files
from blogtune.data.params import FETCHED, DataParams
from blogtune.exporting.params import ExportParams
from blogtune.fusing.params import FuseParams
from blogtune.judging.params import JudgeParams, OneJudge
from blogtune.probing.params import ProbeParams
from blogtune.publishing.params import PublishParams
from blogtune.runtime.params import RuntimeParams
from blogtune.training.params import TrainParams

PROFILES = Path("profiles")
# Sources that may change behind their name.
PINNED = ("hub", "ollama")


class Settings(Section):
    """All sections together."""

    model: ModelParams
    runtime: RuntimeParams
    data: DataParams
    train: TrainParams
    fuse: FuseParams
    answer: AnswerParams
    baselines: BaselineParams
    judge: JudgeParams
    probe: ProbeParams
    compare: CompareParams
    export: ExportParams
    publish: PublishParams

    def models(self) -> dict[str, ModelParams]:
        """Every model that these settings name, by its key."""
        models = {"model": self.model, "judge.model": self.judge.model}
        if self.judge.second:
            models["judge.second.model"] = self.judge.second.model
        return models

    def sources(self) -> dict[str, ModelParams | DatasetParams]:
        """Every source that these settings name, models and the data set, by its key."""
        data = {"data.fetch": self.data.fetch} if self.data.fetch.source else {}
        return {**self.models(), **data}

    def own_files(self) -> Iterator[tuple[str, Path, list[Path]]]:
        """What of the user's own is read, by its key, and which of the outputs it may be."""
        for key, each in self.models().items():
            if each.scheme == "path":
                yield f"{key}.source", Path(each.name), []
        fetched = [Path(FETCHED)] if self.data.fetch.source else []
        yield "data.path", Path(self.data.path), fetched
        yield "judge.check.paraphrases", Path(self.judge.check.paraphrases), []

    def judges(self) -> dict[str, OneJudge]:
        """Every judge, by its key."""
        second = {"judge.second": self.judge.second} if self.judge.second else {}
        return {"judge": self.judge, **second}


def read_settings(path: Path = PARAMS_FILE) -> Settings:
    """Read and validate every section. Raises UserError for the first problem."""
    return read_params("", Settings, path)


def obstacles(settings: Settings) -> list[Problem]:
    """What of these settings cannot run; empty when all can."""
    found = [
        Problem(f"{each.source} is not pinned", f"{name}.revision", "run `make pin`")
        for name, each in settings.sources().items()
        if each.scheme in PINNED and each.revision is None
    ]
    for key, place, but in settings.own_files():
        try:
            check_not_written(place, key, but=but)
        except UserError as error:
            found.append(error.problem)
    path, paraphrases = settings.data.path, settings.judge.check.paraphrases
    if settings.data.fetch.source is None and not Path(path).exists():
        found.append(Problem(f"{path} is not there", "data.path", "put the data there"))
    found += [
        Problem("a pipe, socket or device", str(file), "save its data to a file")
        for file in (*special_files(Path(path)), *special_files(Path(paraphrases)))
        # DVC would wait for its end.
    ]
    if not Path(paraphrases).exists():
        none = "if you have none, name an empty file"
        found.append(Problem(f"{paraphrases} is not there", "judge.check.paraphrases", none))
    return found


def profile_file(name: str) -> Path:
    """The file of a profile, there or not. Raises UserError for none, or a path as ../params."""
    if not name:
        raise UserError("no PROFILE given", remedy=f"make use PROFILE=<name>: {_names(PROFILES)}")
    if Path(name).name != name:
        raise UserError(
            "a path, not a name", where=f"PROFILE={name}", remedy=f"name a file in {PROFILES}/"
        )
    return PROFILES / f"{name}.yaml"


def _names(folder: Path) -> str:
    return ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))


def use_profile(profile: Path, path: Path = PARAMS_FILE) -> list[str]:
    """Lay a profile's keys over params.yaml, comments kept; return "key: old -> new" lines.

    Raises UserError for a profile that does not exist, holds a key that params.yaml lacks, or makes
    it invalid, which then stays as it was.
    """
    if not profile.exists():
        raise UserError(
            "no such profile", where=profile, remedy=f"there are {_names(profile.parent)}"
        )
    values, laid_over = (load_yaml(each, comments=True) for each in (path, profile))
    for file, loaded in ((path, values), (profile, laid_over)):
        if not isinstance(loaded, dict):
            raise UserError("no sections with keys", where=file)
    changes = _overlay(values, laid_over, "", profile)
    before = path.read_text(encoding="utf-8")
    _write(values, path)
    try:
        read_settings(path)
    except UserError as error:
        with atomic_text(path) as file:
            file.write(before)
        raise UserError(
            f"makes this invalid: {error}", where=profile, remedy="nothing was changed"
        ) from error
    return changes


def set_value(key: str, value: Any, path: Path = PARAMS_FILE) -> None:
    """Set one dotted key in params.yaml, comments kept."""
    values = load_yaml(path, comments=True)
    *sections, last = key.split(".")
    inner = values
    for name in sections:
        inner = inner[name]
    inner[last] = value
    _write(values, path)


def _write(values: Any, path: Path) -> None:
    """Write what a round trip read, atomically."""
    try:
        with atomic_text(path) as file:
            _round_trip().dump(values, file)
    except (ValueError, RecursionError) as error:
        raise UserError(f"a value cannot be written: {error}", where=path) from error


def _overlay(values: Any, overlay: Any, where: str, profile: Path) -> list[str]:
    changes: list[str] = []
    for key, new in overlay.items():
        name = f"{where}{key}"
        if key not in values:
            raise UserError(f"{name}: unknown key", where=profile)
        if isinstance(new, dict) and isinstance(values[key], dict):
            changes += _overlay(values[key], new, f"{name}.", profile)
        elif values[key] != new:
            changes.append(f"{name}: {_text(values[key])} -> {_text(new)}")
            values[key] = new
    return changes


def _text(value: Any) -> str:
    return "null" if value is None else shown(value) if isinstance(value, int) else str(value)


def _round_trip() -> YAML:
    yaml = YAML()
    yaml.width = 200
    yaml.representer.add_representer(type(None), _represent_null)
    return yaml


def _represent_null(representer: Any, _: None) -> Any:
    """Write "null" where ruamel would write nothing."""
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")

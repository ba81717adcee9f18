"""What the last run left behind and the card reports, read from its committed files."""

import csv
import hashlib
import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blogtune.checking.figures import Fitness
from blogtune.common.errors import UserError
from blogtune.common.texts import sentences
from blogtune.comparing.results import read_comparison, read_fitness
from blogtune.exporting.weights import FUSED
from blogtune.project.lock import LOCK
from blogtune.project.settings import Settings

BASE = Path("models/base")
FETCHED = Path("data/fetched")
ADAPTER, GGUF = Path("models/adapter"), Path("models/export/model.gguf")
QUANTIZED = re.compile(r"[.-]((?:I?Q|TQ|MXFP)\d\w*)\.gguf$", re.I)


@dataclass(frozen=True)
class Facts:
    """One run: its settings, its figures, and the commit whose dvc.lock describes it.

    `history` are the rows of plots/training.csv, `base` is models/base/source.json, `fetched` the
    same of a data set of the hub (empty where there is none), `datasheet` the README.md beside the
    data ("" where there is none), `lock` the sha256 of dvc.lock.
    """

    settings: Settings
    comparison: Mapping[str, Any]
    fitness: Fitness
    data: Mapping[str, Any]
    training: Mapping[str, Any]
    fusion: Mapping[str, Any]
    history: list[dict[str, str]]
    base: Mapping[str, Any]
    base_config: Mapping[str, Any]
    fused_config: Mapping[str, Any]
    fetched: Mapping[str, Any]
    datasheet: str
    commit: str
    lock: str

    @property
    def verdict(self) -> str:
        """What may be said of the fused model, in one line."""
        return str(self.comparison.get("fused", {}).get("verdict", ""))

    @property
    def outcome(self) -> str:
        """The verdict's word; "" where there is none."""
        return str(self.comparison.get("fused", {}).get("outcome", ""))

    @property
    def license(self) -> str | None:
        """The base's license, which is the result's, or what publish.license says in its place."""
        return self.base.get("license") or self.settings.publish.license

    @property
    def data_license(self) -> str | None:
        """What the hub states of a data set, or what publish.data_license says in its place.

        Of other data the first sentence of the datasheet's section, if publish.data_license is
        null.
        """
        section = re.search(r"^#+ Licen[sc]e\s*\n+(.+)$", self.datasheet, re.MULTILINE | re.I)
        said = sentences(section[1])[0].removesuffix(".") if section else None
        return self.fetched.get("license") or self.settings.publish.data_license or said

    @property
    def data_name(self) -> str:
        """The data set's on the hub, or the datasheet's title up to its colon, or data.path's."""
        if self.fetched:
            return str(self.fetched["origin"])
        title = re.match(r"# ([^:\n]+)", self.datasheet)
        return title[1].strip() if title else Path(self.settings.data.path).name

    @property
    def dequantized(self) -> str:
        """What the base's weights were quantized to before they became floats here, or ""."""
        found = QUANTIZED.search(str(self.base.get("source", "")))
        if found:
            return found[1]
        quantization = self.base_config.get("quantization")
        if quantization and "quantization" not in self.fused_config:
            return f"{quantization['bits']} bits"
        return ""


def read_facts(settings: Settings) -> Facts:
    """Read everything from the current folder. Raises UserError for what is missing or broken."""
    datasheet = Path(settings.data.path) / "README.md"
    return Facts(
        settings=settings,
        comparison=read_comparison(),
        fitness=read_fitness(),
        data=_json(Path("metrics/data.json")),
        training=_json(Path("metrics/training.json")),
        fusion=_json(Path("metrics/fusion.json")),
        history=list(csv.DictReader(_text(Path("plots/training.csv")).splitlines())),
        base=_json(BASE / "source.json"),
        base_config=_json(BASE / "config.json"),
        fused_config=_json(FUSED / "config.json"),
        fetched=_json(FETCHED / "source.json") if settings.data.fetch.source else {},
        datasheet=_text(datasheet) if datasheet.is_file() else "",
        # Not HEAD: later commits, of the receipt for one, change nothing that the card reports.
        commit=git("log", "-1", "--format=%H", "--", str(LOCK)).strip(),
        lock=hashlib.sha256(_text(LOCK).encode()).hexdigest(),
    )


def git(*arguments: str) -> str:
    """What git prints. Raises UserError where it fails."""
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)  # noqa: S607
    if done.returncode:
        raise UserError(f"{' '.join(done.stderr.split())}", where=f"git {arguments[0]}")
    return done.stdout


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError("not there yet", where=path, remedy="run `make repro`") from error


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"not JSON ({error})", where=path, remedy="run `make repro`") from error

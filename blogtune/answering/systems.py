"""The models that answer the test questions, each named once: here, and in dvc.yaml's `answer`."""

from dataclasses import dataclass
from pathlib import Path

BASE, ADAPTER, FUSED = Path("models/base"), Path("models/adapter"), Path("models/fused")


@dataclass(frozen=True)
class System:
    """One of them: what it is loaded from, and how the verdict speaks of it.

    `draft` is the system whose answers it will mostly repeat: it is asked how far it would. One
    without a `subject` is no candidate: there is no verdict about it.
    """

    weights: Path
    adapter: Path | None = None
    draft: str | None = None
    subject: str | None = None


SYSTEMS = {
    "base": System(BASE),
    "finetuned": System(BASE, ADAPTER, subject="this adapter"),
    "fused": System(FUSED, draft="finetuned", subject="this adapter, fused"),
}


def subject_of(model: str) -> str | None:
    """How the verdict speaks of a candidate; None of all others, as of a baseline."""
    return SYSTEMS[model].subject if model in SYSTEMS else None

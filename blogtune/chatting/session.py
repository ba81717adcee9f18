"""A conversation with several models, each of which answers the same question."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from blogtune.answering.params import AnswerParams
from blogtune.answering.systems import SYSTEMS, System
from blogtune.chatting.reply import reply
from blogtune.common.errors import UserError
from blogtune.common.output import echo
from blogtune.common.progress import size_text
from blogtune.models.loading import LoadedModel, load_model
from blogtune.runtime.device import compute_dtype, fast_math, free_memory
from blogtune.runtime.params import RuntimeParams


def systems(named: str) -> dict[str, System]:
    """The models with these names, which white space separates, in their order.

    Raises UserError for a name that is none, and for a model that was not made yet.
    """
    names = list(dict.fromkeys(named.split()))
    for name in names:
        if name not in SYSTEMS:
            raise UserError(
                f"{name!r} is no model", where="MODELS", remedy=f"name some of: {' '.join(SYSTEMS)}"
            )
    found = {name: SYSTEMS[name] for name in names}
    if not found:
        raise UserError("names no model", where="MODELS", remedy=f"take of: {' '.join(SYSTEMS)}")
    for folder in (folder for each in found.values() for folder in _folders(each)):
        if not folder.is_dir():
            raise UserError("not made yet", where=str(folder), remedy="`make repro` makes it")
    return found


def load(chosen: Mapping[str, System], runtime: RuntimeParams) -> dict[str, LoadedModel]:
    """All of them at once, each with weights of its own.

    Raises UserError where there is no room for them.
    """
    needed = sum(_size(each.weights) for each in chosen.values())
    if len(chosen) > 1 and needed > free_memory():
        raise UserError(
            f"{size_text(needed)} of weights, but {size_text(free_memory())} are free",
            where="memory",
            remedy=f"talk to one at a time: MODELS={[*chosen][-1]}",
        )
    dtype = compute_dtype(runtime)
    return {name: load_model(each.weights, dtype, each.adapter) for name, each in chosen.items()}


def ask(models: Mapping[str, LoadedModel], question: str, params: AnswerParams) -> None:
    """Print the answer of each model behind its name, while it is written."""
    width = max(map(len, models))
    for name, model in models.items():
        echo(f"{name:<{width}}  ", end="", color="cyan")
        try:
            with fast_math():
                reply(model, question, params, lambda piece: echo(piece, end=""))
        finally:
            echo("")


def _folders(system: System) -> Sequence[Path]:
    return [system.weights, *([system.adapter] if system.adapter else [])]


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))

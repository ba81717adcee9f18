"""`make export` from the first look to the figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx

from blogtune.answering.params import AnswerParams
from blogtune.common.errors import UserError
from blogtune.common.records import Answer, Pair
from blogtune.exporting.answers import agreement, ask_all, records
from blogtune.exporting.folder import modelfile, server_file, write_folder
from blogtune.exporting.params import ExportParams
from blogtune.exporting.server import OllamaServer
from blogtune.exporting.serving_gap import agreement_metrics, check_same_questions, serving_gap
from blogtune.exporting.source import open_source
from blogtune.exporting.weights import FUSED, measured_weights
from blogtune.judging.judge import open_judge
from blogtune.judging.params import JudgeParams
from blogtune.models.loading import load_model
from blogtune.ollama.client import with_tag

JUDGE, OUTPUT = Path("models/judge"), Path("models/export")
FUSED_ANSWERS = Path("data/answers/fused.jsonl")


def export(
    pairs: Sequence[Pair],
    fused: Sequence[Answer],
    params: ExportParams,
    answering: AnswerParams,
    judging: JudgeParams,
    dtype: mx.Dtype | None,
) -> dict[str, Any]:
    """Register models/fused, ask it the questions, and return metrics/export.json's content.

    Where `params.folder` says so, models/export/ is written last. Raises UserError before any work
    for what Ollama cannot import, for a name that a judge has, and for answers of other weights.
    """
    name = params.ollama.name
    _check_name(name, judging)
    check_same_questions(fused, pairs, str(FUSED_ANSWERS))
    source = open_source(FUSED)
    if params.folder:
        modelfile(source, ".")
    weights = measured_weights(FUSED_ANSWERS)
    server = OllamaServer(params.ollama)
    digest = server.register(source)
    replies = ask_all(server, source, pairs, answering)
    served = records(pairs, replies)
    found = agreement(load_model(FUSED, dtype), source.chat, pairs, replies)
    shown = server.model().show()
    metrics = {
        "name": name,
        "digest": digest,
        "quantization": str(shown.details and shown.details.quantization_level),
        **serving_gap(served, fused, open_judge(judging, JUDGE), judging, params),
        **agreement_metrics(found),
        "stopped_for_repeating": sum(reply.repeats for reply in replies),
    }
    if params.folder:
        gguf = server_file(shown.modelfile or "") if params.folder == "gguf" else None
        write_folder(OUTPUT, source, gguf, weights)
    return metrics


def closing(metrics: dict[str, Any], params: ExportParams) -> str:
    """What `make export` ends with."""
    difference = metrics["difference"]
    interval = ""
    if "low" in difference:
        interval = f" [{difference['low']:+.3f}, {difference['high']:+.3f}]"
    equal = "equivalent" if metrics["equivalent"] else "not shown to be equivalent"
    told = (
        f"{metrics['name']} ({metrics['quantization']}): similarity {difference['mean']:+.3f}"
        f"{interval} against the fused model, {equal} within {params.margin:g}; top-1 agreement "
        f"{metrics['top1_agreement']:.2%} at {metrics['positions']} tokens\n"
        f"run it: ollama run {metrics['name']}; figures: metrics/export.json"
    )
    return f"{told}; files: {OUTPUT}" if params.folder else told


def _check_name(name: str, judging: JudgeParams) -> None:
    judges = [judging, *([judging.second] if judging.second else [])]
    taken = {with_tag(each.model.name) for each in judges if each.kind == "ollama"}
    if with_tag(name) in taken:
        raise UserError(
            f"{name} is the judge's model, which would be overwritten",
            where="export.ollama.name",
            remedy="choose another name",
        )

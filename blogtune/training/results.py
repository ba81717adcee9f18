"""Writes what a training leaves: the best adapter, its metrics, the loss curve."""

import csv
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path

from blogtune.common.files import atomic_text, write_json
from blogtune.training.loop import Evaluation, Training
from blogtune.training.lora import save_adapter
from blogtune.training.params import TrainParams


def write_results(
    training: Training, params: TrainParams, adapter: Path, metrics: Path, plots: Path
) -> None:
    """Write the adapter folder, `metrics/training.json` and `plots/training.csv`."""
    write_curve(training.curve, plots)
    write_json(metrics / "training.json", _metrics(training))
    save_adapter(adapter, training.weights, params.lora, training.keys)


def write_curve(curve: Sequence[Evaluation], plots: Path) -> None:
    """Write `plots/training.csv`; while a training runs, what it has so far can be plotted."""
    with atomic_text(plots / "training.csv") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field.name for field in fields(Evaluation))
        for row in curve:
            writer.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in astuple(row)])


def _metrics(training: Training) -> dict[str, float]:
    best, last = training.best, training.curve[-1]
    assert best is not None
    return {
        "trainable_parameters": training.trainable,
        "best_iteration": best.iteration,
        "base_validation_loss": round(training.base_validation_loss, 6),
        "best_validation_loss": round(best.validation_loss, 6),
        "last_validation_loss": round(last.validation_loss, 6),
        "last_train_loss": round(last.train_loss, 6),
        "answers_cut": training.answers_cut,
        "padding_share": round(training.padding_share, 4),
    }

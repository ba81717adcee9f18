"""The training loop: step, evaluate, save, keep the best."""

import math
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import mlx.core as mx
import numpy as np
from tqdm import tqdm

from blogtune.errors import UserError
from blogtune.models.chat import open_chat
from blogtune.models.loading import LoadedModel
from blogtune.records import Pair
from blogtune.training.engine import Engine
from blogtune.training.examples import Batch, Example, epochs, make_examples
from blogtune.training.lora import save_adapter
from blogtune.training.params import TrainParams
from blogtune.training.schedule import learning_rate

# A recent training loss this many times the base model's validation loss is divergence.
DIVERGED = 1.5
RECENT = 10


@dataclass(frozen=True)
class Evaluation:
    """One row of plots/training.csv; `train_loss` is the mean since the row before."""

    iteration: int
    train_loss: float
    validation_loss: float
    learning_rate: float


@dataclass
class Training:
    """What a run leaves: the best adapter, the curve, and what the metrics count."""

    keys: list[str]
    trainable: int
    answers_cut: int
    base_validation_loss: float
    best: Evaluation | None = None
    weights: dict[str, mx.array] = field(default_factory=dict)
    curve: list[Evaluation] = field(default_factory=list)

    def summary(self) -> str:
        """The stage's closing line."""
        assert self.best is not None
        cut = f"; {self.answers_cut} answers cut at max_sequence_tokens" if self.answers_cut else ""
        return (
            f"{self.trainable:,} trainable parameters; validation loss "
            f"{self.base_validation_loss:.3f} -> {self.best.validation_loss:.3f} "
            f"at iteration {self.best.iteration}{cut}"
        )


def train(
    model: LoadedModel,
    train_pairs: Sequence[Pair],
    validation_pairs: Sequence[Pair],
    params: TrainParams,
    checkpoints: Path,
    group: mx.distributed.Group,
) -> Training:
    """Train LoRA adapters on `model` (changed in place), saving every so often to `checkpoints`.

    All processes of `group` come here with the same arguments, and return the same.

    Raises UserError when a setting fits neither model nor data, or when the loss diverges.
    """
    chat = open_chat(model.tokenizer)
    examples, cut = make_examples(train_pairs, chat, params.max_sequence_tokens)
    chosen = _choose(validation_pairs, params)
    validation, validation_cut = make_examples(chosen, chat, params.max_sequence_tokens)
    mx.random.seed(params.seed)
    engine = Engine(model.network, params, group)
    # Dropout must not be the same in each process.
    mx.random.seed(params.seed + group.rank())
    _prepare(engine, examples, validation)
    cuts = cut + validation_cut
    run = Training(engine.keys, engine.trainable, cuts, engine.validate(validation))
    batches = epochs(examples, params.batch_pairs, params.seed)
    _iterate(engine, batches, validation, run, checkpoints)
    return run


def _choose(pairs: Sequence[Pair], params: TrainParams) -> Sequence[Pair]:
    """The validation pairs that each evaluation looks at: the same ones, chosen by the seed."""
    if params.validation_pairs == 0 or params.validation_pairs >= len(pairs):
        return pairs
    order = np.random.default_rng(params.seed).permutation(len(pairs))
    return [pairs[i] for i in sorted(order[: params.validation_pairs])]


def _prepare(engine: Engine, examples: list[Example], validation: list[Example]) -> None:
    params = engine.params
    trial = next(epochs(examples, params.batch_pairs, params.seed))
    evaluations = 1 + math.ceil(params.iterations / params.evaluate_every)
    passes = params.iterations * params.batch_pairs + evaluations * len(validation)
    engine.use_trunk([*examples, *validation], trial, passes)


def _iterate(
    engine: Engine,
    batches: Iterator[Batch],
    validation: list[Example],
    run: Training,
    checkpoints: Path,
) -> None:
    params = engine.params
    losses: list[float] = []
    recent: deque[float] = deque(maxlen=RECENT)
    with tqdm(total=params.iterations, desc="train", unit="step", disable=engine.quiet) as bar:
        for iteration in range(1, params.iterations + 1):
            batch = next(batches)
            rate = learning_rate(params, iteration)
            loss = engine.step(batch, rate)
            recent.append(loss)
            _check(recent, run.base_validation_loss, iteration, batch, checkpoints)
            losses.append(loss)
            if iteration % params.evaluate_every == 0 or iteration == params.iterations:
                mean = float(np.mean(losses))
                row = Evaluation(iteration, mean, engine.validate(validation), rate)
                _keep(row, engine, run)
                losses.clear()
            if iteration % params.save_every == 0 and engine.group.rank() == 0:
                folder = checkpoints / f"{iteration:07d}"
                save_adapter(folder, engine.weights(), params.lora, engine.keys)
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update()


def _keep(row: Evaluation, engine: Engine, run: Training) -> None:
    run.curve.append(row)
    if run.best is None or row.validation_loss < run.best.validation_loss:
        run.best, run.weights = row, engine.weights()
    if engine.group.rank() > 0:
        return
    tqdm.write(
        f"  iteration {row.iteration}: train loss {row.train_loss:.3f}, "
        f"validation loss {row.validation_loss:.3f}, best {run.best.validation_loss:.3f}",
        file=sys.stderr,
    )


def _check(
    recent: deque[float], base_loss: float, iteration: int, batch: Batch, checkpoints: Path
) -> None:
    """Stop at a loss that is not a number, or one that has left the base model far behind."""
    diverged = len(recent) == RECENT and float(np.mean(recent)) > DIVERGED * base_loss
    if math.isfinite(recent[-1]) and not diverged:
        return
    pairs = ", ".join(example.id for example in batch.examples)
    raise UserError(
        f"training diverged at iteration {iteration}: loss {recent[-1]:.3f} on pairs {pairs}; "
        f"lower train.learning_rate or train.lora.scale (adapters saved before it: {checkpoints}/)"
    )

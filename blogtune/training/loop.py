"""The training loop: step, evaluate, keep the best, save what a stopped run goes on from."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from blogtune.common.errors import UserError
from blogtune.common.progress import progress, say
from blogtune.common.records import Pair
from blogtune.models.chat import open_chat
from blogtune.models.loading import LoadedModel
from blogtune.runtime.processes import from_first
from blogtune.training.checkpoints import (
    Checkpoints,
    State,
    fingerprint,
    open_checkpoints,
    others,
    unpack,
)
from blogtune.training.engine import Engine
from blogtune.training.examples import Batch, Example, epochs, make_examples, padding_share
from blogtune.training.params import TrainParams
from blogtune.training.plan import use_what_pays
from blogtune.training.schedule import learning_rate

# A recent training loss this many times the base model's validation loss is divergence.
DIVERGED = 1.5
RECENT = 10
# What a training computes stands in these folders.
PACKAGE, SOURCES = Path(__file__).parents[1], ("common", "cpu", "models", "runtime", "training")


@dataclass(frozen=True)
class Evaluation:
    """One row of plots/training.csv; `train_loss` is the mean since the row before."""

    iteration: int
    train_loss: float
    validation_loss: float
    learning_rate: float


@dataclass
class Training:
    """What a run knows and leaves: the curve, the best adapter, and what the metrics count.

    `losses` has one entry for each iteration done; `checkpoints` is None in all processes but the
    first.
    """

    keys: list[str]
    trainable: int
    answers_cut: int
    padding_share: float
    checkpoints: Checkpoints | None
    base_validation_loss: float = math.nan
    losses: list[float] = field(default_factory=list)
    curve: list[Evaluation] = field(default_factory=list)
    weights: dict[str, mx.array] = field(default_factory=dict)

    @property
    def best(self) -> Evaluation | None:
        """The evaluation whose adapter ships: the first of the lowest."""
        return min(self.curve, key=lambda row: row.validation_loss, default=None)

    def summary(self) -> str:
        """The stage's closing line."""
        assert self.best is not None
        cut = f"; {self.answers_cut} answers cut at max_sequence_tokens" if self.answers_cut else ""
        return (
            f"{self.trainable:,} trainable parameters; validation loss "
            f"{self.base_validation_loss:.3f} -> {self.best.validation_loss:.3f} "
            f"at iteration {self.best.iteration} of {len(self.losses)}{cut}"
        )


def train(
    model: LoadedModel,
    train_pairs: Sequence[Pair],
    validation_pairs: Sequence[Pair],
    params: TrainParams,
    checkpoints: Path,
    group: mx.distributed.Group,
) -> Training:
    """Train LoRA adapters on `model` (changed in place), going on from a checkpoint that matches.

    All processes of `group` come here with the same arguments, and return the same. The caller
    removes the result's checkpoints when it has written what it wants to keep.

    Raises UserError when a setting fits neither model nor data, or when the loss diverges, and
    KeyboardInterrupt, with the last iteration saved, when it is stopped.
    """
    chat = open_chat(model.tokenizer)
    examples, cut = make_examples(train_pairs, chat, params.max_sequence_tokens)
    chosen = _choose(validation_pairs, params)
    validation, validation_cut = make_examples(chosen, chat, params.max_sequence_tokens)
    mx.random.seed(params.seed)
    engine = Engine(model.network, params, group)
    # Refused before the model's files are read and hashed.
    padding = padding_share(examples, params.batch_pairs)
    store = _open(model.folder, engine, [*examples, *validation], checkpoints)
    run = Training(engine.keys, engine.trainable, cut + validation_cut, padding, store)
    try:
        saved = _saved(store, group)
        if saved and store:
            say(f"going on from iteration {saved.iteration}, saved in {store.folder}")
        done = saved.iteration if saved else 0
        # Tried with the first adapter, as in a run that was not stopped: the same way is taken.
        use_what_pays(engine, examples, validation, checkpoints, done)
        if engine.shared(training=True):
            run.padding_share = 0.0
        if saved:
            _go_on(run, engine, saved)
        else:
            run.base_validation_loss = _validation_loss(engine, validation, 0)
        _iterate(engine, examples, validation, run)
    except BaseException:
        if store:
            store.release()
        raise
    return run


def _choose(pairs: Sequence[Pair], params: TrainParams) -> Sequence[Pair]:
    """The validation pairs that each evaluation looks at: the same ones, chosen by the seed."""
    if params.validation_pairs == 0 or params.validation_pairs >= len(pairs):
        return pairs
    order = np.random.default_rng(params.seed).permutation(len(pairs))
    return [pairs[i] for i in sorted(order[: params.validation_pairs])]


def _open(
    model: Path, engine: Engine, examples: Sequence[Example], root: Path
) -> Checkpoints | None:
    """The first process's checkpoints; it also says which others lie there unused."""
    if engine.group.rank() > 0:
        return None
    parameters: dict[str, mx.array] = dict(tree_flatten(engine.network.parameters()))
    types = sorted({str(array.dtype) for array in parameters.values()})
    settings = f"{engine.params.model_dump_json()} {engine.group.size()} {types}"
    sources = sorted(file for folder in SOURCES for file in (PACKAGE / folder).glob("*.py"))
    marks = fingerprint(model, examples, settings, sources)
    for line in others(root, marks):
        say(line)
    return open_checkpoints(root, marks, engine.params.keep_checkpoints)


def _saved(store: Checkpoints | None, group: mx.distributed.Group) -> State | None:
    """The newest checkpoint, which the first process reads for all."""
    packed = from_first(store.latest() if store else b"", group)
    return unpack(packed) if packed else None


def _go_on(run: Training, engine: Engine, saved: State) -> None:
    engine.restore(saved.adapter, saved.optimizer)
    run.base_validation_loss = saved.progress["base_validation_loss"]
    run.losses = list(saved.progress["losses"])
    run.curve = [Evaluation(**row) for row in saved.progress["curve"]]
    run.weights = saved.best


def _iterate(
    engine: Engine, examples: list[Example], validation: list[Example], run: Training
) -> None:
    params = engine.params
    batches = _steps(examples, params, len(run.losses))
    state = _state(engine, run)
    shown = progress(
        desc="train", unit="steps", total=params.iterations, quiet=engine.group.rank() > 0
    )
    try:
        with shown as bar:
            bar.update(len(run.losses))
            while len(run.losses) < params.iterations and not _stopped_early(run, params):
                _iteration(engine, next(batches), validation, run)
                state = _state(engine, run)
                if state.iteration % params.save_every == 0:
                    _save(engine, run, state)
                best = f"{run.best.validation_loss:.3f}" if run.best else "none yet"
                bar.set_postfix_str(f"loss {run.losses[-1]:.3f}, best {best}", refresh=False)
                bar.update()
    except (KeyboardInterrupt, RuntimeError):
        # MLX raises the latter where another process has ended.
        if _save(engine, run, state):
            say(f"stopped behind iteration {state.iteration}, which is saved")
        raise


def _steps(examples: list[Example], params: TrainParams, done: int) -> Iterator[tuple[Batch, ...]]:
    """The batches of each step to come, `done` of them being behind."""
    batches = epochs(examples, params.batch_pairs, params.seed, done * params.accumulate_batches)
    while True:
        yield tuple(islice(batches, params.accumulate_batches))


def _iteration(
    engine: Engine, batches: Sequence[Batch], validation: list[Example], run: Training
) -> None:
    params, iteration = engine.params, len(run.losses) + 1
    rate = learning_rate(params, iteration)
    loss = engine.step(batches, iteration, rate)
    _check([*run.losses, loss][-RECENT:], run, batches)
    run.losses.append(loss)
    if iteration % params.evaluate_every == 0 or iteration == params.iterations:
        since = run.curve[-1].iteration if run.curve else 0
        mean = float(np.mean(run.losses[since:]))
        row = Evaluation(iteration, mean, _validation_loss(engine, validation, iteration), rate)
        run.curve.append(row)
        if run.best is row:
            run.weights = engine.weights()
        if run.checkpoints:
            say(_line(row))


def _line(row: Evaluation) -> str:
    return (
        f"  iteration {row.iteration}: train loss {row.train_loss:.3f}, "
        f"validation loss {row.validation_loss:.3f}"
    )


def _stopped_early(run: Training, params: TrainParams) -> bool:
    """Whether the last `patience` evaluations were no better than one before them."""
    if params.patience is None or run.best is None:
        return False
    return len(run.curve) - 1 - run.curve.index(run.best) >= params.patience


def _state(engine: Engine, run: Training) -> State:
    """What is known now. MLX's arrays never change, so nothing is copied but their names."""
    known: dict[str, Any] = {
        "base_validation_loss": run.base_validation_loss,
        "losses": list(run.losses),
        "curve": [asdict(row) for row in run.curve],
    }
    weights, optimizer = engine.weights(), engine.optimizer_state()
    return State(len(run.losses), known, weights, optimizer, dict(run.weights))


def _save(engine: Engine, run: Training, state: State) -> bool:
    """Whether this process is the one that saves, and there was something to save."""
    if not run.checkpoints or state.iteration == 0:
        return False
    run.checkpoints.save(state, engine.params.lora, engine.keys)
    return True


def _validation_loss(engine: Engine, validation: list[Example], iteration: int) -> float:
    """In nats a token. Raises UserError where it is no number."""
    loss = engine.validate(validation)
    if not math.isfinite(loss):
        lower = "lower train.learning_rate, or " if iteration else ""
        raise UserError(
            f"validation loss {loss} at iteration {iteration}; {lower}set runtime.dtype to a type "
            "in which nothing overflows: float32 or bfloat16"
        )
    return loss


def _check(recent: Sequence[float], run: Training, batches: Sequence[Batch]) -> None:
    """Stop at a loss that is not a number, or one that has left the base model far behind."""
    limit = DIVERGED * run.base_validation_loss
    diverged = len(recent) == RECENT and float(np.mean(recent)) > limit
    if math.isfinite(recent[-1]) and not diverged:
        return
    pairs = ", ".join(example.id for batch in batches for example in batch.examples)
    kept = ""
    if run.checkpoints and run.checkpoints.latest():
        kept = f" (adapters saved before it: {run.checkpoints.folder})"
    raise UserError(
        f"training diverged at iteration {len(run.losses) + 1}: loss {recent[-1]:.3f} on pairs "
        f"{pairs}; lower train.learning_rate or train.lora.scale{kept}"
    )

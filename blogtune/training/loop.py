"""The training loop: step, evaluate, keep the best, save what a stopped run goes on from."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import optimizers
from mlx.utils import tree_flatten, tree_unflatten

from blogtune.common.errors import UserError
from blogtune.common.progress import progress, say
from blogtune.common.records import Pair
from blogtune.models.chat import open_chat
from blogtune.models.head import open_head
from blogtune.models.loading import LoadedModel
from blogtune.runtime.collectives import broadcast
from blogtune.training.checkpoints import (
    Checkpoints,
    State,
    fingerprint,
    open_checkpoints,
    others,
    unpack,
)
from blogtune.training.examples import (
    Batch,
    Example,
    batches_by_length,
    epochs,
    make_examples,
    padding_share,
)
from blogtune.training.lora import apply_lora, not_adaptable, target_keys
from blogtune.training.params import TrainParams
from blogtune.training.plan import choose_step
from blogtune.training.schedule import learning_rate
from blogtune.training.setup import Setup
from blogtune.training.step import Step, evaluate, train_step, weights

# A recent training loss this many times the base model's validation loss is divergence.
DIVERGED = 1.5
RECENT = 10
# What a training computes stands in these folders.
PACKAGE, SOURCES = Path(__file__).parents[1], ("cpu", "models", "runtime", "training")


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
    evaluated: Callable[[Sequence[Evaluation]], None] | None = None,
) -> Training:
    """Train LoRA adapters on `model` (changed in place), going on from a checkpoint that matches.

    The first process gives `evaluated` the curve so far after each evaluation, and at a start from
    a checkpoint.

    All processes of `group` come here with the same arguments, and return the same. The caller
    removes the result's checkpoints when it has written what it wants to keep.

    Raises UserError when a setting fits neither model nor data, or when the loss diverges, and
    KeyboardInterrupt, with the last iteration saved, when it is stopped.
    """
    chat = open_chat(model.tokenizer)
    examples, cut = make_examples(train_pairs, chat, params.max_sequence_tokens, model.context)
    chosen = _choose(validation_pairs, params)
    validation, validation_cut = make_examples(
        chosen, chat, params.max_sequence_tokens, model.context
    )
    # Refused before the model's files are read and hashed.
    padding = padding_share(examples, params.batch_pairs)
    mx.random.seed(params.seed)
    keys = target_keys(model.network, params.lora)
    _say_what_is_left_out(model.network, params, group)
    trainable = apply_lora(model.network, params.lora)
    setup = Setup(model.network, open_head(model.network), params, group, examples, validation)
    store = _open(model.folder, setup, checkpoints)
    run = Training(keys, trainable, cut + validation_cut, padding, store)
    try:
        saved = _saved(store, group)
        if saved and store:
            say(f"going on from iteration {saved.iteration}, saved in {store.folder}")
        # Tried with the first adapter, as in a run that was not stopped: the same way is taken.
        candidate = choose_step(setup, checkpoints, saved.iteration if saved else 0)
        if not candidate.pads:
            run.padding_share = 0.0
        loop = _Loop(setup, candidate.step, _optimizer(params), run, evaluated)
        if saved:
            loop.restore(saved)
        else:
            run.base_validation_loss = loop.validation_loss(0)
        loop.run_to_the_end()
    except BaseException:
        if store:
            store.release()
        raise
    return run


class _Loop:
    """Steps, evaluations and checkpoints of one run, whose results go to `run`."""

    def __init__(
        self,
        setup: Setup,
        step: Step,
        optimizer: optimizers.Optimizer,
        run: Training,
        evaluated: Callable[[Sequence[Evaluation]], None] | None,
    ) -> None:
        self.setup = setup
        self.params = setup.params
        self.step = step
        self.optimizer = optimizer
        self.run = run
        self.evaluated = evaluated

    def restore(self, saved: State) -> None:
        """Go back to what was saved."""
        self.setup.network.load_weights(list(saved.adapter.items()), strict=False)
        self.optimizer.state = tree_unflatten(list(saved.optimizer.items()))
        self.run.base_validation_loss = saved.progress["base_validation_loss"]
        self.run.losses = list(saved.progress["losses"])
        self.run.curve = [Evaluation(**row) for row in saved.progress["curve"]]
        self.run.weights = saved.best
        self._show_curve()

    def run_to_the_end(self) -> None:
        params, run, quiet = self.params, self.run, self.setup.group.rank() > 0
        batches = _steps(self.setup.examples, params, len(run.losses))
        state = self._state()
        shown = progress(desc="train", unit="steps", total=params.iterations, quiet=quiet)
        try:
            with shown as bar:
                bar.update(len(run.losses))
                while len(run.losses) < params.iterations and not _stopped_early(run, params):
                    self._iteration(next(batches))
                    state = self._state()
                    if state.iteration % params.save_every == 0:
                        self._save(state)
                    best = f"{run.best.validation_loss:.3f}" if run.best else "none yet"
                    bar.set_postfix_str(f"loss {run.losses[-1]:.3f}, best {best}", refresh=False)
                    bar.update()
        except (KeyboardInterrupt, RuntimeError):
            # MLX raises the latter where another process has ended.
            if self._save(state):
                say(f"stopped after iteration {state.iteration}; saved")
            raise

    def _iteration(self, batches: Sequence[Batch]) -> None:
        setup, params, run = self.setup, self.params, self.run
        iteration = len(run.losses) + 1
        rate = learning_rate(params, iteration)
        self.optimizer.learning_rate = mx.array(rate)
        # What is random in a step follows from seed, iteration and process alone.
        seed = np.random.SeedSequence([params.seed, iteration, setup.group.rank()])
        mx.random.seed(int(seed.generate_state(1, np.uint64)[0]))
        loss = train_step(
            self.step, setup.network, self.optimizer, batches, params.clip_norm, setup.group
        )
        _check([*run.losses, loss][-RECENT:], run, batches)
        run.losses.append(loss)
        if iteration % params.evaluate_every == 0 or iteration == params.iterations:
            since = run.curve[-1].iteration if run.curve else 0
            mean = float(np.mean(run.losses[since:]))
            row = Evaluation(iteration, mean, self.validation_loss(iteration), rate)
            run.curve.append(row)
            if run.best is row:
                run.weights = weights(setup.network)
            if run.checkpoints:
                say(_line(row))
            self._show_curve()

    def _show_curve(self) -> None:
        if self.evaluated and self.setup.group.rank() == 0 and self.run.curve:
            self.evaluated(self.run.curve)

    def validation_loss(self, iteration: int) -> float:
        """In nats a token. Raises UserError where it is NaN or infinite."""
        setup = self.setup
        batches = [*batches_by_length(setup.validation, self.params.batch_pairs)]
        loss = evaluate(self.step, setup.network, batches, setup.group)
        if not math.isfinite(loss):
            lower = "lower train.learning_rate, or " if iteration else ""
            raise UserError(
                f"validation loss {loss} at iteration {iteration}",
                remedy=f"{lower}set runtime.dtype to a type in which nothing overflows: float32 "
                "or bfloat16",
            )
        return loss

    def _state(self) -> State:
        """What is known now. MLX's arrays never change, so nothing is copied but their names."""
        run = self.run
        known: dict[str, Any] = {
            "base_validation_loss": run.base_validation_loss,
            "losses": list(run.losses),
            "curve": [asdict(row) for row in run.curve],
        }
        optimizer = dict(tree_flatten(self.optimizer.state))
        adapter = weights(self.setup.network)
        return State(len(run.losses), known, adapter, optimizer, dict(run.weights))

    def _save(self, state: State) -> bool:
        """Whether this process is the one that saves, and there was something to save."""
        if not self.run.checkpoints or state.iteration == 0:
            return False
        self.run.checkpoints.save(state, self.params.lora, self.run.keys)
        return True


def _say_what_is_left_out(network: Any, params: TrainParams, group: mx.distributed.Group) -> None:
    left = not_adaptable(network, params.lora)
    if left and group.rank() == 0:
        named = ", ".join(f"{path} ({kind})" for path, kind in sorted(left.items()))
        say(f"mlx-lm has no {params.lora.kind} for these layers, they stay as they are: {named}")


def _choose(pairs: Sequence[Pair], params: TrainParams) -> Sequence[Pair]:
    """The validation pairs that each evaluation looks at: the same ones, chosen by the seed."""
    if params.validation_pairs == 0 or params.validation_pairs >= len(pairs):
        return pairs
    order = np.random.default_rng(params.seed).permutation(len(pairs))
    return [pairs[i] for i in sorted(order[: params.validation_pairs])]


def _open(model: Path, setup: Setup, root: Path) -> Checkpoints | None:
    """The first process's checkpoints; it also says which others lie there unused."""
    if setup.group.rank() > 0:
        return None
    parameters: dict[str, mx.array] = dict(tree_flatten(setup.network.parameters()))
    types = sorted({str(array.dtype) for array in parameters.values()})
    settings = f"{setup.params.model_dump_json()} {setup.group.size()} {types}"
    sources = sorted(file for folder in SOURCES for file in (PACKAGE / folder).rglob("*.py"))
    marks = fingerprint(model, setup.everything, settings, sources)
    for line in others(root, marks):
        say(line)
    return open_checkpoints(root, marks, setup.params.keep_checkpoints)


def _saved(store: Checkpoints | None, group: mx.distributed.Group) -> State | None:
    """The newest checkpoint, which the first process reads for all."""
    packed = broadcast(store.latest() if store else b"", group)
    return unpack(packed) if packed else None


def _optimizer(params: TrainParams) -> optimizers.Optimizer:
    if params.optimizer == "adam":
        return optimizers.Adam(learning_rate=params.learning_rate)
    return optimizers.AdamW(learning_rate=params.learning_rate, weight_decay=params.weight_decay)


def _steps(examples: list[Example], params: TrainParams, done: int) -> Iterator[tuple[Batch, ...]]:
    """The batches of each step to come, `done` of them being behind."""
    batches = epochs(examples, params.batch_pairs, params.seed, done * params.accumulate_batches)
    while True:
        yield tuple(islice(batches, params.accumulate_batches))


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
        f"{pairs}",
        remedy=f"lower train.learning_rate or train.lora.scale{kept}",
    )

import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.utils import load

from blogtune.common.errors import UserError
from blogtune.common.records import Pair
from blogtune.models.chat import open_chat
from blogtune.models.loading import load_model
from blogtune.training import loop
from blogtune.training.examples import Batch, make_batch, make_examples
from blogtune.training.loop import Evaluation, Training, train
from blogtune.training.results import write_curve, write_results
from blogtune.training.schedule import learning_rate
from tests import tiny
from tests.training.oracle import simple_loss

VALIDATION = [
    tiny.pair("v0", "What is the rank of an adapter?", "Eight."),
    tiny.pair("v1", "Who stops?", "Another model."),
    tiny.pair("v2", "Where is the scale?", "In the parameters."),
    tiny.pair("v3", "When is the seed?", "In the parameters."),
]
Run = Callable[..., Training]


@pytest.fixture
def run(tiny_folder: Path, tmp_path: Path) -> Run:
    """Trains the tiny model and writes to `folder`; what is not named here is a parameter."""

    def run(
        folder: str = "run",
        base: Path = tiny_folder,
        pairs: Sequence[Pair] = tiny.facts(),
        validation: Sequence[Pair] = VALIDATION,
        **changes: Any,
    ) -> Training:
        params = tiny.train_params(**changes)
        where = tmp_path / folder
        model = load_model(base, mx.float32)
        result = train(model, pairs, validation, params, where / "checkpoints", tiny.ALONE)
        write_results(result, params, where / "adapter", where, where)
        assert result.checkpoints
        result.checkpoints.remove()
        return result

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def batch_of(pairs: Sequence[Pair], folder: Path) -> Batch:
    chat = open_chat(load_model(folder, mx.float32).tokenizer)
    return make_batch(make_examples(pairs, chat, 128)[0])


def test_the_curve_can_be_drawn_while_the_training_runs(tiny_folder: Path, tmp_path: Path) -> None:
    seen: list[str] = []

    def evaluated(curve: Sequence[Evaluation]) -> None:
        write_curve(curve, tmp_path)
        seen.append((tmp_path / "training.csv").read_text())

    params = tiny.train_params(iterations=3, evaluate_every=1)
    model = load_model(tiny_folder, mx.float32)
    facts, folder = tiny.facts(), tmp_path / "checkpoints"
    result = train(model, facts, VALIDATION, params, folder, tiny.ALONE, evaluated)
    assert [len(text.splitlines()) for text in seen] == [2, 3, 4]
    write_results(result, params, tmp_path / "adapter", tmp_path, tmp_path)
    assert (tmp_path / "training.csv").read_text() == seen[-1]
    assert result.checkpoints
    result.checkpoints.remove()


def test_one_seed_gives_the_same_bytes_and_another_seed_others(run: Run, tmp_path: Path) -> None:
    for folder, seed in (("one", 7), ("two", 7), ("other", 8)):
        run(folder, seed=seed)
    one, two, other = (contents(tmp_path / folder) for folder in ("one", "two", "other"))
    assert one == two
    name = "adapter/adapters.safetensors"
    files = {name, "adapter/adapter_config.json", "training.csv", "training.json"}
    assert one.keys() == other.keys() == files
    assert one[name] != other[name]


def test_the_loss_goes_down_on_what_can_be_learned(run: Run) -> None:
    result = run(iterations=24, evaluate_every=12, dropout=0.0, layers=4, rank=8)
    assert result.best is not None
    assert result.best.validation_loss < 0.8 * result.base_validation_loss
    first, last = result.curve
    assert last.train_loss < first.train_loss < result.base_validation_loss


def test_the_best_checkpoint_ships_and_is_the_lowest_of_the_curve(
    run: Run, taught_folder: Path, tmp_path: Path
) -> None:
    # Who knows the facts by heart and learns other ones forgets them more and more.
    parts = {"base": taught_folder, "pairs": VALIDATION, "validation": tiny.facts()}
    result = run(**parts, iterations=9, evaluate_every=2)
    assert result.best is not None
    assert result.best == min(result.curve, key=lambda row: row.validation_loss)
    assert result.best != result.curve[-1]
    network = load(str(taught_folder), adapter_path=str(tmp_path / "run" / "adapter"))[0]
    network.set_dtype(mx.float32)
    batch = batch_of(tiny.facts(), taught_folder)
    loss = simple_loss(network, batch, len(batch.targets))
    assert float(loss) == pytest.approx(result.best.validation_loss, rel=1e-4)


def training(*losses: float) -> Training:
    """What is known behind evaluations with these validation losses."""
    made = Training([], 0, 0, 0.0, None)
    made.curve = [Evaluation(number, 0.0, loss, 0.0) for number, loss in enumerate(losses, 1)]
    return made


def test_of_equal_evaluations_the_first_is_the_best() -> None:
    best = training(0.5, 0.4, 0.4).best
    assert best is not None
    assert best.iteration == 2


@pytest.mark.parametrize(
    ("losses", "patience", "stops"),
    [
        ((), 1, False),
        ((0.5,), 1, False),
        ((0.5, 0.4), 1, False),
        ((0.5, 0.6), 1, True),
        ((0.5, 0.5), 1, True),
        ((0.5, 0.6), 2, False),
        ((0.5, 0.6, 0.7), 2, True),
        ((0.5, 0.6, 0.4), 2, False),
        ((0.5, 0.6, 0.7), None, False),
    ],
)
def test_patience_counts_evaluations_behind_the_best(
    losses: tuple[float, ...], patience: int | None, *, stops: bool
) -> None:
    assert loop._stopped_early(training(*losses), tiny.train_params(patience=patience)) is stops


def test_a_run_out_of_patience_ends(run: Run, taught_folder: Path) -> None:
    parts = {"base": taught_folder, "pairs": VALIDATION, "validation": tiny.facts()}
    result = run(**parts, iterations=12, evaluate_every=1, patience=2)
    assert result.best is not None
    assert len(result.losses) == result.curve.index(result.best) + 3 < 12


def test_the_first_loss_is_the_base_models(run: Run, tiny_folder: Path) -> None:
    result = run()
    network = load_model(tiny_folder, mx.float32).network
    batch = batch_of(VALIDATION, tiny_folder)
    loss = simple_loss(network, batch, len(batch.targets))
    assert result.base_validation_loss == pytest.approx(float(loss), rel=1e-5)


def test_a_shipped_adapter_gives_stock_mlx_lm_the_same_logits(
    run: Run, tiny_folder: Path, tmp_path: Path
) -> None:
    result = run()
    adapter = tmp_path / "run" / "adapter"
    assert {k: v.shape for k, v in mx.load(str(adapter / "adapters.safetensors")).items()} == {
        name: array.shape for name, array in result.weights.items()
    }
    ours = load_model(tiny_folder, mx.float32, adapter).network
    stock = load(str(tiny_folder), adapter_path=str(adapter))[0]
    stock.set_dtype(mx.float32)
    trained = dict(tree_flatten(stock.parameters()))
    for name, array in result.weights.items():
        assert mx.array_equal(trained[name], array), name
    tokens = mx.array([[1, 5, 6, 7]])
    assert mx.array_equal(stock(tokens), ours(tokens))


def test_the_curve_and_the_metrics_say_what_happened(run: Run, tmp_path: Path) -> None:
    result = run(iterations=10, evaluate_every=4, save_every=3)
    lines = (tmp_path / "run" / "training.csv").read_text().splitlines()
    assert lines[0] == "iteration,train_loss,validation_loss,learning_rate"
    assert [line.split(",")[0] for line in lines[1:]] == ["4", "8", "10"]
    assert [float(line.split(",")[2]) for line in lines[1:]] == [
        pytest.approx(row.validation_loss, rel=1e-5) for row in result.curve
    ]
    parts = result.losses[:4], result.losses[4:8], result.losses[8:]
    means = [pytest.approx(float(np.mean(part)), rel=1e-5) for part in parts]
    assert [float(line.split(",")[1]) for line in lines[1:]] == means
    narrow = tiny.WIDTH * tiny.KEY_HEADS // tiny.HEADS
    count = 2 * 4 * (2 * tiny.WIDTH + 2 * (tiny.WIDTH + narrow))
    assert f'"trainable_parameters": {count}' in (tmp_path / "run" / "training.json").read_text()
    assert result.summary().startswith(f"{count:,} trainable parameters; validation loss ")


def test_metrics_tell_the_best_evaluation_and_the_last(
    run: Run, taught_folder: Path, tmp_path: Path
) -> None:
    parts = {"base": taught_folder, "pairs": VALIDATION, "validation": tiny.facts()}
    result = run(**parts, iterations=9, evaluate_every=2)
    found = json.loads((tmp_path / "run/training.json").read_text())
    best, last = result.best, result.curve[-1]
    assert best is not None
    assert best != last
    expected = {
        "base_validation_loss": result.base_validation_loss,
        "best_validation_loss": best.validation_loss,
        "last_validation_loss": last.validation_loss,
        "last_train_loss": last.train_loss,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert found["best_iteration"] == best.iteration
    assert f"-> {best.validation_loss:.3f} at iteration {best.iteration} of 9" in result.summary()


def test_steps_get_the_schedules_rates(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = list[float]()
    step = loop.train_step

    def noted(way: Any, network: Any, optimizer: Any, *others: Any) -> float:
        rates.append(float(optimizer.learning_rate))
        return step(way, network, optimizer, *others)

    monkeypatch.setattr(loop, "train_step", noted)
    result = run(iterations=10, evaluate_every=4)
    params = tiny.train_params(iterations=10, evaluate_every=4)
    expected = [learning_rate(params, number) for number in range(1, 11)]
    assert rates == pytest.approx(expected, rel=1e-6)
    assert [row.learning_rate for row in result.curve] == [expected[3], expected[7], expected[9]]


def test_validation_pairs_are_chosen_by_the_seed_and_keep_their_order() -> None:
    pairs = [tiny.pair(f"{number}", "Q?", "A.") for number in range(20)]
    settings = (tiny.train_params(seed=seed, validation_pairs=5) for seed in (7, 8))
    one, other = ([int(pair.id) for pair in loop._choose(pairs, each)] for each in settings)
    assert one != other
    for chosen in (one, other):
        assert chosen == sorted(set(chosen))
        assert len(chosen) == 5


def test_cut_answers_of_both_parts_are_counted(run: Run, tmp_path: Path) -> None:
    # The longest fact has 59 tokens, the other validation pairs fewer.
    long = tiny.pair("long", "Who stops?", "Another model. " * 30)
    assert run(max_sequence_tokens=58, validation=[*VALIDATION, long]).answers_cut == 2
    result = run(max_sequence_tokens=58)
    assert result.answers_cut == 1
    assert '"answers_cut": 1' in (tmp_path / "run" / "training.json").read_text()
    assert result.summary().endswith("; 1 answers cut at max_sequence_tokens")


def test_an_evaluation_looks_at_as_many_pairs_as_asked_for(run: Run) -> None:
    def loss(count: int) -> float:
        return run(validation_pairs=count, iterations=3).base_validation_loss

    every = loss(0)
    assert loss(4) == loss(9) == every
    assert loss(2) == loss(2) != every


@pytest.mark.parametrize(
    ("rate", "when", "saved"),
    [
        pytest.param(1.0, r"iteration 10: loss \d+\.\d{3}", True, id="far from the base model"),
        # Before the first checkpoint, of which nothing is said then.
        pytest.param(1e30, r"iteration [234]: loss (nan|inf)", False, id="no number"),
    ],
)
def test_a_diverging_loss_stops_the_run_and_names_step_and_pairs(
    run: Run, taught_folder: Path, tmp_path: Path, rate: float, when: str, saved: bool
) -> None:
    with pytest.raises(UserError) as caught:
        run(base=taught_folder, validation=tiny.facts(), learning_rate=rate, warmup_iterations=0)
    kept = list((tmp_path / "run" / "checkpoints").iterdir())
    assert len(kept) == saved
    where = rf" \(adapters saved before it: {kept[0]}\)" if saved else ""
    assert caught.match(
        rf"^training diverged at {when} on pairs f\d, f\d, f\d; lower train\.learning_rate or "
        rf"train\.lora\.scale{where}$"
    )
    assert not (tmp_path / "run" / "adapter").exists()


def test_a_late_divergence_is_found(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([*[0.1] * 11, 1e9])
    monkeypatch.setattr(loop, "train_step", lambda *_: next(losses))
    with pytest.raises(UserError, match="at iteration 12:"):
        run(iterations=30)


@pytest.mark.parametrize(("factor", "stops"), [(1.4, False), (1.6, True)])
def test_divergence_begins_at_one_and_a_half_times_the_base(
    run: Run, monkeypatch: pytest.MonkeyPatch, factor: float, *, stops: bool
) -> None:
    base = run("base", iterations=3).base_validation_loss
    monkeypatch.setattr(loop, "train_step", lambda *_: factor * base)
    if not stops:
        assert len(run(iterations=12).losses) == 12
        return
    with pytest.raises(UserError, match="at iteration 10:"):
        run(iterations=12)


@pytest.mark.parametrize(
    ("before", "message"),
    [
        pytest.param(0, "nan at iteration 0; set runtime.dtype to a type in which", id="base"),
        pytest.param(1, "nan at iteration 4; lower train.learning_rate, or set", id="later"),
    ],
)
def test_a_validation_loss_that_is_no_number_stops_the_run(
    run: Run, monkeypatch: pytest.MonkeyPatch, before: int, message: str
) -> None:
    losses = iter([*[1.0] * before, math.nan])
    monkeypatch.setattr(loop, "evaluate", lambda *_: next(losses))
    with pytest.raises(UserError, match=re.escape(f"validation loss {message}")):
        run()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"batch_pairs": 7}, "train.batch_pairs: 7, but there are 6", id="batch"),
        pytest.param({"layers": 5}, "train.lora.layers: 5, but the model has 4", id="layers"),
        pytest.param({"max_sequence_tokens": 20}, "pair f0: its question alone", id="question"),
    ],
)
def test_a_setting_that_fits_neither_model_nor_data_is_refused(
    run: Run, changes: dict[str, int], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run(**changes)

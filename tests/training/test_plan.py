"""What is decided, refused and said before the first step."""

import math
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import psutil
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models.cache import KVCache
from mlx_lm.models.llama import LlamaModel, Model

from blogtune.common.errors import UserError
from blogtune.models.head import open_head
from blogtune.models.prefix import repeated
from blogtune.runtime.device import Device
from blogtune.training import forecast, storage
from blogtune.training.activation_cache import cache_bytes
from blogtune.training.examples import Example, make_batch
from blogtune.training.fast.packing import PackedBatch, pack
from blogtune.training.fast.step import FastStep
from blogtune.training.forecast import Cost, refuse_too_large
from blogtune.training.lora import apply_lora
from blogtune.training.plan import Candidate, choose_step
from blogtune.training.setup import Setup
from blogtune.training.step import ReferenceStep, evaluate
from blogtune.training.storage import choose_storage
from blogtune.training.trial import max_relative_error
from tests import tiny
from tests.training.architectures import adapted, build, computed
from tests.training.oracle import simple_loss

EXAMPLES = tiny.EXAMPLES
LONG = [Example(e.id, [*range(1, 11), *e.prompt], e.answer) for e in EXAMPLES]
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets how much memory and disk there seems to be free."""

    def free(memory: float, disk: float = 1e12) -> None:
        real = psutil.virtual_memory()
        monkeypatch.setattr(psutil, "virtual_memory", lambda: real._replace(available=memory))
        monkeypatch.setattr(mx, "get_cache_memory", lambda: 0)
        monkeypatch.setattr(storage.shutil, "disk_usage", lambda _: Usage(0, 0, disk))

    return free


def setup(
    network: Any | None = None,
    examples: list[Example] = EXAMPLES,
    validation: list[Example] | None = None,
    **changes: Any,
) -> Setup:
    network = network or tiny.network()
    settings = {"dropout": 0.0, "iterations": 50, "batch_pairs": 2, **changes}
    return adapted(network, **settings).setup(examples, validation)


def chosen(folder: Path, done: int = 0, **changes: Any) -> Candidate:
    return choose_step(setup(**changes), folder, done)


def packs(candidate: Candidate) -> bool:
    return not candidate.pads


@tiny.A_CPUS_WAY
def test_on_a_cpu_batches_are_packed_and_with_dropout_padded(tmp_path: Path) -> None:
    for dropout, expected in ((0.0, True), (0.5, False)):
        candidate = chosen(tmp_path, dropout=dropout)
        assert isinstance(candidate.step, FastStep)
        assert packs(candidate) is expected


def test_on_a_gpu_the_reference_is_taken_and_no_function_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CPU's functions stay away: each would fail here."""
    gpu = Device("Apple GPU", None, 1, 32, is_cpu=False)
    for module in ("blogtune.training.plan", "blogtune.runtime.device"):
        monkeypatch.setattr(f"{module}.device", lambda: gpu)

    def forbidden(*_: Any, **__: Any) -> mx.array:
        raise AssertionError

    for name in ("attention", "swiglu", "gelu", "cross_entropy", "dropout", "lora"):
        monkeypatch.setattr(f"blogtune.cpu.patches.cpu_{name}", forbidden)
    before = mx.fast.scaled_dot_product_attention
    of = setup()
    candidate = choose_step(of, tmp_path, 0)
    assert type(candidate.step) is ReferenceStep
    assert candidate.cache is not None
    computed(candidate.step, make_batch(EXAMPLES))
    evaluate(candidate.step, of.network, [make_batch(EXAMPLES)], tiny.ALONE)
    assert mx.fast.scaled_dot_product_attention is before


def test_activations_are_cached_where_they_are_asked_for_more_often_than_computed(
    tmp_path: Path,
) -> None:
    assert chosen(tmp_path).cache
    assert not chosen(tmp_path, iterations=1, warmup_iterations=0).cache
    assert not chosen(tmp_path, layers=tiny.BLOCKS).cache
    assert not chosen(tmp_path, activation_cache="off").cache
    # Where a run is taken up again, it goes the way that it went.
    assert chosen(tmp_path, done=49).cache


def test_they_lie_where_there_is_room(tmp_path: Path, free: Any) -> None:
    def kind(**changes: Any) -> str | None:
        cache = chosen(tmp_path, **changes).cache
        return type(cache.all).__name__ if cache else None

    needed = cache_bytes(tiny.network(), 2, EXAMPLES)
    free(memory=1e8)
    assert kind() == "ndarray"
    assert kind(activation_cache="disk") == "memmap"
    many = [Example(f"m{row}", list(range(3, 200)), [2]) for row in range(2000)]
    large = setup(examples=many, iterations=10**6)
    assert cache_bytes(large.network, 2, many) > 9e7 > needed
    free(memory=2e8)
    assert choose_storage(large, tmp_path) == "disk"
    free(memory=2e8, disk=1e7)
    assert choose_storage(large, tmp_path) == "off"


@pytest.mark.parametrize(
    ("place", "said"),
    [
        pytest.param(
            "memory", "memory takes 5.89 kB, of 5 kB that are free; set it to disk or off"
        ),
        pytest.param("disk", "disk takes 5.89 kB, of 4 kB that are free; set it to off"),
    ],
)
def test_a_cache_that_does_not_fit_is_refused(
    tmp_path: Path, free: Any, place: str, said: str
) -> None:
    of = setup(activation_cache=place)
    assert cache_bytes(of.network, 2, EXAMPLES) == 23 * tiny.WIDTH * 4 == 5_888
    free(memory=5_000, disk=4_000)
    with pytest.raises(UserError) as caught:
        choose_storage(of, tmp_path)
    assert str(caught.value) == f"train.activation_cache: {said}"


@tiny.A_CPUS_WAY
@pytest.mark.parametrize("recompute", [False, True])
def test_a_batch_that_does_not_fit_is_refused_with_what_to_lower(
    tmp_path: Path, free: Any, *, recompute: bool
) -> None:
    of = setup(activation_cache="off", layers=4, gradient_checkpointing=recompute)
    free(memory=100_000)
    with pytest.raises(UserError) as caught:
        choose_step(of, tmp_path, 0)
    other = "" if recompute else r", or set train\.gradient_checkpointing: true"
    assert caught.match(
        r"^train\.batch_pairs: 2 takes about (1\.)?\d+ [kM]B of memory a step, of 100 kB that are "
        r"free; lower it \(and raise train\.accumulate_batches\), or lower "
        rf"train\.max_sequence_tokens{other}$"
    )


def test_passes_are_those_of_steps_and_evaluations() -> None:
    params = tiny.train_params(iterations=10, evaluate_every=4, accumulate_batches=2)
    # Evaluated before the first step and behind steps 4, 8 and 10.
    assert storage.passes(params, 5) == 10 * 2 * params.batch_pairs + 4 * 5


def test_looked_at_as_often_as_computed_it_does_not_pay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for passes, expected in ((len(EXAMPLES), "off"), (len(EXAMPLES) + 1, "memory")):
        monkeypatch.setattr(storage, "passes", lambda *_, passes=passes: passes)
        assert choose_storage(setup(), tmp_path) == expected


def test_evaluations_count_among_the_passes(tmp_path: Path) -> None:
    validation = [Example(f"v{each.id}", each.prompt, each.answer) for each in EXAMPLES]
    # Two of the step and twice three of evaluations are more than the six to compute.
    assert chosen(tmp_path, validation=validation, iterations=1, warmup_iterations=0).cache


def test_a_fifth_of_the_disk_stays_free(tmp_path: Path, free: Any) -> None:
    of = setup()
    free(memory=0, disk=5_888 / 0.9)
    assert choose_storage(of, tmp_path) == "off"


def test_every_process_needs_the_memory_of_all_activations(tmp_path: Path, free: Any) -> None:
    of = replace(setup(activation_cache="memory"), group=tiny.Member(0, of=2))
    free(memory=20_000)
    with pytest.raises(UserError, match=r"memory takes 11\.8 kB"):
        choose_storage(of, tmp_path)


def test_the_weights_below_are_let_go(tmp_path: Path) -> None:
    of = setup()
    choose_step(of, tmp_path, 0)
    layers = of.network.layers
    sizes = [[array.size for _, array in tree_flatten(each.parameters())] for each in layers]
    assert not any(sizes[0])
    assert all(sizes[-1])


@pytest.mark.parametrize("wrong", ["loss_and_gradients", "validation_loss"])
def test_a_way_that_differs_is_not_taken_and_it_says_so(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    wrong: str,
) -> None:
    right = getattr(FastStep, wrong)

    def off(step: FastStep, batch: Any) -> Any:
        found = right(step, batch)
        return 1.001 * found if wrong == "validation_loss" else (1.001 * found[0], found[1])

    monkeypatch.setattr(FastStep, wrong, off)
    candidate = chosen(tmp_path)
    assert type(candidate.step) is ReferenceStep
    assert candidate.cache
    said = capsys.readouterr().err.splitlines()
    size = "1.0e-02" if wrong == "validation_loss" else "1.0e-03"
    differs = f"with cached activations: off, it differs by {size} on a trial batch"
    assert said[:2] == [f"packed batches {differs}", f"the CPU's step {differs}"]


def test_a_prefix_that_cannot_be_shared_is_found_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As an architecture would that takes its positions from elsewhere.
    def at_the_start(cache: KVCache, rows: int) -> KVCache:
        several = repeated(cache, rows)
        several.offset = 0
        return several

    monkeypatch.setattr("blogtune.training.activation_cache.repeated", at_the_start)
    assert chosen(tmp_path, examples=LONG, iterations=100).cache is None
    assert "with cached activations: off, it differs by" in capsys.readouterr().err


@tiny.A_CPUS_WAY
def test_positions_that_depend_on_a_rows_length_are_found_out(tmp_path: Path) -> None:
    """With frequencies for texts of up to 16 tokens and others for longer ones."""
    scaling = {"type": "dynamic", "factor": 4.0}
    for count, expected in ((1, True), (3, False)):
        network = tiny.network(rope_scaling=scaling, max_position_embeddings=16)
        assert packs(chosen(tmp_path, network=network, batch_pairs=count)) is expected


@tiny.A_CPUS_WAY
def test_one_block_that_looks_at_a_rows_length_is_found_out(tmp_path: Path) -> None:
    network = tiny.network()
    scaling = {"type": "dynamic", "factor": 4.0}
    odd = tiny.network(rope_scaling=scaling, max_position_embeddings=16)
    network.layers[1].self_attn.rope = odd.layers[1].self_attn.rope
    assert not packs(chosen(tmp_path, network=network, layers=3, batch_pairs=3))


@tiny.A_CPUS_WAY
def test_a_row_beyond_longropes_change_is_not_packed(tmp_path: Path) -> None:
    tokens = pack(make_batch(EXAMPLES[:1] + EXAMPLES[2:]), 2).inputs.size
    for length, expected in ((tokens, True), (tokens - 1, False)):
        network = tiny.network()
        network.layers[0].self_attn.rope.original_max_position_embeddings = length
        assert packs(chosen(tmp_path, network=network)) is expected


@tiny.A_CPUS_WAY
def test_what_a_packed_step_reads_is_one_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate = chosen(tmp_path)
    seen, loss = list[Any](), ReferenceStep.loss

    def noted(step: ReferenceStep, batch: Any) -> mx.array:
        seen.append(batch)
        return loss(step, batch)

    monkeypatch.setattr(ReferenceStep, "loss", noted)
    computed(candidate.step, make_batch(EXAMPLES[:2]))
    candidate.step.validation_loss(make_batch(EXAMPLES[:2]))
    assert [type(batch) for batch in seen] == [PackedBatch, PackedBatch]


def test_gradients_of_other_names_are_infinitely_apart() -> None:
    one = mx.ones(1)
    assert max_relative_error((one, {"a": one}), (one, {"a": one, "b": one})) == math.inf


def test_a_nan_is_no_small_error() -> None:
    one, nan = mx.ones(1), mx.array([math.nan])
    assert not max_relative_error((one, {"a": nan}), (one, {"a": one})) <= 1e-4
    assert not max_relative_error((nan, {"a": one}), (one, {"a": one})) <= 1e-4


def test_it_says_what_is_to_come(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen(tmp_path, done=20)
    said = capsys.readouterr().err
    assert said.startswith("30 steps of about 0.")
    assert "the blocks below once, in 0 s (5.89 kB in memory); in all about " in said
    chosen(tmp_path, activation_cache="off")
    assert "the blocks below" not in capsys.readouterr().err


def test_the_forecast_is_the_trial_s_speed_times_what_is_left() -> None:
    of = setup(iterations=11)
    tokens = sum(example.tokens - 1 for example in EXAMPLES)
    trial = Cost(caching=30 / tokens, step=3.0 / tokens, bytes=1e6)
    # Batches of two where the three examples have so many tokens: two seconds a step.
    told = forecast.forecast(of, trial, 1, 5_888, "disk")
    assert told.startswith("10 steps of about 2 s; the blocks below once, in 30 s (5.89 kB on disk")
    assert "; in all about 50 s, evaluations not counted, and 26 MB a step" in told


@pytest.mark.parametrize(("free_bytes", "fits"), [(1_000_000, True), (999_999, False)])
def test_a_step_must_fit_beside_cached_activations(
    free: Any, free_bytes: int, *, fits: bool
) -> None:
    of = setup(batch_pairs=3)
    needed = max(example.tokens - 1 for example in EXAMPLES) * len(EXAMPLES)
    trial = Cost(0.0, 0.0, bytes=900_000 / needed)
    free(memory=free_bytes)
    if fits:
        refuse_too_large(of, trial, 100_000)
    else:
        beside = "of 900 kB that are free beside the cached activations; lower it"
        with pytest.raises(UserError, match=beside):
            refuse_too_large(of, trial, 100_000)


class Looping(LlamaModel):
    """Goes through its blocks twice, so that the last one's output is looked at again."""

    def __call__(self, inputs: mx.array, *_: Any, **__: Any) -> mx.array:
        h = self.embed_tokens(inputs)
        for layer in self.layers * 2:
            h = layer(h, "causal")
        return self.norm(h)


class Unrolled(LlamaModel):
    """Calls what its blocks consist of, and no block."""

    def __call__(self, inputs: mx.array, *_: Any, **__: Any) -> mx.array:
        h = self.embed_tokens(inputs)
        for layer in self.layers:
            h = h + layer.self_attn(layer.input_layernorm(h), "causal")
            h = h + layer.mlp(layer.post_attention_layernorm(h))
        return self.norm(h)


class Skipping(LlamaModel):
    """Adds what left the first block to the last one's output, as no plain stack does."""

    def __call__(self, inputs: mx.array, *_: Any, **__: Any) -> mx.array:
        first = h = self.layers[0](self.embed_tokens(inputs), "causal")
        for layer in self.layers[1:]:
            h = layer(h, "causal")
        return self.norm(h + first)


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("kind", [Skipping, Looping, Unrolled])
@pytest.mark.parametrize("cache", ["auto", "off"])
def test_a_network_that_is_no_plain_stack_goes_through_all_its_blocks(
    cache: str,
    kind: type[LlamaModel],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    *,
    recompute: bool,
) -> None:
    network: Model = tiny.network()
    network.model = kind(network.args)
    changes = {"activation_cache": cache, "gradient_checkpointing": recompute}
    of = setup(network, EXAMPLES, EXAMPLES, iterations=100, **changes)
    candidate = choose_step(of, tmp_path, 0)
    assert candidate.cache is None
    said = capsys.readouterr().err
    if cache == "auto" and kind is not Unrolled:
        assert "with cached activations: off, it differs by" in said
    batch = make_batch(EXAMPLES)
    simple = float(simple_loss(network, batch))
    assert float(computed(candidate.step, batch)["loss"]) == pytest.approx(simple, rel=1e-5)
    assert float(candidate.step.validation_loss(batch)) == pytest.approx(simple, rel=1e-5)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "gemma3_text", "helium"])
def test_every_architecture_gets_a_way_that_is_right(name: str, tmp_path: Path) -> None:
    network = build(name)
    params = tiny.train_params(dropout=0.0, iterations=50, batch_pairs=2)
    apply_lora(network, params.lora)
    of = Setup(network, open_head(network), params, tiny.ALONE, EXAMPLES, [])
    candidate = choose_step(of, tmp_path, 0)
    assert candidate.cache
    batch = make_batch(EXAMPLES)
    simple = float(simple_loss(build(name), batch))
    assert float(computed(candidate.step, batch)["loss"]) == pytest.approx(simple, rel=1e-5)

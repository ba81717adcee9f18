from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.models.cache import KVCache
from mlx_lm.models.llama import LlamaModel, Model

from blogtune.models.prefix import repeated
from blogtune.runtime.device import on_cpu
from blogtune.training.blocks import StandIn
from blogtune.training.engine import Engine
from blogtune.training.examples import Batch, Example, make_batch
from blogtune.training.plan import use_what_pays
from blogtune.training.trunk import Storage, Trunk, shared_beginning, trunk_bytes
from tests import tiny
from tests.training import architectures
from tests.training.architectures import NAMES, build
from tests.training.oracle import simple_loss

EXAMPLES = tiny.EXAMPLES
# "a" is padded by nothing in one, by seven tokens in the other.
BATCHES = [
    pytest.param(make_batch(EXAMPLES[:2]), id="little padding"),
    pytest.param(make_batch([EXAMPLES[2], EXAMPLES[0]]), id="much padding"),
]


engine = partial(architectures.engine, dropout=0.0)


def loss_and_gradients(
    made: Engine, trunk: Trunk | None, batch: Batch, *, one_trace: bool = False
) -> dict[str, Any]:
    made.trunk, made.one_trace = trunk, one_trace
    value, gradients = made.gradients(batch, len(batch.targets))
    return {"loss": np.float32(value), **dict(tree_flatten(gradients))}


def assert_same(got: dict[str, Any], expected: dict[str, Any], tolerance: float) -> None:
    assert got.keys() == expected.keys()
    largest = max(float(mx.abs(v).max()) for k, v in expected.items() if k != "loss")
    assert largest > 0
    for name, value in expected.items():
        limit = tolerance * (float(value) if name == "loss" else largest)
        np.testing.assert_allclose(got[name], value, atol=limit, rtol=0, err_msg=name)


@pytest.mark.parametrize("storage", ["memory", "disk"])
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("shares", [False, True], ids=["each whole", "beginning shared"])
@pytest.mark.parametrize("one_trace", [False, True], ids=["block by block", "one trace"])
@pytest.mark.parametrize("name", NAMES)
def test_loss_and_gradients_are_the_same_with_the_trunk(
    name: str, one_trace: bool, shares: bool, batch: Batch, storage: Storage, tmp_path: Path
) -> None:
    made = engine(build(name))
    expected = loss_and_gradients(made, None, batch, one_trace=True)
    # All three begin with two tokens; of the prompt "b" then has its last token alone.
    beginning = shared_beginning(made.network, EXAMPLES) if shares else []
    made.packs = False
    trunk = Trunk(made.network, 2, tiny.ALONE, beginning)
    assert list(trunk.compute(EXAMPLES, 2, storage, tmp_path)) == [2, 1]
    assert list(tmp_path.iterdir()) == []
    assert_same(loss_and_gradients(made, trunk, batch, one_trace=one_trace), expected, 1e-4)


@pytest.mark.parametrize("bits", [None, 4], ids=["plain", "quantized"])
def test_a_released_trunk_has_no_weights_and_changes_no_step(bits: int | None) -> None:
    network = tiny.network()
    if bits is not None:
        nn.quantize(network, group_size=32, bits=bits)
    made = engine(network)
    trunk = Trunk(made.network, 2, tiny.ALONE)
    list(trunk.compute(EXAMPLES, 2, "memory", Path()))
    batch = make_batch(EXAMPLES[:2])
    expected = loss_and_gradients(made, trunk, batch)
    trunk.release()
    assert_same(loss_and_gradients(made, trunk, batch), expected, 0.0)
    layers = made.network.layers
    below = [array for _, array in tree_flatten([each.parameters() for each in layers[:-2]])]
    above = [array for _, array in tree_flatten([each.parameters() for each in layers[-2:]])]
    assert below
    assert {array.size for array in below} == {0}
    assert min(array.size for array in above) > 0


LONG = [Example(e.id, [*range(1, 11), *e.prompt], e.answer) for e in EXAMPLES]


def test_what_all_prompts_begin_with_is_shared_where_caches_are_plain() -> None:
    assert shared_beginning(tiny.network(), LONG) == [*range(1, 11), 1, 5]
    # Its windows keep other caches than plain ones.
    assert shared_beginning(build("gemma3_text"), LONG) == []


def test_a_beginning_that_cannot_be_shared_is_computed_for_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As an architecture would that takes its positions from elsewhere.
    def at_the_start(cache: KVCache, rows: int) -> KVCache:
        several = repeated(cache, rows)
        several.offset = 0
        return several

    monkeypatch.setattr("blogtune.training.trunk.repeated", at_the_start)
    made = engine(tiny.network(), iterations=100)
    use_what_pays(made, LONG, LONG, tmp_path, 0)
    assert made.trunk is not None
    assert made.trunk.beginning == []
    assert "what all pairs begin with: computed for each, it differs by" in capsys.readouterr().err


def test_the_trunk_keeps_the_type_that_the_network_computes_in() -> None:
    network = tiny.network()
    network.set_dtype(mx.bfloat16)
    trunk = Trunk(network, 2, tiny.ALONE)
    list(trunk.compute(EXAMPLES, 3, "memory", Path()))
    tokens = mx.array(make_batch(EXAMPLES).inputs)
    expected = network(tokens)
    with trunk.standing_in(make_batch(EXAMPLES)):
        logits = network(tokens)
    assert logits.dtype == mx.bfloat16
    rows = [(row, n) for row, e in enumerate(EXAMPLES) for n in range(e.tokens - 1)]
    for row, position in rows:
        assert mx.array_equal(logits[row, position], expected[row, position])


def test_the_trunk_holds_one_state_for_each_token_that_is_read() -> None:
    trunk = Trunk(tiny.network(), 1, tiny.ALONE)
    list(trunk.compute(EXAMPLES, 3, "memory", Path()))
    positions = sum(example.tokens - 1 for example in EXAMPLES)
    assert trunk.states.shape == (positions, tiny.WIDTH)
    assert trunk.states.nbytes == trunk_bytes(trunk.network, EXAMPLES)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_above_the_trunk_is_not_computed_for_it(name: str) -> None:
    network = build(name)
    trunk = Trunk(network, 2, tiny.ALONE)
    called: list[int] = []
    for number, block in enumerate(trunk.blocks):
        trunk.blocks[number] = Counting(block, number, called)
    list(trunk.compute(EXAMPLES, 3, "memory", Path()))
    assert called == [0, 1]


@pytest.mark.parametrize("name", ["llama", "qwen2"], ids=["its own list", "a copied list"])
def test_the_blocks_come_back_also_after_an_error(name: str) -> None:
    network = build(name)
    blocks = list(network.layers)
    trunk = Trunk(network, 2, tiny.ALONE)
    list(trunk.compute(EXAMPLES, 3, "memory", Path()))
    assert all(a is b for a, b in zip(network.layers, blocks, strict=True))

    def interrupt() -> None:
        with trunk.standing_in(make_batch(EXAMPLES)):
            assert network.layers[0] is not blocks[0]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert all(a is b for a, b in zip(network.layers, blocks, strict=True))


class Counting(StandIn):
    """A block that tells when it is called."""

    def __init__(self, block: Any, number: int, called: list[int]) -> None:
        super().__init__(block)
        self.number, self.called = number, called

    def __call__(self, x: mx.array, *inputs: Any, **named: Any) -> mx.array:
        self.called.append(self.number)
        return self.block(x, *inputs, **named)


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
def test_a_network_that_is_no_plain_stack_is_traced_as_one(
    cache: str,
    kind: type[LlamaModel],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    *,
    recompute: bool,
) -> None:
    network: Model = tiny.network()
    network.model = kind(network.args)
    changes = {"trunk_cache": cache, "gradient_checkpointing": recompute}
    made = engine(network, iterations=100, **changes)
    use_what_pays(made, EXAMPLES, EXAMPLES, tmp_path, 0)
    assert made.trunk is None
    assert made.one_trace
    said = capsys.readouterr().err
    if cache == "auto" and kind is not Unrolled:
        assert "trunk: off, it differs by" in said
    elif on_cpu():
        assert "gradients block by block: off, it differs by" in said
    assert ("gradient_checkpointing: off" in said) == (recompute and on_cpu())
    batch = make_batch(EXAMPLES)
    simple = float(simple_loss(network, batch, len(batch.targets)))
    assert made.validate(EXAMPLES) == pytest.approx(simple, rel=1e-5)
    assert made.step([batch], 1, 1e-3) == pytest.approx(simple, rel=1e-5)


@pytest.mark.parametrize(
    ("examples", "shared"),
    [pytest.param(EXAMPLES, 2, id="short beginning"), pytest.param(LONG, 12, id="long beginning")],
)
def test_training_and_validating_are_the_same_with_the_trunk(
    examples: list[Example], shared: int, tmp_path: Path
) -> None:
    with_trunk, without = engine(tiny.network(), iterations=99), engine(tiny.network())
    use_what_pays(with_trunk, examples, [], tmp_path, 0)
    assert with_trunk.trunk is not None
    assert len(with_trunk.trunk.beginning) == shared
    assert with_trunk.validate(examples) == pytest.approx(without.validate(examples), rel=1e-5)
    batch = make_batch(examples)
    for iteration in (1, 2, 3):
        loss = without.step([batch], iteration, 1e-3)
        assert with_trunk.step([batch], iteration, 1e-3) == pytest.approx(loss, rel=1e-4)

"""Batches in one row: the same numbers, where the network's positions allow it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx.utils import tree_flatten

from blogtune.training.engine import Engine
from blogtune.training.examples import Example, make_batch
from blogtune.training.packing import NotPackableError, arranged, pack, positions_of, taken_apart
from blogtune.training.plan import use_what_pays
from blogtune.training.trunk import Trunk, shared_beginning
from tests import tiny
from tests.training import architectures
from tests.training.architectures import NAMES, build

EXAMPLES = tiny.EXAMPLES
# Those that keep windows, or look at positions in attention of their own.
UNPACKED = {"gemma2", "gemma3_text"}


engine = partial(architectures.engine, dropout=0.0, iterations=99)


def with_trunk(made: Engine, examples: list[Example]) -> Engine:
    made.trunk = Trunk(made.network, 2, tiny.ALONE, shared_beginning(made.network, examples))
    list(made.trunk.compute(examples, 2, "memory", Path()))
    return made


def computed(made: Engine, examples: list[Example]) -> dict[str, Any]:
    batch = make_batch(examples)
    loss, gradients = made.gradients(batch, len(batch.targets))
    return {"loss": loss, "validation": made.validate(examples), **dict(tree_flatten(gradients))}


TOKENS = st.lists(st.integers(3, 99), min_size=1, max_size=6)


@given(beginning=TOKENS, texts=st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=5))
def test_a_row_holds_every_token_once_and_rows_tell_what_is_predicted(
    beginning: list[int], texts: list[tuple[list[int], list[int]]]
) -> None:
    examples = [Example(str(n), [*beginning, *p], a) for n, (p, a) in enumerate(texts)]
    batch = make_batch(examples)
    packed = pack(batch, len(beginning))
    assert packed.inputs.size == len(beginning) + sum(
        len(prompt) + len(answer) - 1 for prompt, answer in texts
    )
    # What stands at each row is the same token in both.
    assert packed.inputs.ravel()[packed.rows].tolist() == batch.inputs.ravel()[batch.rows].tolist()
    tokens = [np.array([*e.prompt, *e.answer][:-1], np.float32)[:, None] for e in examples]
    for each in (batch, packed):
        lying = arranged(each, tokens)
        assert (lying[..., 0] == each.inputs).all()
        for got, expected in zip(taken_apart(each, lying), tokens, strict=True):
            assert (got == expected).all()


@pytest.mark.parametrize("examples", [EXAMPLES, EXAMPLES[1:2]], ids=["three", "one"])
@pytest.mark.parametrize("name", NAMES)
def test_a_packed_batch_has_the_loss_and_gradients_of_a_padded_one(
    name: str, examples: list[Example]
) -> None:
    made = with_trunk(engine(build(name)), EXAMPLES)
    beginning = shared_beginning(made.network, EXAMPLES)
    made.network.eval()
    made.packs = False
    expected = computed(made, examples)
    if name in UNPACKED:
        assert not beginning or made.descent.difference_in_one_row(make_batch(EXAMPLES), 2) > 1e-2
        return
    assert made.descent.difference_in_one_row(make_batch(EXAMPLES), 2) < 1e-5
    made.packs = True
    for key, array in computed(made, examples).items():
        largest = float(np.abs(expected[key]).max())
        np.testing.assert_allclose(array, expected[key], atol=1e-5 * largest + 1e-8, err_msg=key)


@tiny.A_CPUS_WAY
def test_what_is_dropped_is_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = list[int]()

    def counting(batch: Any, beginning: int) -> Any:
        packed.append(beginning)
        return pack(batch, beginning)

    monkeypatch.setattr("blogtune.training.engine.pack", counting)
    for dropout, expected in ((0.0, [2, 2]), (0.5, [2])):
        packed.clear()
        computed(with_trunk(engine(tiny.network(), dropout=dropout), EXAMPLES), EXAMPLES)
        assert packed == expected


@tiny.A_CPUS_WAY
def test_positions_that_depend_on_a_rows_length_are_found_out(tmp_path: Path) -> None:
    """With frequencies for texts of up to 16 tokens and others for longer ones."""
    scaling = {"type": "dynamic", "factor": 4.0}
    for count, packs in ((1, True), (3, False)):
        network = tiny.network(rope_scaling=scaling, max_position_embeddings=16)
        made = engine(network, batch_pairs=count)
        use_what_pays(made, EXAMPLES, [], tmp_path, 0)
        assert made.trunk is not None
        assert made.packs is packs


def test_every_adapted_block_but_the_last_is_compared() -> None:
    """Of three the lowest alone looks at a row's length."""
    network = tiny.network()
    scaling = {"type": "dynamic", "factor": 4.0}
    odd = tiny.network(rope_scaling=scaling, max_position_embeddings=16)
    network.layers[1].self_attn.rope = odd.layers[1].self_attn.rope
    made = engine(network, layers=3)
    assert made.descent.difference_in_one_row(make_batch(EXAMPLES), 2) > 1e-4


@tiny.A_CPUS_WAY
def test_a_row_beyond_longropes_change_is_not_packed(tmp_path: Path) -> None:
    for length, packs in ((19, True), (18, False)):
        network = tiny.network()
        network.layers[0].self_attn.rope.original_max_position_embeddings = length
        made = engine(network)
        use_what_pays(made, EXAMPLES, [], tmp_path, 0)
        assert made.trunk is not None
        assert made.packs is packs


@pytest.mark.parametrize("traditional", [False, True])
@pytest.mark.parametrize("dims", [6, 8])
@pytest.mark.parametrize("freqs", [None, [1.0, 7.0, 90.0, 400.0]], ids=["base", "freqs"])
def test_positions_of_a_row_are_those_of_each_text(
    freqs: list[float] | None, dims: int, *, traditional: bool
) -> None:
    packed = pack(make_batch(EXAMPLES), 2)
    base = 100.0 if freqs is None else None
    settings = {"traditional": traditional, "base": base, "scale": 0.5}
    settings |= {"freqs": None if freqs is None else mx.array(freqs[: dims // 2])}
    x, direction = (
        mx.random.normal((1, 3, packed.inputs.size, 8), key=mx.random.key(n)) for n in (0, 1)
    )
    places = [0, 1, *(n for each in EXAMPLES for n in range(2, each.tokens - 1))]

    def along(turned: Callable[[mx.array], mx.array]) -> list[mx.array]:
        outputs, gradients = mx.vjp(turned, [x], [direction])
        return [*outputs, *gradients]

    def each_alone(x: mx.array) -> mx.array:
        tokens = mx.split(x, len(places), axis=2)
        turned = [
            mx.fast.rope(token, dims, offset=place, **settings)
            for token, place in zip(tokens, places, strict=True)
        ]
        return mx.concatenate(turned, axis=2)

    expected = along(each_alone)
    with positions_of(packed):
        # A second time with what was kept of the first.
        for _ in range(2):
            for got, other in zip(
                along(lambda x: mx.fast.rope(x, dims, **settings, offset=0)), expected, strict=True
            ):
                np.testing.assert_allclose(got, other, atol=1e-6)


def test_a_mask_that_is_not_known_is_refused() -> None:
    packed = pack(make_batch(EXAMPLES), 2)
    x = mx.zeros((1, 2, packed.inputs.size, 8))
    with positions_of(packed):
        with pytest.raises(NotPackableError):
            mx.fast.scaled_dot_product_attention(x, x, x, scale=1.0, mask=mx.array([True]))
        with pytest.raises(NotPackableError):
            mx.fast.rope(x, 8, traditional=False, base=100.0, scale=1.0, offset=1)

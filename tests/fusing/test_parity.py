import math
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from scipy.special import rel_entr, softmax

from blogtune.common.errors import UserError
from blogtune.fusing.parity import Parity, compare, compute_in_float32, expected, load
from blogtune.models.chat import open_chat
from blogtune.models.loading import load_model
from tests import tiny
from tests.fusing.conftest import fuse_params, measure
from tests.training.architectures import NAMES, build

LIMITS = fuse_params(parity_pairs=4, max_kl=1e-4, min_top1_agreement=0.99)


def test_a_model_does_not_differ_from_itself(tiny_folder: Path) -> None:
    one, same = (load_model(tiny_folder, mx.float32) for _ in range(2))
    parity = measure(one, same, tiny.facts(), LIMITS)
    assert (parity.top1_agreement, parity.mean_kl, parity.max_kl) == (1.0, 0.0, 0.0)
    parity.check(LIMITS)


def test_the_fused_model_is_the_adapted_one(
    taught_folder: Path, adapter: Path, fused: Path
) -> None:
    adapted = load_model(taught_folder, mx.float32, adapter)
    parity = measure(adapted, load_model(fused, mx.float32), tiny.facts(), LIMITS)
    assert 0 < parity.mean_kl < 1e-5
    assert parity.mean_kl < parity.max_kl
    parity.check(LIMITS)


def test_both_are_read_in_float32_where_a_half_type_would_hide_what_was_merged(
    taught_folder: Path, adapter: Path, fused: Path
) -> None:
    pairs = tiny.facts()
    adapted = dict(expected(load(taught_folder, adapter), pairs, LIMITS))
    parity = compare(adapted, load(fused), pairs, LIMITS)
    adapted, merged = (
        load_model(f, mx.float32, a) for f, a in ((taught_folder, adapter), (fused, None))
    )
    assert parity == measure(adapted, merged, pairs, LIMITS)
    halves = (load_model(f, mx.bfloat16, a) for f, a in ((taught_folder, adapter), (fused, None)))
    assert measure(*halves, pairs, LIMITS).mean_kl > 10 * parity.mean_kl


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bits", [0, 4], ids=["half floats", "4 bits"])
def test_weights_of_any_type_compute_what_they_do_in_float32(name: str, bits: int) -> None:
    tokens = mx.array([[1, 5, 6, 7, 20, 21, 33, 40]])
    network = build(name)
    network.set_dtype(mx.bfloat16)
    if bits:
        nn.quantize(network, group_size=32, bits=bits)
    halves = network(tokens)
    assert halves.dtype == mx.bfloat16
    compute_in_float32(network)
    got = network(tokens)
    assert got.dtype == mx.float32
    network.set_dtype(mx.float32)
    expected = network(tokens)
    limit = 1e-5 * float(mx.abs(expected).max())
    np.testing.assert_allclose(got, expected, atol=limit, rtol=0)
    assert float(mx.abs(halves.astype(mx.float32) - expected).max()) > 10 * limit


def test_another_model_differs_and_must_not_ship(
    taught_folder: Path, adapter: Path, tiny_folder: Path
) -> None:
    adapted = load_model(taught_folder, mx.float32, adapter)
    parity = measure(adapted, load_model(tiny_folder, mx.float32), tiny.facts(), LIMITS)
    assert parity.mean_kl > 1
    assert parity.top1_agreement < 0.5
    with pytest.raises(UserError, match="the fused model departs from the adapted one: mean KL"):
        parity.check(LIMITS)


def test_every_answer_token_of_the_first_pairs_is_compared(tiny_folder: Path) -> None:
    model = load_model(tiny_folder, mx.float32)
    chat = open_chat(model.tokenizer)
    expected = sum(len(chat.answer(pair.answer)) for pair in tiny.facts()[:4])
    assert measure(model, model, tiny.facts(), LIMITS).positions == expected
    assert measure(model, model, tiny.facts()[:4], LIMITS).positions == expected


def test_divergence_is_that_of_adapted_from_fused_in_nats(
    taught_folder: Path, tiny_folder: Path
) -> None:
    adapted, fused = (load_model(f, mx.float32) for f in (taught_folder, tiny_folder))
    chat = open_chat(adapted.tokenizer)
    (pair, *_) = tiny.facts()
    prompt, answer = chat.prompt(pair.question), chat.answer(pair.answer)
    # One token more at a time, so that each distribution is that of the next answer token.
    rows = [mx.array([[*prompt, *answer[:n]]]) for n in range(len(answer))]
    p, q = (
        softmax(np.asarray([model.network(row)[0, -1] for row in rows], np.float64), axis=1)
        for model in (adapted, fused)
    )
    parity = measure(adapted, fused, [pair], LIMITS)
    divergence = rel_entr(p, q).sum(axis=1)
    assert parity.mean_kl == pytest.approx(divergence.mean(), rel=1e-4)
    assert parity.max_kl == pytest.approx(divergence.max(), rel=1e-4)
    assert parity.top1_agreement == (p.argmax(axis=1) == q.argmax(axis=1)).mean()


@pytest.mark.parametrize(
    ("agreement", "divergence", "passes"),
    [
        pytest.param(1.0, 0.0, True, id="the same"),
        pytest.param(0.99, 1e-4, True, id="at both limits"),
        pytest.param(0.98, 0.0, False, id="too little agreement"),
        pytest.param(1.0, 2e-4, False, id="too much divergence"),
        pytest.param(1.0, math.nan, False, id="no number"),
    ],
)
def test_the_limits_decide(agreement: float, divergence: float, passes: bool) -> None:
    parity = Parity(100, agreement, divergence, divergence)
    if passes:
        parity.check(LIMITS)
        return
    with pytest.raises(UserError) as caught:
        parity.check(LIMITS)
    assert str(caught.value) == (
        f"the fused model departs from the adapted one: mean KL {divergence:.2e} (fuse.max_kl "
        f"1e-04), top-1 agreement {agreement:.4f} (fuse.min_top1_agreement 0.99); do not ship it"
    )


def test_of_weights_in_bfloat16_the_message_says_what_keeps_more() -> None:
    parity = Parity(100, 0.985, 2e-4, 2e-3)
    with pytest.raises(
        UserError, match=r"set fuse\.dtype: float16 or float32, or raise the limits$"
    ):
        parity.check(LIMITS, "bfloat16")
    with pytest.raises(UserError, match=r"do not ship it$"):
        parity.check(LIMITS, "float16")


def test_metrics_are_told_in_millionths_of_a_nat() -> None:
    assert Parity(300, 0.99666667, 1.23456e-6, 2e-3).metrics() == {
        "positions": 300,
        "top1_agreement": 0.996667,
        "mean_kl_micronats": 1.235,
        "max_kl_micronats": 2000.0,
    }

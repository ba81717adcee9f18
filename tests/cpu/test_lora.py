from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx_lm.tuner.lora import LoRALinear

from blogtune.cpu.lora import lora, mlx_lora
from tests.cpu.along import normal, with_gradients


@pytest.mark.parametrize("bits", [None, 4], ids=["plain", "quantized"])
@pytest.mark.parametrize("bias", [False, True])
def test_an_adapted_layer_is_mlx_lms_in_value_and_gradients(
    bits: int | None, *, bias: bool
) -> None:
    linear: Any = nn.Linear(64, 6, bias=bias)
    if bits is not None:
        linear = nn.QuantizedLinear.from_linear(linear, 32, bits)
    layer = LoRALinear.from_base(linear, r=3, scale=7.0)

    def through(function: Callable[..., mx.array]) -> list[mx.array]:
        def applied(x: mx.array, narrow: mx.array, wide: mx.array) -> mx.array:
            layer.lora_a, layer.lora_b = narrow, wide
            return function(layer, x)

        given = normal(2, 5, 64), normal(64, 3, seed=1), normal(3, 6, seed=2)
        return with_gradients(applied, *given)

    for ours, theirs in zip(through(lora), through(mlx_lora), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4)
    layer.set_dtype(mx.bfloat16)
    x = normal(2, 64, dtype=mx.bfloat16)
    assert mx.array_equal(lora(layer, x), mlx_lora(layer, x))

"""An adapted linear layer, linear(x) + scale * (x A) B (Hu et al. 2021, arXiv 2106.09685).

Its sums are made by BLAS in place, forward and backward, where MLX adds in another pass; and the
gradients at A and B let go of what they were computed from, which a trace would keep to its end.
"""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.tuner.lora import LoRALinear

from blogtune.models.gradients import detach, detach_gradient, with_gradient

mlx_lora = LoRALinear.__call__


def lora(layer: Any, x: mx.array) -> mx.array:
    """As mlx-lm's `LoRALinear.__call__`."""
    if x.dtype != mx.float32 or layer.lora_a.dtype != mx.float32:
        return mlx_lora(layer, x)
    if layer.training and layer.dropout._p_1 < 1:
        # The frozen layer and the adapter see different inputs, so there is no common sum.
        a, b = detach_gradient(layer.lora_a), detach_gradient(layer.lora_b)
        narrow = layer.dropout(x) @ a
        return mx.addmm(layer.linear(x), narrow * layer.scale, b)
    return _adapted(layer, x)


def _adapted(layer: Any, x: mx.array) -> mx.array:
    kept: list[mx.array] = []

    def forward(x: mx.array, a: mx.array, b: mx.array) -> mx.array:
        kept[:] = [(x @ a) * layer.scale]
        return mx.addmm(layer.linear(x), kept[0], b)

    def backward(
        primals: Sequence[mx.array], cotangent: mx.array, _: mx.array
    ) -> tuple[mx.array, mx.array, mx.array]:
        x, a, b = primals
        to_narrow = (cotangent @ b.T) * layer.scale
        below: mx.array = mx.vjp(layer.linear, [x], [cotangent])[1][0]
        rows, given = to_narrow.reshape(-1, a.shape[1]), cotangent.reshape(-1, b.shape[1])
        to_a = x.reshape(-1, a.shape[0]).T @ rows
        to_b = kept[0].reshape(-1, a.shape[1]).T @ given
        return mx.addmm(below, to_narrow, a.T), detach(to_a), detach(to_b)

    adapted: mx.array = with_gradient(forward, backward)(x, layer.lora_a, layer.lora_b)
    return adapted

"""Takes to the host, on a CPU, what numpy does faster there: exponentials (see `exponentials`).

And dropout's random numbers, Adam's steps, and the sum in an adapted layer. `use` puts functions in
place of mlx-lm's and MLX's that do the same, for float32; every other type, and what they do not
know, goes to the ones they replace.
Nothing of a network's structure is written a second time, and neither Metal nor CUDA comes here.
"""

import sys
from collections.abc import Sequence
from typing import Any, cast

import mlx.core as mx
import numpy as np
from mlx import nn, optimizers
from mlx_lm.models.activations import swiglu as mlx_swiglu
from mlx_lm.tuner.lora import LoRALinear

from blogtune.cpu import exponentials
from blogtune.cpu.cores import keep_freed_memory, work_in_turn
from blogtune.cpu.gradients import with_gradient

LEVELS = 1 << 16
mlx_lora, mlx_adam = LoRALinear.__call__, optimizers.Adam.apply_single


def use() -> None:
    """Put the functions in place in all of mlx-lm's models imported so far; twice does nothing."""
    keep_freed_memory()
    work_in_turn()
    mx.fast.scaled_dot_product_attention = exponentials.attention
    # No methods to the type checker.
    setattr(nn.Dropout, "__call__", dropout)  # noqa: B010
    setattr(LoRALinear, "__call__", lora)  # noqa: B010
    setattr(optimizers.Adam, "apply_single", adam)  # noqa: B010
    for name, module in list(sys.modules.items()):
        if name.startswith("mlx_lm.models.") and getattr(module, "swiglu", None) is mlx_swiglu:
            vars(module)["swiglu"] = swiglu


def swiglu(gate: mx.array, x: mx.array) -> mx.array:
    """silu(gate) * x, of any shape."""
    if gate.dtype != mx.float32 or x.dtype != mx.float32:
        return cast("mx.array", mlx_swiglu(gate, x))
    return exponentials.swiglu(gate, x)


def dropout(layer: Any, x: mx.array) -> mx.array:
    """As MLX's, with numpy's random numbers, whose seed follows from MLX's random state.

    They have 16 bits each: the share kept is a multiple of 1/65,536, and the scale is made for it.
    """
    kept = max(1, round(layer._p_1 * LEVELS))
    if kept == LEVELS or not layer.training:
        return x
    seed = np.asarray(mx.random.randint(0, 1 << 31, (4,), mx.uint32))
    numbers = np.random.SFC64(seed).random_raw(-(-x.size // 4)).view(np.uint16)
    factors = (numbers[: x.size] < kept) * np.float32(LEVELS / kept)
    return x * mx.array(factors).reshape(x.shape).astype(x.dtype)


def lora(layer: Any, x: mx.array) -> mx.array:
    """As mlx-lm's; the scale meets the few numbers of the rank, and sums are made in place.

    So is that of the gradients at `x`, in training where nothing is dropped.
    """
    if x.dtype != mx.float32 or layer.lora_a.dtype != mx.float32:
        return mlx_lora(layer, x)
    if not layer.training or layer.dropout._p_1 < 1:
        narrow = layer.dropout(x) @ layer.lora_a
        return mx.addmm(layer.linear(x), narrow * layer.scale, layer.lora_b)
    kept: list[mx.array] = []

    def value(x: mx.array, a: mx.array, b: mx.array) -> mx.array:
        kept[:] = [(x @ a) * layer.scale]
        return mx.addmm(layer.linear(x), kept[0], b)

    def gradients(
        primals: Sequence[mx.array], cotangent: mx.array, _: mx.array
    ) -> tuple[mx.array, mx.array, mx.array]:
        x, a, b = primals
        to_narrow = (cotangent @ b.T) * layer.scale
        below: mx.array = mx.vjp(layer.linear, [x], [cotangent])[1][0]
        rows, given = to_narrow.reshape(-1, a.shape[1]), cotangent.reshape(-1, b.shape[1])
        to_a = x.reshape(-1, a.shape[0]).T @ rows
        return mx.addmm(below, to_narrow, a.T), to_a, kept[0].reshape(-1, a.shape[1]).T @ given

    return with_gradient(value, gradients)(x, layer.lora_a, layer.lora_b)


def adam(
    optimizer: Any, gradient: mx.array, parameter: mx.array, state: dict[str, mx.array]
) -> mx.array:
    """As MLX's (Kingma and Ba 2015, arXiv 1412.6980), whose ten arrays here stay in the cache."""
    types = {gradient.dtype, parameter.dtype}
    if types != {mx.float32} or optimizer.bias_correction:
        return mlx_adam(optimizer, gradient, parameter, state)
    first, second = optimizer.betas
    given, mean, square = (np.asarray(array) for array in (gradient, state["m"], state["v"]))
    mean = first * mean + (1 - first) * given
    square = second * square + (1 - second) * np.square(given)
    state["m"], state["v"] = mx.array(mean), mx.array(square)
    rate = np.asarray(optimizer.learning_rate)
    return mx.array(np.asarray(parameter) - rate * mean / (np.sqrt(square) + optimizer.eps))

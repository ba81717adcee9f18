"""The one place where functions are put over MLX's and mlx-lm's, and taken away again."""

import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx_lm.models import activations
from mlx_lm.tuner.lora import LoRALinear

from blogtune.cpu.attention import attention as cpu_attention
from blogtune.cpu.cross_entropy import cross_entropy as cpu_cross_entropy
from blogtune.cpu.dropout import dropout as cpu_dropout
from blogtune.cpu.gelu import gelu as cpu_gelu
from blogtune.cpu.lora import lora as cpu_lora
from blogtune.cpu.swiglu import mlx_swiglu
from blogtune.cpu.swiglu import swiglu as cpu_swiglu


@contextmanager
def patched(
    *,
    attention: bool = False,
    swiglu: bool = False,
    gelu: bool = False,
    cross_entropy: bool = False,
    dropout: bool = False,
    lora: bool = False,
) -> Generator[None]:
    """While the block runs, the operations named are this folder's; then they are what they were.

    They hold for the whole process. swiglu, which mlx-lm's models import by name, is exchanged in
    those imported so far and in those imported meanwhile.
    """
    with ExitStack() as stack:
        if attention:
            stack.enter_context(over(mx.fast, "scaled_dot_product_attention", cpu_attention))
        if gelu:
            stack.enter_context(over(nn, "gelu", cpu_gelu))
        if cross_entropy:
            stack.enter_context(over(nn.losses, "cross_entropy", cpu_cross_entropy))
        if dropout:
            stack.enter_context(over(nn.Dropout, "__call__", cpu_dropout))
        if lora:
            stack.enter_context(over(LoRALinear, "__call__", cpu_lora))
        if swiglu:
            stack.enter_context(_swiglu_everywhere())
        yield


@contextmanager
def over(owner: Any, name: str, function: Any) -> Generator[None]:
    """While the block runs, `function` stands over the owner's of that name."""
    before = getattr(owner, name)
    setattr(owner, name, function)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def _swiglu_everywhere() -> Generator[None]:
    if activations.swiglu is cpu_swiglu:
        yield
        return
    _exchange(mlx_swiglu, cpu_swiglu)
    try:
        yield
    finally:
        _exchange(cpu_swiglu, mlx_swiglu)


def _exchange(old: Any, new: Any) -> None:
    for name, module in list(sys.modules.items()):
        if name.startswith("mlx_lm.models.") and getattr(module, "swiglu", None) is old:
            vars(module)["swiglu"] = new

"""Merges LoRA adapters into the base weights: W + scale * (A B)^T, rounded once.

What is written loads with mlx-lm and, where it is not quantized, with transformers as it comes:
weights in parts of 5 GB with their index, and a config that is true of them.
"""

from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_unflatten
from mlx_lm.utils import dequantize_model, save_model

from blogtune.common.files import atomic_folder
from blogtune.fusing.others import write_others
from blogtune.fusing.params import FuseParams
from blogtune.models.loading import dtype_name, is_quantized, load_model, materialize, storage_dtype


@dataclass(frozen=True)
class Stored:
    """How the fused weights are stored: their float type, and the bits of quantized ones.

    `base_bits` are those of the base, `bits` those of the result; None where they are floats.
    """

    dtype: str
    base_bits: int | None = None
    bits: int | None = None

    def __str__(self) -> str:
        """Such as "float16, dequantized from 4 bits"."""
        if self.bits:
            return f"{self.bits} bits, scales in {self.dtype}"
        return (
            f"{self.dtype}, dequantized from {self.base_bits} bits"
            if self.base_bits
            else self.dtype
        )


def fuse(base: Path, adapter: Path, output: Path, params: FuseParams) -> Stored:
    """Write the fused model; return how its weights are stored.

    The sum is formed in float32 and rounded once to `params.dtype` (auto: as the base is stored).
    The layers of a quantized base become plain ones with `params.dequantize`; without it those that
    were adapted are quantized again, as the base is, and the others stay bit by bit.
    """
    model = load_model(base, None, adapter)
    network = model.network
    was_quantized = is_quantized(network)
    adapted = [(name, each) for name, each in network.named_modules() if hasattr(each, "fuse")]
    for each in [network] if was_quantized else [layer for _, layer in adapted]:
        each.set_dtype(mx.float32)
    dtype = storage_dtype(base) if params.dtype == "auto" else getattr(mx, params.dtype)
    layers = [(name, each.fuse(dequantize=params.dequantize)) for name, each in adapted]
    network.update_modules(tree_unflatten(layers))
    if params.dequantize:
        dequantize_model(network)
    network.set_dtype(dtype)
    materialize(network)
    with atomic_folder(output) as folder:
        save_model(folder, network)
        write_others(model, folder, dtype)
    bits = model.config["quantization"]["bits"] if was_quantized else None
    return Stored(dtype_name(dtype), bits, bits if is_quantized(network) else None)

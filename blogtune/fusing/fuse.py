"""Merges LoRA adapters into the base weights: W + scale * (A B)^T, rounded once."""

import shutil
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_unflatten
from mlx_lm.utils import save_model

from blogtune.errors import UserError
from blogtune.files import atomic_folder
from blogtune.models.loading import is_quantized, load_model, storage_dtype

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "source.json")


def fuse(base: Path, adapter: Path, output: Path) -> None:
    """Write the fused model, weights in the base's storage type, config and tokenizer unchanged.

    The sum is formed in float32 and rounded once. Raises UserError for a quantized base.
    """
    model = load_model(base, mx.float32, adapter)
    if is_quantized(model.network):
        raise UserError(f"{base}: quantized weights cannot be fused; use a float base")
    layers = [(n, m.fuse()) for n, m in model.network.named_modules() if hasattr(m, "fuse")]
    model.network.update_modules(tree_unflatten(layers))
    model.network.set_dtype(storage_dtype(base))
    with atomic_folder(output) as folder:
        save_model(folder, model.network)
        skipped = {file for pattern in WEIGHTS for file in base.glob(pattern)}
        for file in base.iterdir():
            if file.is_file() and file not in skipped:
                shutil.copyfile(file, folder / file.name)

"""Puts mlx-lm's LoRA layers on query, key and value of a network's top blocks, and counts them.

LoRA adds scale * (x A) B to a frozen linear layer (Hu et al. 2021, arXiv 2106.09685): A has
inputs x rank numbers and B rank x outputs, so a layer trains rank * (inputs + outputs).
"""

from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers

from blogtune.errors import UserError
from blogtune.files import atomic_folder, write_json
from blogtune.training.params import LoraParams

# How architectures name query, key and value: apart, or fused into one matrix.
QUERY_KEY_VALUE = (
    ("q_proj", "k_proj", "v_proj"),
    ("qkv_proj",),
    ("query_key_value",),
    ("Wqkv",),
    ("c_attn",),
)


def target_keys(network: Any) -> list[str]:
    """The paths inside a block of its query, key and value layers, such as "self_attn.q_proj".

    Raises UserError when the architecture names them in no known way.
    """
    linear = (nn.Linear, nn.QuantizedLinear)
    found = {
        path.rsplit(".", 1)[-1]: path
        for path, module in network.layers[-1].named_modules()
        if isinstance(module, linear)
    }
    for names in QUERY_KEY_VALUE:
        if all(name in found for name in names):
            return [found[name] for name in names]
    raise UserError(
        f"model: no query, key and value layers found among {', '.join(sorted(found))}; "
        "this architecture cannot be adapted"
    )


def expected_parameters(network: Any, params: LoraParams) -> int:
    """How many numbers will be trained: rank * (inputs + outputs) over all targets."""
    keys = set(target_keys(network))
    return sum(
        params.rank * sum(_shape(module))
        for block in _top_blocks(network, params)
        for path, module in block.named_modules()
        if path in keys
    )


def apply_lora(network: Any, params: LoraParams) -> int:
    """Freeze the network, add adapters to the top blocks, return the trainable parameters.

    Raises UserError when there are fewer blocks than asked for, or when what became trainable
    is not what the shapes say.
    """
    expected = expected_parameters(network, params)
    network.freeze()
    linear_to_lora_layers(network, params.layers, lora_config(network, params))
    arrays: dict[str, mx.array] = dict(tree_flatten(network.trainable_parameters()))
    trainable = sum(array.size for array in arrays.values())
    if trainable != expected:
        raise UserError(
            f"train.lora: {trainable:,} parameters became trainable where {expected:,} were meant"
        )
    return trainable


def lora_config(network: Any, params: LoraParams) -> dict[str, Any]:
    """mlx-lm's `lora_parameters` for these parameters."""
    return {
        "rank": params.rank,
        "scale": params.scale,
        "dropout": params.dropout,
        "keys": target_keys(network),
    }


def save_adapter(
    folder: Path, weights: dict[str, mx.array], params: LoraParams, keys: list[str]
) -> None:
    """Write mlx-lm's adapter folder, which `mlx_lm.generate --adapter-path` loads."""
    with atomic_folder(folder) as temporary:
        mx.save_safetensors(str(temporary / "adapters.safetensors"), weights)
        config = {
            "fine_tune_type": "lora",
            "num_layers": params.layers,
            "lora_parameters": {**params.model_dump(exclude={"layers"}), "keys": keys},
        }
        write_json(temporary / "adapter_config.json", config)


def _top_blocks(network: Any, params: LoraParams) -> list[Any]:
    blocks = len(network.layers)
    if params.layers > blocks:
        raise UserError(f"train.lora.layers: {params.layers}, but the model has {blocks} blocks")
    return list(network.layers[-params.layers :])


def _shape(module: Any) -> tuple[int, int]:
    """Outputs and inputs; a quantized weight packs 32 / bits inputs into one number."""
    outputs, inputs = module.weight.shape
    if isinstance(module, nn.QuantizedLinear):
        inputs = inputs * 32 // module.bits
    return outputs, inputs

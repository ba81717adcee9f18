"""Puts mlx-lm's LoRA layers on linear layers of a network's top blocks, and counts them.

LoRA adds scale * (x A) B to a frozen linear layer (Hu et al. 2021, arXiv 2106.09685): A has
inputs x rank numbers and B rank x outputs, so a layer trains rank * (inputs + outputs). On a
quantized layer that is QLoRA (Dettmers et al. 2023, arXiv 2305.14314). DoRA also trains the length
of each of the layer's outputs' weights (Liu et al. 2024, arXiv 2402.09353): outputs more.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers

from blogtune.common.errors import UserError
from blogtune.common.files import atomic_folder, write_json
from blogtune.training.params import LoraParams

# How architectures name query, key and value: apart, or fused into one matrix.
QUERY_KEY_VALUE = (
    ("q_proj", "k_proj", "v_proj"),
    ("qkv_proj",),
    ("query_key_value",),
    ("Wqkv",),
    ("c_attn",),
)


def target_keys(network: Any, targets: str | list[str]) -> list[str]:
    """The paths inside a block of the layers to adapt, such as "self_attn.q_proj".

    `targets` is "qkv" (query, key and value, as the architecture names them), "all" (every linear
    layer of a block), or last parts of the paths. Raises UserError for what the blocks have not.
    """
    linear = (nn.Linear, nn.QuantizedLinear)
    modules = network.layers[-1].named_modules()
    paths = sorted(path for path, module in modules if isinstance(module, linear))
    if targets == "all":
        return paths
    # A name may stand for several: of experts, and one that all share.
    found = {name: [path for path in paths if _last(path) == name] for name in map(_last, paths)}
    names = _query_key_value(found) if targets == "qkv" else targets
    missing = [name for name in names if name not in found]
    if missing or not names:
        raise UserError(
            f"{', '.join(missing) or 'none named'}, but the model's blocks have "
            f"{', '.join(sorted(found))}",
            where="train.lora.targets",
            remedy="name some of those, or take qkv or all",
        )
    return [path for name in names for path in found[name]]


def _last(path: str) -> str:
    return path.rsplit(".", 1)[-1]


def _query_key_value(found: Collection[str]) -> Sequence[str]:
    for names in QUERY_KEY_VALUE:
        if all(name in found for name in names):
            return names
    raise UserError(
        f"no query, key and value layers found among {', '.join(sorted(found))}",
        where="model",
        remedy="name the layers to adapt in train.lora.targets",
    )


def expected_parameters(network: Any, params: LoraParams) -> int:
    """How many numbers will be trained: rank * (inputs + outputs) over all targets.

    With DoRA one more for each output.
    """
    keys = set(target_keys(network, params.targets))
    shapes = [
        _shape(module)
        for block in _top_blocks(network, params)
        for path, module in block.named_modules()
        if path in keys
    ]
    lengths = sum(outputs for outputs, _ in shapes) if params.kind == "dora" else 0
    return params.rank * sum(map(sum, shapes)) + lengths


def apply_lora(network: Any, params: LoraParams) -> int:
    """Freeze the network, add adapters to the top blocks, return the trainable parameters.

    Raises UserError when there are fewer blocks than asked for, or when what became trainable
    is not what the shapes say.
    """
    expected = expected_parameters(network, params)
    network.freeze()
    config = lora_config(network, params)
    linear_to_lora_layers(network, params.layers, config, use_dora=params.kind == "dora")
    arrays: dict[str, mx.array] = dict(tree_flatten(network.trainable_parameters()))
    trainable = sum(array.size for array in arrays.values())
    if trainable != expected:
        raise UserError(
            f"{trainable:,} parameters became trainable where {expected:,} were meant",
            where="train.lora",
        )
    return trainable


def lora_config(network: Any, params: LoraParams) -> dict[str, Any]:
    """mlx-lm's `lora_parameters` for these parameters."""
    return {
        "rank": params.rank,
        "scale": params.scale,
        "dropout": params.dropout,
        "keys": target_keys(network, params.targets),
    }


def save_adapter(
    folder: Path, weights: dict[str, mx.array], params: LoraParams, keys: list[str]
) -> None:
    """Write mlx-lm's adapter folder, which `mlx_lm.generate --adapter-path` loads."""
    with atomic_folder(folder) as temporary:
        write_adapter(temporary, weights, params, keys)


def write_adapter(
    folder: Path, weights: dict[str, mx.array], params: LoraParams, keys: list[str]
) -> None:
    """Write its files into an existing folder."""
    # The order of the names is the order in the file.
    ordered = dict(sorted(weights.items()))
    mx.save_safetensors(str(folder / "adapters.safetensors"), ordered)
    numbers = params.model_dump(include={"rank", "scale", "dropout"})
    config = {
        "fine_tune_type": params.kind,
        "num_layers": params.layers,
        "lora_parameters": {**numbers, "keys": keys},
    }
    write_json(folder / "adapter_config.json", config)


def _top_blocks(network: Any, params: LoraParams) -> list[Any]:
    blocks = len(network.layers)
    if params.layers > blocks:
        raise UserError(
            f"{params.layers}, but the model has {blocks} blocks", where="train.lora.layers"
        )
    return list(network.layers[-params.layers :])


def _shape(module: Any) -> tuple[int, int]:
    """Outputs and inputs; a quantized weight packs 32 / bits inputs into one number."""
    outputs, inputs = module.weight.shape
    if isinstance(module, nn.QuantizedLinear):
        inputs = inputs * 32 // module.bits
    return outputs, inputs

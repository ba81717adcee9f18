"""Puts mlx-lm's LoRA layers on linear layers of a network's top blocks, and counts them.

LoRA adds scale * (x A) B to a frozen linear layer (Hu et al. 2021, arXiv 2106.09685): A has
inputs x rank numbers and B rank x outputs, so a layer trains rank * (inputs + outputs). On a
quantized layer that is QLoRA (Dettmers et al. 2023, arXiv 2305.14314). In a mixture of experts each
expert's layer has an adapter of its own. DoRA also trains the length
of each of the layer's outputs' weights (Liu et al. 2024, arXiv 2402.09353): outputs more.
"""

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear
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
LINEAR = (nn.Linear, nn.QuantizedLinear)
# The same layer of all experts in one, (experts, outputs, inputs). mlx-lm has no DoRA for it.
EXPERTS = (SwitchLinear, QuantizedSwitchLinear)


def target_keys(network: Any, params: LoraParams) -> list[str]:
    """The paths inside a block of the layers to adapt, such as "self_attn.q_proj".

    `params.targets` is "qkv" (query, key and value, as the architecture names them), "all" (every
    linear layer, those of experts included), or last parts of the paths. Blocks of several kinds
    have several paths: each is adapted where it is. Raises UserError for what no adapted block has.
    """
    adapted = [_adaptable(block, params.kind) for block in _top_blocks(network, params)]
    paths = sorted({path for layers in adapted for path in layers})
    if params.targets == "all":
        return paths
    # A name may stand for several: of experts, and one that all share.
    found = {name: [path for path in paths if _last(path) == name] for name in map(_last, paths)}
    names = _query_key_value(found) if params.targets == "qkv" else params.targets
    missing = [name for name in names if name not in found]
    if missing or not names:
        raise UserError(
            f"{', '.join(missing) or 'none named'}, but the model's blocks have "
            f"{', '.join(sorted(found))}",
            where="train.lora.targets",
            remedy="name some of those, or take qkv or all",
        )
    return [path for name in names for path in found[name]]


def not_adaptable(network: Any, params: LoraParams) -> dict[str, str]:
    """What "all" leaves out: weights of the adapted blocks that no adapter exists for.

    Paths inside a block, each with the kind of layer that it belongs to, such as
    {"conv.conv": "Conv1d"}.
    """
    left: dict[str, str] = {}
    for block in _top_blocks(network, params) if params.targets == "all" else []:
        layers = _adaptable(block, params.kind)
        for path, module in block.named_modules():
            if path not in layers and any(map(_is_matrix, module.items())):
                left[path] = type(module).__name__
    return left


def _adaptable(block: Any, kind: str) -> dict[str, Any]:
    """The block's own layers that mlx-lm has an adapter of this kind for, by path."""
    kinds = LINEAR if kind == "dora" else (*LINEAR, *EXPERTS)
    return {path: module for path, module in block.named_modules() if isinstance(module, kinds)}


def _is_matrix(named: tuple[str, object]) -> bool:
    """Whether it is a weight that multiplies: not a norm's, a bias or another module."""
    name, value = named
    return isinstance(value, mx.array) and value.ndim > 1 and not name.startswith("_")


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
    """How many numbers will be trained: rank * (inputs + outputs) over all targets, each expert's.

    With DoRA one more for each output. Raises UserError for a rank that is wider than a layer.
    """
    keys = {_last(key) for key in target_keys(network, params)}
    shapes: list[tuple[int, int, int]] = []
    for block in _top_blocks(network, params):
        for path, module in _adaptable(block, params.kind).items():
            if _last(path) not in keys:
                continue
            experts, outputs, inputs = _shape(module)
            if params.rank > inputs:
                raise UserError(
                    f"{params.rank}, but {path} reads {inputs} numbers",
                    where="train.lora.rank",
                    remedy="lower it",
                )
            shapes.append((experts, outputs, inputs))
    lengths = sum(outputs for _, outputs, _ in shapes) if params.kind == "dora" else 0
    return params.rank * sum(n * (out + inputs) for n, out, inputs in shapes) + lengths


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
        "keys": target_keys(network, params),
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


def _shape(module: Any) -> tuple[int, int, int]:
    """Experts, outputs and inputs; a quantized weight packs 32 / bits inputs into one number."""
    *experts, outputs, inputs = module.weight.shape
    if isinstance(module, (nn.QuantizedLinear, QuantizedSwitchLinear)):
        inputs = inputs * 32 // module.bits
    return math.prod(experts), outputs, inputs

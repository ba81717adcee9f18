"""Writes what stands beside the fused weights: tokenizer, chat template, and a config that is true.

Where nothing has to change, the base model's files come along byte by byte. Python code never does:
an `auto_map`, which would send transformers to such code, is left out where transformers has the
architecture itself.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
from transformers import CONFIG_MAPPING

from blogtune.common.files import write_json
from blogtune.common.model_files import BESIDE_WEIGHTS
from blogtune.common.progress import say
from blogtune.models.loading import LoadedModel, dtype_name, is_quantized

# hf_quant_config.json tells of a quantization that mlx-lm has turned into its own.
LEFT_OUT = "hf_quant_config.json"
QUANTIZATION = ("quantization", "quantization_config")


def write_others(model: LoadedModel, folder: Path, dtype: mx.Dtype) -> None:
    """Copy the base model's other files into `folder`, and mend its config for these weights.

    `model` is the fused one, of the base model's folder and config; `dtype` is the float type that
    its weights are stored in.
    """
    for name in BESIDE_WEIGHTS - {LEFT_OUT}:
        if "/" not in name and (model.folder / name).is_file():
            shutil.copyfile(model.folder / name, folder / name)
    known = model.config.get("model_type") in CONFIG_MAPPING
    _mend(folder / "config.json", _true_config(model, dtype), known=known)
    _mend(folder / "tokenizer_config.json", {}, known=known)


def _true_config(model: LoadedModel, dtype: mx.Dtype) -> dict[str, Any]:
    """What the config must say of quantization and type; None: nothing."""
    now = model.config["quantization"] if is_quantized(model.network) else None
    types = dict.fromkeys(("dtype", "torch_dtype"), dtype_name(dtype))
    return {**dict.fromkeys(QUANTIZATION, now), **types}


def _mend(file: Path, true: dict[str, Any], *, known: bool) -> None:
    """Rewrite a JSON file where it says otherwise; a type that it does not name is not added."""
    if not file.exists():
        return
    given = json.loads(file.read_text(encoding="utf-8"))
    mended = {**given}
    for key, value in true.items():
        if value is None:
            mended.pop(key, None)
        elif key in given or key in QUANTIZATION:
            mended[key] = value
    if "auto_map" in given:
        if known:
            del mended["auto_map"]
        told = "left out: transformers has this architecture itself"
        other = "kept, but not the code that it names: transformers cannot load this model"
        say(f"{file.name}: auto_map {told if known else other}")
    if mended != given:
        write_json(file, mended)

"""A stranger's model folder is looked at before mlx-lm reads it: what is wrong names its file.

Nothing in it is ever run: neither Python code that a config names, nor another repository's.
"""

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from blogtune.common.errors import UserError

# Bytes of each number; a safetensors file has these types.
SIZES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 1),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 2),
    **dict.fromkeys(("I32", "U32", "F32"), 4),
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 8),
}
HEADER_LIMIT = 100_000_000
# Above it no size, count or token number of a model is: MLX's shapes have 32 bits.
LARGEST = 2**31 - 1
# A block has some weights of its own, so there are no more blocks than weights.
COUNTS_OF_BLOCKS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
AGAIN = "fetch the model again"
CONFIG, GENERATION = "config.json", "generation_config.json"
JSON_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def unloadable(file: Path, what: str, remedy: str = "") -> UserError:
    """One line about a file of a model folder."""
    return UserError(
        f"mlx-lm cannot load it: {file.name}: {what}", where=file.parent, remedy=remedy
    )


def check_files(folder: Path) -> None:
    """Raise UserError, with the file's name, for what no model folder has."""
    if not folder.is_dir():
        raise UserError("no model there", where=folder, remedy="run `dvc repro`")
    config = read_object(folder / CONFIG)
    for name in (GENERATION, *JSON_FILES):
        if (folder / name).exists():
            check_end(read_object(folder / name), folder / name)
    check_end(config, folder / CONFIG)
    if config.get("model_file") is not None:
        raise unloadable(
            folder / CONFIG,
            f"it names Python code to run (model_file: {str(config['model_file'])[:60]!r}), and "
            "none that comes with a model is run",
            "choose a model that mlx-lm knows",
        )
    weights = sum(check_safetensors(file) for file in sorted(folder.glob("*.safetensors")))
    _check_numbers(config, folder / CONFIG, weights)


def read_object(file: Path) -> dict[str, Any]:
    """A JSON file's object. Raises UserError where it is none."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise unloadable(file, "it is not there", "run `dvc repro`") from error
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:100]
        raise unloadable(file, f"not readable as JSON: {reason}") from error
    if not isinstance(value, dict):
        raise unloadable(file, "it holds no JSON object")
    return value


def check_end(values: dict[str, Any], file: Path) -> None:
    """Raise UserError for an `eos_token_id` that is no token number, or a list of such."""
    given = values.get("eos_token_id")
    ends = given if isinstance(given, list) else [given] if given is not None else []
    for end in ends:
        if isinstance(end, bool) or not isinstance(end, int) or not 0 <= end <= LARGEST:
            raise unloadable(
                file,
                f"eos_token_id is {str(given)[:60]!r}, no token's number and no list of them",
                "write the number of the token that ends an answer",
            )


def check_safetensors(file: Path) -> int:
    """How many arrays the file has. Raises UserError where its header is not true of it."""
    with file.open("rb") as opened:
        size = file.stat().st_size
        start = opened.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else HEADER_LIMIT
        if length > min(HEADER_LIMIT, size - 8):
            raise unloadable(file, "it is cut off, or no safetensors file", AGAIN)
        text = opened.read(length)
    try:
        header = json.loads(text)
        arrays = [value for name, value in header.items() if name != "__metadata__"]
        true = all(_is_true(value, size - 8 - length) for value in arrays)
        told = header.get("__metadata__") or {}
        true = true and all(isinstance(value, str) for value in dict(told).values())
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise unloadable(file, "its header is none of a safetensors file", AGAIN) from error
    if not true:
        raise unloadable(file, "its arrays are not where its header says", AGAIN)
    return len(arrays)


def _is_true(entry: dict[str, Any], size: int) -> bool:
    """Whether an array of this shape and type can lie at these offsets of `size` bytes."""
    begin, end = entry["data_offsets"]
    shape = entry["shape"]
    integers = all(type(each) is int and 0 <= each <= LARGEST for each in shape)
    if not integers or type(begin) is not int or type(end) is not int:
        return False
    return math.prod(shape) * SIZES[entry["dtype"]] == end - begin and 0 <= begin <= end <= size


def _check_numbers(config: dict[str, Any], file: Path, weights: int) -> None:
    for path, value in _numbers(config):
        many = path.rsplit(".", 1)[-1] in COUNTS_OF_BLOCKS and weights and abs(value) > weights
        if abs(value) > LARGEST or many:
            raise unloadable(file, f"{path[:60]} is {str(value)[:30]}, which no model's is")


def _numbers(value: object, path: str = "") -> Iterator[tuple[str, int]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _numbers(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from _numbers(inner, path)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield path, value

"""Loads a model folder with mlx-lm: network, tokenizer and, where wanted, an adapter."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx_lm.utils
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models.rope_utils import SuScaledRoPE

from blogtune.common.errors import UserError
from blogtune.models.files import CONFIG, check_files, unloadable

# What the config of an architecture calls the number of tokens that it reads.
CONTEXTS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
TOKENIZER_CONFIG = "tokenizer_config.json"


@dataclass(frozen=True)
class LoadedModel:
    """An mlx-lm network, its tokenizer wrapper, config.json's content, and where they lie."""

    network: Any
    tokenizer: Any
    config: dict[str, Any]
    folder: Path

    @property
    def context(self) -> int | None:
        """How many tokens it reads at most, where its config says so."""
        configs = (self.config, self.config.get("text_config") or {})
        found = (config.get(name) for config in configs for name in CONTEXTS)
        return next((value for value in found if isinstance(value, int) and value > 0), None)


def load_model(folder: Path, dtype: mx.Dtype | None, adapter: Path | None = None) -> LoadedModel:
    """Load the model in `folder`, computing in `dtype` (None: as stored), in evaluation mode.

    Raises UserError when the folder is not there or mlx-lm cannot make a model of it. No code that
    comes with a model is run.
    """
    check_files(folder)
    # What a model before this one left; and what this one takes stays in a Mac's memory.
    mx.clear_cache()
    mlx_lm.utils.maybe_set_recommended_wired_limit()
    with _readable(folder, CONFIG):
        network, config = mlx_lm.utils.load_model(folder, lazy=True, trust_remote_code=False)
        if dtype is not None:
            network.set_dtype(dtype)
    if adapter is not None:
        with _readable(folder, adapter.name):
            _load_adapter(network, adapter)
    if config.get("model_type") == "gemma2":
        _mend_gemma2_masks()
    with _readable(folder, CONFIG):
        materialize(network)
        _mend_long_ropes(network, config)
        network.eval()
        # A config that does not fit the weights is found out when they are used.
        mx.eval(network(mx.array([[0]])))
    return LoadedModel(network, _load_tokenizer(folder), config, folder)


def load_tokenizer(folder: Path) -> Any:
    """mlx-lm's tokenizer with every end token that the folder's configs name.

    Raises UserError where it cannot be loaded; nothing is asked, and no code of its own is run.
    """
    check_files(folder)
    return _load_tokenizer(folder)


def _load_tokenizer(folder: Path) -> Any:
    with _readable(folder, TOKENIZER_CONFIG):
        ends = mlx_lm.utils.load_config(folder).get("eos_token_id")
        tokenizer: Any = mlx_lm.utils.load_tokenizer(
            folder, {"trust_remote_code": False}, eos_token_ids=ends
        )
        # Settings of the wrong type are found out when they are used.
        tokenizer.decode(tokenizer.encode("Why?"), skip_special_tokens=True)
        return tokenizer


@contextmanager
def _readable(folder: Path, name: str) -> Generator[None]:
    """Whatever mlx-lm, transformers or MLX raise over a stranger's files becomes one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise unloadable(folder / name, reason) from error


def materialize(network: nn.Module) -> None:
    """Compute the weights, one after the other: so only one is there in two types at a time."""
    weights: dict[str, mx.array] = dict(tree_flatten(network.parameters()))
    for weight in weights.values():
        mx.eval(weight)


def storage_dtype(folder: Path) -> mx.Dtype:
    """The float type in which the folder's weights are stored (that of the largest).

    Of quantized weights, the type of their scales.
    """
    weights: list[mx.array] = []
    for file in sorted(folder.glob("*.safetensors")):
        weights.extend(_as_dict(mx.load(str(file))).values())
    floats = [weight for weight in weights if mx.issubdtype(weight.dtype, mx.floating)]
    return max(floats, key=lambda weight: weight.size).dtype


def dtype_name(dtype: mx.Dtype) -> str:
    """Such as "float16", as config.json and params.yaml have it."""
    return str(dtype).removeprefix("mlx.core.")


def is_quantized(network: nn.Module) -> bool:
    """Whether any layer holds quantized weights."""
    kinds = (nn.QuantizedLinear, nn.QuantizedEmbedding)
    return any(isinstance(module, kinds) for _, module in network.named_modules())


def _mend_gemma2_masks() -> None:
    """Let mlx-lm's Gemma 2 read prompts of unlike lengths at once.

    Its scores have an axis more than others' (query heads that share a key), its masks have not
    (0.32.2): a mask for each row of a batch fits by accident or not at all.
    """
    from mlx_lm.models.gemma2 import Attention

    attention = Attention.__call__
    if attention.__module__ != Attention.__module__:
        return

    def call(self: Any, x: mx.array, mask: mx.array | None = None, cache: Any = None) -> mx.array:
        if mask is not None and mask.ndim == 4 and self.repeats > 1:
            mask = mx.expand_dims(mask, 2)
        return attention(self, x, mask, cache)

    Attention.__call__ = call


class _LongRope(SuScaledRoPE):
    """mlx-lm's rotary embedding with the frequencies for short texts too, which it forgets.

    LongRoPE (Ding et al. 2024, arXiv 2402.13753) has two sets of them: the model saw the short one
    in texts up to the length that it was first trained on, and transformers takes it for these.
    """

    def __init__(self, rope: SuScaledRoPE, factors: list[float], base: float) -> None:
        nn.Module.__init__(self)
        self.original_max_position_embeddings = rope.original_max_position_embeddings
        self.dim = rope.dim
        self._scale, self._freqs = rope._scale, rope._freqs
        exponents = mx.arange(0, rope.dim, 2, dtype=mx.float32) / rope.dim
        self._short_freqs = mx.array(factors, dtype=mx.float32) * base**exponents

    def __call__(self, x: mx.array, offset: int | mx.array = 0) -> mx.array:
        # As in transformers, a batch is as long as its longest row.
        end = x.shape[-2] + mx.max(mx.array(offset))
        is_long = end > self.original_max_position_embeddings
        freqs = mx.where(is_long, self._freqs, self._short_freqs)
        scaled = x.at[..., : self.dim].multiply(self._scale)
        return mx.fast.rope(
            scaled, self.dim, traditional=False, base=None, scale=1.0, offset=offset, freqs=freqs
        )


def _mend_long_ropes(network: nn.Module, config: dict[str, Any]) -> None:
    factors = (config.get("rope_scaling") or {}).get("short_factor")
    if factors is None:
        return
    ropes = [(name, m) for name, m in network.named_modules() if isinstance(m, SuScaledRoPE)]
    base = config.get("rope_theta", 10000.0)
    mended = [(name, _LongRope(rope, factors, base)) for name, rope in ropes]
    network.update_modules(tree_unflatten(mended))


def _load_adapter(network: nn.Module, adapter: Path) -> None:
    from mlx_lm.tuner.utils import load_adapters

    load_adapters(network, str(adapter))


def _as_dict(loaded: object) -> dict[str, mx.array]:
    if not isinstance(loaded, dict):
        raise TypeError("a safetensors file holds named arrays")
    return loaded

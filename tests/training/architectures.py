"""Tiny random networks of mlx-lm's architectures, for what must hold in all of them."""

import importlib
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from blogtune.training.engine import Engine
from tests import tiny

# Every key that one of them reads; each takes what it knows.
CONFIG: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "layer_norm_eps": 1e-5,
    "layer_norm_epsilon": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "mlp_bias": False,
    # gpt2
    "n_ctx": 512,
    "n_embd": 64,
    "n_head": 4,
    "n_layer": 4,
    "n_positions": 512,
    # gpt_neox
    "rotary_pct": 0.25,
    "rotary_emb_base": 10000,
    # gemma2, gemma3
    "query_pre_attn_scalar": 16,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 5.0,
    "sliding_window": 6,
    "sliding_window_pattern": 2,
    # granite
    "logits_scaling": 8.0,
    "attention_multiplier": 0.25,
    "embedding_multiplier": 12.0,
    "residual_multiplier": 0.2,
}
# What is particular about each: a fused matrix, blocks behind a copied list, softcapped logits,
# windows, other names for everything, scaled logits, no norm before attention, an unused head.
NAMES = ("llama", "phi3", "qwen2", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "granite")
NAMES += ("olmo2", "helium")


def build(name: str, **changes: Any) -> Any:
    """A random network of that architecture, with parameters that are not yet computed."""
    mx.random.seed(0)
    module = importlib.import_module(f"mlx_lm.models.{name}")
    config = {**CONFIG, "model_type": name, **changes}
    return module.Model(module.ModelArgs.from_dict(config))


def engine(network: Any, **changes: Any) -> Engine:
    """With the tests' parameters but for the changes, and adapters that already say something."""
    made = Engine(network, tiny.train_params(**changes), tiny.ALONE)
    spread_adapters(network)
    return made


def spread_adapters(network: Any) -> None:
    """Give the adapters' second matrices, which start at 0, some values."""
    mx.random.seed(3)
    weights = [
        (name, 0.1 * mx.random.normal(array.shape))
        for name, array in tree_flatten(network.trainable_parameters())
    ]
    network.load_weights(weights, strict=False)

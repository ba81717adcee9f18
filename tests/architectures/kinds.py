"""Tiny random models of every kind of block: dense, fused, of experts, hybrid, latent attention."""

import importlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from tests import tiny
from tests.training.architectures import CONFIG

EXPERTS: dict[str, Any] = {
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
}
LATENT: dict[str, Any] = {
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "num_key_value_heads": 4,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 3,
}
YARN: dict[str, Any] = {
    "type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 64,
    "beta_fast": 32,
    "beta_slow": 1,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
}


@dataclass(frozen=True)
class Kind:
    """An mlx-lm architecture and what its config says besides `CONFIG`.

    `left_out` are endings of the names of matrices that mlx-lm has no LoRA for.
    """

    module: str
    config: dict[str, Any] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


KINDS = {
    "dense": Kind("llama", {"tie_word_embeddings": False}),
    "tied": Kind("llama"),
    "qkv fused": Kind("phi3"),
    "qwen3_moe": Kind("qwen3_moe", EXPERTS),
    "mixtral": Kind("mixtral", EXPERTS),
    "olmoe": Kind("olmoe", EXPERTS),
    "gpt_oss": Kind(
        "gpt_oss",
        {
            **EXPERTS,
            "rope_scaling": {
                "rope_type": "yarn",
                "factor": 32.0,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "original_max_position_embeddings": 64,
                "truncate": False,
            },
            "layer_types": ["sliding_attention", "full_attention"] * 2,
        },
    ),
    "lfm2": Kind(
        "lfm2",
        {
            "norm_eps": 1e-5,
            "conv_bias": False,
            "conv_L_cache": 3,
            "block_dim": 64,
            "block_multiple_of": 16,
            "block_ffn_dim_multiplier": 1.0,
            "block_auto_adjust_ff_dim": False,
            "block_ff_dim": 96,
            "full_attn_idxs": [1, 3],
        },
        ("conv.conv.weight",),
    ),
    "qwen3_next": Kind(
        "qwen3_next",
        {
            **EXPERTS,
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
            "linear_conv_kernel_dim": 4,
            "shared_expert_intermediate_size": 32,
            "partial_rotary_factor": 0.5,
            "full_attention_interval": 2,
        },
        ("linear_attn.conv1d.weight",),
    ),
    "deepseek_v2": Kind("deepseek_v2", {**LATENT, "rope_scaling": YARN}, ("mlp.gate.weight",)),
    "deepseek_v3": Kind(
        "deepseek_v3",
        {**LATENT, "rope_scaling": None},
        ("mlp.gate.weight", "embed_q.weight", "unembed_out.weight"),
    ),
}


def build(kind: Kind, vocabulary: int = 320) -> tuple[Any, dict[str, Any]]:
    """The random network, and its config."""
    mx.random.seed(0)
    module = importlib.import_module(f"mlx_lm.models.{kind.module}")
    config = {**CONFIG, "model_type": kind.module, "vocab_size": vocabulary, **kind.config}
    return module.Model(module.ModelArgs.from_dict(config)), config


def save(folder: Path, kind: Kind) -> Path:
    """Write the kind's folder with the toy tokenizer; return it."""
    folder.mkdir(parents=True)
    vocabulary = tiny.write_tokenizer(folder, tiny.CHATML)
    network, config = build(kind, vocabulary)
    network.set_dtype(mx.float32)
    weights = dict(tree_flatten(network.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    return folder

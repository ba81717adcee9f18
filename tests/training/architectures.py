"""Tiny random networks of mlx-lm's architectures, for what must hold in all of them."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from blogtune.models.head import Head, open_head
from blogtune.training.activation_cache import ActivationCache
from blogtune.training.examples import Batch, Example
from blogtune.training.fast.step import FastStep
from blogtune.training.loop import _optimizer
from blogtune.training.lora import apply_lora
from blogtune.training.params import TrainParams
from blogtune.training.recompute import Recomputed
from blogtune.training.setup import Setup
from blogtune.training.step import ReferenceStep, Step
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


@dataclass(frozen=True)
class Adapted:
    """A network with adapters that already say something, and the ways to take a step of it."""

    network: Any
    head: Head
    params: TrainParams

    def setup(self, examples: list[Example], validation: list[Example] | None = None) -> Setup:
        each = self.head, self.params, tiny.ALONE
        return Setup(self.network, *each, examples, validation or [])

    def cache(self, examples: Sequence[Example], size: int = 2) -> ActivationCache:
        depth = len(self.network.layers) - self.params.lora.layers
        made = ActivationCache(self.network, depth, tiny.ALONE)
        list(made.fill(examples, size, "memory", Path()))
        return made

    def reference(self, cache: ActivationCache | None = None) -> ReferenceStep:
        around = self.setup([]).adapted if self.params.gradient_checkpointing else ()
        return ReferenceStep(self.network, self.head, cache, dict.fromkeys(around, Recomputed))

    def fast(self, cache: ActivationCache | None = None, prefix: int = 0) -> FastStep:
        recompute, places = self.params.gradient_checkpointing, self.setup([]).adapted
        each = self.network, self.head, cache, places
        return FastStep(*each, prefix=prefix, recompute=recompute)

    def optimizer(self) -> Any:
        return _optimizer(self.params)


def adapted(network: Any, **changes: Any) -> Adapted:
    """With the tests' parameters but for the changes."""
    params = tiny.train_params(**{"dropout": 0.0, **changes})
    mx.random.seed(params.seed)
    apply_lora(network, params.lora)
    spread_adapters(network)
    return Adapted(network, open_head(network), params)


def computed(step: Step, batch: Batch) -> dict[str, Any]:
    """Loss and gradients by name."""
    loss, gradients = step.loss_and_gradients(batch)
    mx.eval(loss, gradients)
    return {"loss": loss, **gradients}


def assert_same(got: Mapping[str, Any], expected: Mapping[str, Any], tolerance: float) -> None:
    """The loss to `tolerance` of itself, gradients to that of the largest of them."""
    assert got.keys() == expected.keys()
    largest = max(float(mx.abs(v).max()) for k, v in expected.items() if k != "loss")
    assert largest > 0
    for name, value in expected.items():
        limit = tolerance * (abs(float(value)) if name == "loss" else largest)
        np.testing.assert_allclose(got[name], value, atol=limit, rtol=0, err_msg=name)


def spread_adapters(network: Any) -> None:
    """Give the adapters' second matrices, which start at 0, some values."""
    mx.random.seed(3)
    weights = [
        (name, 0.1 * mx.random.normal(array.shape))
        for name, array in tree_flatten(network.trainable_parameters())
    ]
    network.load_weights(weights, strict=False)

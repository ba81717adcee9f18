"""Tiny random models of seven families, as their makers ship them: config, weights, chat template.

The templates are written for these tests; what they make of a conversation is what each family's
own makes of it, with its quirks.
"""

import importlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optimizers
from mlx import nn
from mlx.utils import tree_flatten, tree_map_with_path

from blogtune.models.chat import open_chat
from blogtune.models.loading import load_model
from blogtune.training.examples import make_batch, make_examples
from tests import tiny
from tests.training.oracle import simple_loss

QUERY_KEY_VALUE = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
FUSED = ("self_attn.qkv_proj",)

SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "float16",
}

PHI = (
    "{% for m in messages %}"
    "{{ '<|' + m['role'] + '|>' + BREAK + m['content'] + '<|end|>' + BREAK }}"
    "{% endfor %}{{ '<|assistant|>' + BREAK if add_generation_prompt else eos_token }}"
)
PHI3 = PHI.replace("BREAK", r"'\n'")
PHI4 = PHI.replace("BREAK", "''")
# Without a date it asks the clock; the system part is there even where no message is.
HEADER = "<|start_header_id|>ROLE<|end_header_id|>\n\n"
LLAMA = (
    "{{ bos_token }}{% set told = messages[0]['role'] == 'system' %}"
    "{% set date = date_string if date_string is defined else strftime_now('%d %b %Y') %}"
    f"{{{{ '{HEADER.replace('ROLE', 'system')}Today Date: ' + date + '\n\n' }}}}"
    "{{ messages[0]['content'] if told else '' }}<|eot_id|>"
    "{% for m in (messages[1:] if told else messages) %}"
    f"{{{{ '{HEADER}'.replace('ROLE', m['role']) + m['content'] + '<|eot_id|>' }}}}"
    "{% endfor %}"
    f"{{{{ '{HEADER.replace('ROLE', 'assistant')}' if add_generation_prompt else '' }}}}"
)
QWEN2 = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
) + tiny.CHATML
# Told not to think, it opens the reply with an empty thought, which the finished turn is without.
QWEN3 = tiny.CHATML + (
    "{% if add_generation_prompt and enable_thinking is defined and not enable_thinking %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}"
)
# Refuses a system message, and with it every beginning but a user's.
ALTERNATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}"
)
MISTRAL = ALTERNATE + (
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
)
GEMMA2 = ALTERNATE + (
    "{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Family:
    """What a folder of that family is made of, and what is known about it.

    `outputs` are those of its query, key and value layers together, in one of its blocks, which
    read 64 numbers each. `prompt` is what its template makes of "Why?".
    """

    config: dict[str, Any]
    template: str
    specials: tuple[str, ...]
    bos: str | None
    eos: str
    keys: tuple[str, ...]
    outputs: int
    prompt: str
    end: str
    stops: frozenset[str]
    has_system_role: bool = True
    generation: dict[str, Any] = field(default_factory=dict)


PHI_SPECIALS = ("<|endoftext|>", "<s>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>")
FAMILIES = {
    "phi3": Family(
        config={
            "model_type": "phi3",
            "architectures": ["Phi3ForCausalLM"],
            "num_key_value_heads": 4,
            "tie_word_embeddings": False,
            # As Microsoft's repositories have it; transformers has the architecture itself.
            "auto_map": {
                "AutoConfig": "configuration_phi3.Phi3Config",
                "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM",
            },
        },
        template=PHI3,
        specials=PHI_SPECIALS,
        bos="<s>",
        eos="<|endoftext|>",
        keys=FUSED,
        outputs=64 + 64 + 64,
        prompt="<|user|>\nWhy?<|end|>\n<|assistant|>\n",
        end="<|end|>",
        stops=frozenset({"<|end|>", "<|endoftext|>"}),
    ),
    "llama": Family(
        config={
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 32.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        },
        template=LLAMA,
        specials=(
            *("<|begin_of_text|>", "<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"),
            *("<|start_header_id|>", "<|end_header_id|>"),
        ),
        bos="<|begin_of_text|>",
        eos="<|eot_id|>",
        keys=QUERY_KEY_VALUE,
        outputs=64 + 32 + 32,
        prompt=(
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
            "Today Date: 1 January 2026\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
            "Why?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
        ),
        end="<|eot_id|>",
        stops=frozenset({"<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"}),
        generation={"eos_token_id": [1, 2, 3]},
    ),
    "qwen2": Family(
        config={"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]},
        template=QWEN2,
        specials=("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        bos=None,
        eos="<|im_end|>",
        keys=QUERY_KEY_VALUE,
        outputs=64 + 32 + 32,
        prompt=(
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
            "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
        ),
        end="<|im_end|>",
        stops=frozenset({"<|im_end|>", "<|endoftext|>"}),
        generation={"eos_token_id": [2, 0]},
    ),
    "qwen3": Family(
        config={"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "head_dim": 32},
        template=QWEN3,
        specials=("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        bos=None,
        eos="<|im_end|>",
        keys=QUERY_KEY_VALUE,
        outputs=128 + 64 + 64,
        prompt=("<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"),
        end="<|im_end|>",
        stops=frozenset({"<|im_end|>", "<|endoftext|>"}),
        generation={"eos_token_id": [2, 0]},
    ),
    "mistral": Family(
        config={
            "model_type": "mistral",
            "architectures": ["MistralForCausalLM"],
            "sliding_window": None,
            "tie_word_embeddings": False,
        },
        template=MISTRAL,
        specials=("<unk>", "<s>", "</s>"),
        bos="<s>",
        eos="</s>",
        keys=QUERY_KEY_VALUE,
        outputs=64 + 32 + 32,
        prompt="<s>[INST] Why? [/INST]",
        end="</s>",
        stops=frozenset({"</s>"}),
        has_system_role=False,
    ),
    "gemma2": Family(
        config={
            "model_type": "gemma2",
            "architectures": ["Gemma2ForCausalLM"],
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_activation": "gelu_pytorch_tanh",
            "head_dim": 32,
            "query_pre_attn_scalar": 32,
            "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 5.0,
            "sliding_window": 4096,
        },
        template=GEMMA2,
        specials=("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
        bos="<bos>",
        eos="<eos>",
        keys=QUERY_KEY_VALUE,
        outputs=128 + 64 + 64,
        prompt="<bos><start_of_turn>user\nWhy?<end_of_turn>\n<start_of_turn>model\n",
        end="<end_of_turn>",
        stops=frozenset({"<eos>", "<end_of_turn>"}),
        has_system_role=False,
    ),
    "phi4-mini": Family(
        config={
            "model_type": "phi3",
            "architectures": ["Phi3ForCausalLM"],
            # Of 16 numbers a head 12 are turned, with other frequencies in texts above 64 tokens.
            "partial_rotary_factor": 0.75,
            "rope_scaling": {
                "type": "longrope",
                "short_factor": [1.0] * 6,
                "long_factor": [1.0, 1.2, 1.8, 3.0, 8.0, 20.0],
            },
            "original_max_position_embeddings": 64,
        },
        template=PHI4,
        specials=PHI_SPECIALS,
        bos="<|endoftext|>",
        eos="<|endoftext|>",
        keys=FUSED,
        outputs=64 + 32 + 32,
        prompt="<|user|>Why?<|end|><|assistant|>",
        end="<|end|>",
        stops=frozenset({"<|end|>", "<|endoftext|>"}),
    ),
}
# mlx-lm's module, where it is not called as the family is.
MODULES = {"mistral": "llama"}


def save(folder: Path, family: Family, **changes: Any) -> Path:
    """Write the family's float16 folder, with other values of its config if wanted; return it."""
    folder.mkdir(parents=True)
    vocabulary = tiny.write_tokenizer(
        folder, family.template, family.specials, eos=family.eos, bos=family.bos
    )
    tokens = {f"{name}_token_id": _number(family, name) for name in ("bos", "eos")}
    config = {**SHAPE, "vocab_size": vocabulary, "pad_token_id": 0, **tokens}
    config |= {**family.config, **changes}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    if family.generation:
        (folder / "generation_config.json").write_text(json.dumps(family.generation))
    _write_weights(folder, build(config))
    return folder


def teach(folder: Path) -> None:
    """Train all weights until the model knows most of `tiny.FACTS`."""
    model = load_model(folder, mx.float32)
    examples, _ = make_examples(tiny.facts(), open_chat(model.tokenizer), 128)
    batch = make_batch(examples)
    tokens = len(batch.targets)
    optimizer = optimizers.Adam(learning_rate=5e-3)
    gradients = nn.value_and_grad(model.network, lambda m: simple_loss(m, batch, tokens))
    for _ in range(100):
        loss, gradient = gradients(model.network)
        optimizer.update(model.network, gradient)
        mx.eval(model.network.parameters(), optimizer.state)
        if float(loss) < 0.3:
            break
    _write_weights(folder, model.network)


def _write_weights(folder: Path, network: Any) -> None:
    network.set_dtype(mx.float16)
    weights = dict(tree_flatten(network.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "pt"})


def build(config: dict[str, Any]) -> Any:
    """A random network: its norms and biases too, and an output layer that has preferences."""
    mx.random.seed(0)
    name = MODULES.get(config["model_type"], config["model_type"])
    module = importlib.import_module(f"mlx_lm.models.{name}")
    network = module.Model(module.ModelArgs.from_dict(config))

    def vary(path: str, array: mx.array) -> mx.array:
        if "lm_head" in path:
            return 4 * array
        return array + 0.2 * mx.random.normal(array.shape) if array.ndim == 1 else array

    network.update(tree_map_with_path(vary, network.parameters()))
    return network


def _number(family: Family, name: str) -> int | None:
    token = getattr(family, name)
    return None if token is None else family.specials.index(token)

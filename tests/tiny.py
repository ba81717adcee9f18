"""A tiny random Llama with a toy tokenizer, saved as mlx-lm and transformers would find it."""

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optimizers
import pytest
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.models.llama import Model, ModelArgs
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from blogtune.common.records import Pair
from blogtune.models.chat import open_chat
from blogtune.models.loading import load_model
from blogtune.runtime.device import device
from blogtune.training.examples import Example, make_batch, make_examples
from blogtune.training.params import TrainParams
from tests.training.oracle import simple_loss

WIDTH, BLOCKS, HEADS, KEY_HEADS = 64, 4, 4, 2
START, END, STOP = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Answers of unlike lengths, so that a batch pads and a limit cuts some of them only.
FACTS = {
    "What is the rank?": "Eight.",
    "What is the scale of an adapter?": "A factor on its output.",
    "Who judges?": "Another model.",
    "Which blocks are adapted, and why those?": "The top ones, because they are the cheapest.",
    "When does training stop?": "When all of its steps are done.",
    "Where is the seed?": "In the parameters.",
}

# Texts as tokens, of unlike lengths, that begin with two tokens in common.
EXAMPLES = [
    Example("a", [1, 5, 6, 7], [8, 9, 2]),
    Example("b", [1, 5, 6], [10, 2]),
    Example("c", [1, 5, 6, 7, 20, 21, 33, 40, 41], [8, 9, 3, 4, 2]),
]

# Of tests whose subject is computed so on a CPU only.
A_CPUS_WAY = pytest.mark.skipif(not device().is_cpu, reason="a GPU has another way")

# The group of a process that works alone.
ALONE = mx.distributed.init()


@dataclass(frozen=True)
class Member:
    """A group as one of its processes sees it, as long as nothing is sent."""

    number: int
    of: int

    def rank(self) -> int:
        return self.number

    def size(self) -> int:
        return self.of


def pair(name: str, question: str, answer: str, post: str | None = None) -> Pair:
    return Pair(id=name, post=post, question=question, answer=answer)


def facts() -> list[Pair]:
    return [pair(f"f{row}", *fact) for row, fact in enumerate(FACTS.items())]


def network(blocks: int = BLOCKS, *, tied: bool = True, seed: int = 0, **changes: Any) -> Model:
    """A random Llama, its output layer tied to the embedding or apart."""
    mx.random.seed(seed)
    return Model(ModelArgs.from_dict({**_config(blocks, tied), **changes}))


def save_model(folder: Path, *, seed: int = 0, template: str | None = CHATML) -> Path:
    """Write a float16 model folder; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    model = network(seed=seed)
    model.set_dtype(mx.float16)
    write_weights(folder, model)
    write_tokenizer(folder, template)
    return folder


def write_weights(folder: Path, model: Any, **config: Any) -> None:
    weights = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "pt"})
    values = {**_config(BLOCKS, True), "architectures": ["LlamaForCausalLM"], **config}
    (folder / "config.json").write_text(json.dumps(values, indent=2))


def write_tokenizer(
    folder: Path,
    template: str | None,
    specials: tuple[str, ...] = (STOP, START, END),
    *,
    eos: str = STOP,
    bos: str | None = None,
) -> int:
    """A byte-level BPE learned from the facts, with a chat template unless it is None.

    The special tokens have the numbers from 0 on. Returns the size of the vocabulary.
    """
    tokenizer = _tokenizer(specials)
    tokenizer.save(str(folder / "tokenizer.json"))
    values: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": eos,
        "pad_token": specials[0],
        "additional_special_tokens": [each for each in specials if each not in (eos, bos)],
        "clean_up_tokenization_spaces": False,
        "model_max_length": 512,
    }
    if bos is not None:
        values["bos_token"] = bos
    if template is not None:
        values["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(values, indent=2))
    return tokenizer.get_vocab_size()


def save_taught(base: Path, folder: Path) -> None:
    """Write `base` after training all of its weights until it knows the facts by heart."""
    model = load_model(base, mx.float32)
    examples, _ = make_examples(facts(), open_chat(model.tokenizer), 128)
    batch = make_batch(examples)
    tokens = len(batch.targets)
    optimizer = optimizers.Adam(learning_rate=3e-3)
    gradients = nn.value_and_grad(model.network, lambda m: simple_loss(m, batch, tokens))
    loss = mx.array(math.inf)
    while float(loss) > 0.01:
        loss, gradient = gradients(model.network)
        optimizer.update(model.network, gradient)
        mx.eval(model.network.parameters(), optimizer.state)
    model.network.set_dtype(mx.float16)
    shutil.copytree(base, folder)
    write_weights(folder, model.network)


def train_params(**changes: Any) -> TrainParams:
    """`train` of the tests; keys of `lora` may stand among the changes."""
    lora: dict[str, Any] = {"kind": "lora", "layers": 2, "targets": "qkv", "rank": 4}
    lora.update({"scale": 5.0, "dropout": 0.1})
    values: dict[str, Any] = {
        "seed": 7,
        "iterations": 12,
        "batch_pairs": 3,
        "accumulate_batches": 1,
        "max_sequence_tokens": 128,
        "evaluate_every": 4,
        "validation_pairs": 0,
        "patience": None,
        "save_every": 6,
        "keep_checkpoints": 2,
        "optimizer": "adam",
        "weight_decay": 0.0,
        "learning_rate": 1e-2,
        "schedule": "cosine",
        "warmup_iterations": 2,
        "clip_norm": None,
        "gradient_checkpointing": False,
        "activation_cache": "auto",
    }
    lora.update({key: changes.pop(key) for key in list(changes) if key in lora})
    return TrainParams.model_validate({**values, **changes, "lora": lora})


def _config(blocks: int, tied: bool) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": blocks,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_HEADS,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": 512,
        "vocab_size": _tokenizer().get_vocab_size(),
        "tie_word_embeddings": tied,
    }


def _tokenizer(specials: tuple[str, ...] = (STOP, START, END)) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*FACTS, *FACTS.values()], trainer)
    return tokenizer

"""What the hub holds for the reference setting, small: Phi-3's files and the blog's questions.

Names, kinds and quirks of the files are those of microsoft/Phi-3-mini-4k-instruct; its weights are
random, of 10 blocks, and know a few answers by heart. The data set's columns are the reference's;
its rows are posts of the bundled blog.
"""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pyarrow as pa
import pyarrow.parquet as pq
from mlx.utils import tree_flatten
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers

from blogtune.models.loading import load_model
from tests import tiny
from tests.architectures.families import FAMILIES, SHAPE, build, teach
from tests.integration.project import ROOT

MODEL, DATA = "microsoft/Phi-3-mini-4k-instruct", "didierlopes/my-blog-qa-dataset"
COLUMNS = ("title", "conversation", "context", "url", "date")
# So many turns of each of its ten posts leave one test question a post.
POSTS, TURNS = "data/raw/lora.jsonl", 20
BLOCKS = 10
# Behind the vocabulary, in the maker's order.
ADDED = (
    *("<|endoftext|>", "<|assistant|>", "<|placeholder1|>", "<|placeholder2|>", "<|placeholder3|>"),
    *("<|placeholder4|>", "<|system|>", "<|end|>", "<|placeholder5|>", "<|placeholder6|>"),
    "<|user|>",
)
STOPS = ("<|endoftext|>", "<|assistant|>", "<|end|>")
# What a model is loaded from, and what lies beside it on the hub: a card, the maker's own code.
NEEDED = {
    "added_tokens.json",
    "config.json",
    "generation_config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
}
NOT_NEEDED = (
    *(".gitattributes", "CODE_OF_CONDUCT.md", "LICENSE", "README.md", "SECURITY.md"),
    *("configuration_phi3.py", "modeling_phi3.py", "sample_finetune.py"),
)
TABLE = "data/train-00000-of-00001.parquet"


def write_model(folder: Path) -> Path:
    """Fill the folder as the model's repository; return it."""
    folder.mkdir(parents=True)
    tokenizer = _tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    numbers = {token: tokenizer.token_to_id(token) for token in ADDED}
    config = _config(tokenizer.get_vocab_size(), numbers["<|endoftext|>"])
    stops = [numbers[token] for token in STOPS]
    for name, values in {
        "config": config,
        "generation_config": {"eos_token_id": stops, "pad_token_id": stops[0], "bos_token_id": 1},
        "added_tokens": numbers,
        "special_tokens_map": {"bos_token": "<s>", "eos_token": STOPS[0], "pad_token": STOPS[0]},
        "tokenizer_config": _tokenizer_config(tokenizer),
    }.items():
        (folder / f"{name}.json").write_text(json.dumps(values, indent=2))
    network = build(config)
    network.save_weights(str(folder / "model.safetensors"))
    teach(folder)
    _write_shards(folder)
    # The maker's vocabulary once more, which nobody reads who has tokenizer.json.
    for name in ("tokenizer.model", *NOT_NEEDED):
        (folder / name).write_text("import os")
    return folder


def write_data(folder: Path) -> Path:
    """Fill the folder as the data set's repository; return it."""
    (folder / TABLE).parent.mkdir(parents=True)
    rows = [json.loads(line) for line in (ROOT / POSTS).read_text().splitlines()]
    for row in rows:
        row["conversation"] = row["conversation"][:TURNS]
    table = pa.Table.from_pylist([{name: row[name] for name in COLUMNS} for row in rows])
    pq.write_table(table, folder / TABLE)
    for name in (".gitattributes", "README.md"):
        (folder / name).write_text("not needed")
    return folder


def _config(vocabulary: int, end: int) -> dict[str, Any]:
    """Of the maker's config.json all but the sizes."""
    return {
        **SHAPE,
        **FAMILIES["phi3"].config,
        "vocab_size": vocabulary,
        "num_hidden_layers": BLOCKS,
        "max_position_embeddings": 4096,
        "original_max_position_embeddings": 4096,
        "rope_scaling": None,
        "sliding_window": 2047,
        "attention_bias": False,
        "bos_token_id": 1,
        "eos_token_id": end,
        "pad_token_id": end,
        "torch_dtype": "bfloat16",
    }


def _tokenizer() -> Tokenizer:
    """Llama's kind: a space before every piece of text, bytes for what is unknown.

    The added tokens swallow the white space behind them, which is the template's line breaks.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    space = "\u2581"
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend(space), normalizers.Replace(" ", space)]
    )
    plain = [decoders.Replace(space, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*plain, decoders.Strip(" ", 1, 0)])
    first = ["<unk>", "<s>", "</s>"]
    pieces = [*first, *(f"<0x{byte:02X}>" for byte in range(256))]
    words = [*tiny.FACTS, *tiny.FACTS.values(), (ROOT / POSTS).read_text()]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=pieces, show_progress=False)
    tokenizer.train_from_iterator((word for text in words for word in text.split()), trainer)
    # The pieces for bytes are no special tokens, though they were trained as such.
    values = json.loads(tokenizer.to_str())
    values["added_tokens"] = [each for each in values["added_tokens"] if each["content"] in first]
    tokenizer = Tokenizer.from_str(json.dumps(values))
    tokenizer.add_special_tokens(
        [AddedToken(token, rstrip=True, normalized=False, special=True) for token in ADDED]
    )
    return tokenizer


def _tokenizer_config(tokenizer: Tokenizer) -> dict[str, Any]:
    added = {
        str(number): {name: getattr(token, name) for name in ("content", "rstrip", "special")}
        for number, token in tokenizer.get_added_tokens_decoder().items()
    }
    return {
        "add_bos_token": False,
        "add_eos_token": False,
        "added_tokens_decoder": added,
        "bos_token": "<s>",
        "chat_template": FAMILIES["phi3"].template,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|endoftext|>",
        "legacy": False,
        "model_max_length": 4096,
        "pad_token": "<|endoftext|>",
        "padding_side": "left",
        "tokenizer_class": "LlamaTokenizer",
        "unk_token": "<unk>",
        "use_default_system_prompt": False,
    }


def _write_shards(folder: Path) -> None:
    """Two files of weights with their index, in place of one."""
    network = load_model(folder, mx.bfloat16).network
    weights = dict(tree_flatten(network.parameters()))
    names = sorted(weights)
    index: dict[str, str] = {}
    for number, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        shard = {name: weights[name] for name in part}
        mx.save_safetensors(str(folder / file), shard, {"format": "pt"})
        index.update(dict.fromkeys(part, file))
    size = sum(array.nbytes for array in weights.values())
    values = {"metadata": {"total_size": size}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(values))
    (folder / "model.safetensors").unlink()

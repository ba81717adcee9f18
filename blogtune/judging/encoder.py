"""A sentence encoder of BERT's architecture (MiniLM and its kin) on MLX.

Token, position and segment embeddings, then blocks of attention and a feed-forward layer, each
followed by a layer norm (Devlin et al. 2018, arXiv 1810.04805), then the mean over the tokens, or
the first token, as the model's own 1_Pooling/config.json says,
scaled to length 1 (Reimers and Gurevych 2019, arXiv 1908.10084).
"""

import json
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from blogtune.common.errors import UserError
from blogtune.common.progress import progress
from blogtune.cpu.cores import blas_threads
from blogtune.runtime.device import device, padded

Vectors = npt.NDArray[np.float64]
# Texts at once: few, so that what is computed of them stays in the processor's cache.
BATCH = 8
# Threads at most: each holds what it computes.
MOST = 4
# How vocabularies mark what they have no piece for, and a piece inside a word (WordPiece).
UNKNOWN = frozenset({"[UNK]", "<unk>"})
INSIDE = "##"


@dataclass(frozen=True)
class Embedded:
    """Unit vectors (texts x width), and which texts were longer than the encoder reads."""

    vectors: Vectors
    truncated: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Reading:
    """Shares of the texts' tokens: without a word piece, and single letters of a longer word."""

    unknown: float
    spelled: float


class Encoder:
    """Weights and tokenizer of a sentence-transformers folder with mean or CLS pooling."""

    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config["model_type"] != "bert" or config["hidden_act"] != "gelu":
            raise UserError(
                "not a BERT encoder", where=folder, remedy="judge.kind: embedding needs one"
            )
        self.pooling = _pooling(folder)
        self.blocks = int(config["num_hidden_layers"])
        self.heads = int(config["num_attention_heads"])
        self.epsilon = float(config["layer_norm_eps"])
        self.limit = _token_limit(folder, int(config["max_position_embeddings"]))
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(self.limit)
        self.weights = _load_weights(folder)
        # Threads may share what is computed, and nothing that is not.
        mx.eval(self.weights)

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Embed the texts, in order; of each the first `limit` word pieces are read."""
        encodings = self.tokenizer.encode_batch(list(texts))
        truncated = np.array([bool(encoding.overflowing) for encoding in encodings])
        tokens = [encoding.ids for encoding in encodings]
        order = sorted(range(len(tokens)), key=lambda index: len(tokens[index]))
        width = self.weights["embeddings.word_embeddings.weight"].shape[1]
        vectors = np.zeros((len(tokens), width))
        batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
        with progress(desc="embed", unit="texts", total=len(order)) as bar, _mapping() as mapped:
            embedded = mapped(self._vectors, [[tokens[i] for i in batch] for batch in batches])
            for batch, found in zip(batches, embedded, strict=True):
                vectors[batch] = found
                bar.update(len(batch))
        return Embedded(vectors, truncated)

    def reading(self, texts: Sequence[str]) -> Reading:
        """Count how the texts' beginnings that are read fall into tokens."""
        encodings = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        tokens = [token for encoding in encodings for token in encoding.tokens]
        following = [*tokens, ""][1:]
        unknown = sum(token in UNKNOWN for token in tokens)
        spelled = sum(
            _is_letter(token) and (token.startswith(INSIDE) or after.startswith(INSIDE))
            for token, after in zip(tokens, following, strict=True)
        )
        count = max(1, len(tokens))
        return Reading(unknown / count, spelled / count)

    def _vectors(self, tokens: Sequence[Sequence[int]]) -> Vectors:
        positions = self.weights["embeddings.position_embeddings.weight"].shape[0]
        length = min(padded(max(map(len, tokens))), positions)
        ids = np.zeros((len(tokens), length), np.int32)
        mask = np.zeros((len(tokens), length), np.float32)
        for row, sequence in enumerate(tokens):
            ids[row, : len(sequence)] = sequence
            mask[row, : len(sequence)] = 1.0
        hidden = self._hidden(mx.array(ids), mx.array(mask))
        kept = mx.array(mask)[:, :, None]
        pooled = (
            hidden[:, 0]
            if self.pooling == "cls"
            else (hidden * kept).sum(axis=1) / kept.sum(axis=1)
        )
        vectors = np.asarray(pooled).astype(np.float64)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def _hidden(self, ids: mx.array, mask: mx.array) -> mx.array:
        weights = self.weights
        x = (
            weights["embeddings.word_embeddings.weight"][ids]
            + weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
            + weights["embeddings.token_type_embeddings.weight"][0]
        )
        x = self._norm("embeddings.LayerNorm", x)
        # Added to the attention scores: padding gets no weight.
        bias = ((mask - 1.0) * 1e9)[:, None, None, :]
        for block in range(self.blocks):
            x = self._block(f"encoder.layer.{block}", x, bias)
        return x

    def _block(self, name: str, x: mx.array, bias: mx.array) -> mx.array:
        attended = self._attention(f"{name}.attention.self", x, bias)
        attended = self._linear(f"{name}.attention.output.dense", attended)
        x = self._norm(f"{name}.attention.output.LayerNorm", x + attended)
        wide = nn.gelu(self._linear(f"{name}.intermediate.dense", x))
        narrow = self._linear(f"{name}.output.dense", wide)
        return self._norm(f"{name}.output.LayerNorm", x + narrow)

    def _attention(self, name: str, x: mx.array, bias: mx.array) -> mx.array:
        batch, length, width = x.shape
        size = width // self.heads

        def heads(part: str) -> mx.array:
            y = self._linear(f"{name}.{part}", x)
            return y.reshape(batch, length, self.heads, size).transpose(0, 2, 1, 3)

        attention = mx.fast.scaled_dot_product_attention
        y = attention(heads("query"), heads("key"), heads("value"), scale=size**-0.5, mask=bias)
        return y.transpose(0, 2, 1, 3).reshape(batch, length, width)

    def _linear(self, name: str, x: mx.array) -> mx.array:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def _norm(self, name: str, x: mx.array) -> mx.array:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return mx.fast.layer_norm(x, weight, bias, self.epsilon)


@contextmanager
def _mapping() -> Generator[Callable[..., Iterable[Vectors]]]:
    """A `map` whose calls all cores share: within one only its matrix products would be."""
    cores = min(MOST, device().cores)
    if cores == 1:
        yield map
        return
    with blas_threads(1), ThreadPoolExecutor(cores) as pool:
        yield pool.map


def _load_weights(folder: Path) -> dict[str, mx.array]:
    loaded = mx.load(str(folder / "model.safetensors"))
    assert isinstance(loaded, dict)
    return {
        name.removeprefix("bert."): array.astype(mx.float32)
        for name, array in loaded.items()
        if array.dtype in (mx.float32, mx.float16, mx.bfloat16)
    }


def _is_letter(token: str) -> bool:
    piece = token.removeprefix(INSIDE)
    return len(piece) == 1 and piece.isalpha()


def _pooling(folder: Path) -> Literal["cls", "mean"]:
    """How the model makes a vector of its tokens; raise UserError where it is not done here.

    Absent files mean what they mean to sentence-transformers: mean pooling, and nothing behind it.
    """
    modules = folder / "modules.json"
    if modules.exists():
        kinds = [
            str(each["type"]).rsplit(".", 1)[-1]
            for each in json.loads(modules.read_text(encoding="utf-8"))
        ]
        # Vectors are scaled to length 1 anyway.
        if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
            raise _refused(modules, f"modules {', '.join(kinds)}")
    prompts = folder / "config_sentence_transformers.json"
    if prompts.exists():
        name = json.loads(prompts.read_text(encoding="utf-8")).get("default_prompt_name")
        if name is not None:
            raise _refused(prompts, f"a prompt ({name}) before each text")
    file = folder / "1_Pooling" / "config.json"
    if not file.exists():
        return "mean"
    config = json.loads(file.read_text(encoding="utf-8"))
    modes = [
        key.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
        for key, value in config.items()
        if key.startswith("pooling_mode_") and value is True
    ] or [config.get("pooling_mode", "mean")]
    if modes == ["cls"]:
        return "cls"
    if modes == ["mean"]:
        return "mean"
    raise _refused(file, f"pooling {'+'.join(map(str, modes))}")


def _refused(file: Path, what: str) -> UserError:
    remedy = "take an encoder with mean or CLS pooling and nothing behind it"
    return UserError(f"{what}: not computed here", where=file, remedy=remedy)


def _token_limit(folder: Path, positions: int) -> int:
    """How many word pieces the encoder was made to read: sentence-transformers' own setting."""
    file = folder / "sentence_bert_config.json"
    if not file.exists():
        return positions
    return int(json.loads(file.read_text(encoding="utf-8"))["max_seq_length"])

"""The fused model as Ollama is to get it: refused here, before any work, where it cannot."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from blogtune.common.errors import UserError
from blogtune.common.files import write_json
from blogtune.common.model_files import INDEX, is_of_model
from blogtune.exporting.template import OllamaTemplate, adds_start, ollama_template
from blogtune.models.chat import Chat, open_chat
from blogtune.models.loading import load_tokenizer

# What Ollama 0.12.11 makes a model of text from (convert/convert.go), and a test took there.
ARCHITECTURES = (
    *("LlamaForCausalLM", "Qwen2ForCausalLM", "Phi3ForCausalLM"),
    *("GemmaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM"),
)
# Ollama's defaults are a temperature of 0.8 and a penalty of repeated tokens.
GREEDY = {"temperature": 0.0, "repeat_penalty": 1.0}
# What of a model folder Ollama reads: weights, vocabulary, configuration.
SENTENCEPIECE = "tokenizer.model"
READ = (".safetensors", ".json", ".model")
CONFIG = "config.json"
# SentencePiece's.
SPACE = "\u2581"


@dataclass(frozen=True)
class Source:
    """A model folder with its chat, that chat's template and the config, both for Ollama."""

    folder: Path
    chat: Chat
    template: OllamaTemplate
    config: dict[str, Any]

    @property
    def context(self) -> int | None:
        """How many tokens the model reads."""
        return self.config.get("max_position_embeddings")

    @contextmanager
    def files(self) -> Generator[list[Path]]:
        """The files that Ollama reads, by name; config.json as it reads it right."""
        named = (file for file in self.folder.iterdir() if is_of_model(file.name))
        found = {file for file in named if file.suffix in READ and file.name != INDEX}
        with TemporaryDirectory() as folder:
            config = Path(folder) / CONFIG
            write_json(config, self.config)
            kept = found - {self.folder / CONFIG}
            yield sorted({*kept, config}, key=lambda file: file.name)

    @property
    def parameters(self) -> dict[str, Any]:
        """What the model is registered with: greedy, as its answers were measured."""
        return {**GREEDY, "stop": self.template.stops}


def open_source(folder: Path) -> Source:
    """Look at the model in `folder`. Raises UserError where Ollama cannot import it."""
    config = _read(folder / CONFIG)
    if "quantization" in config:
        raise UserError(
            "its weights are quantized by MLX, which Ollama cannot import",
            where=folder,
            remedy="set fuse.dequantize: true and run `dvc repro`; export.ollama.quantize then "
            "makes it small",
        )
    (architecture, *_) = config.get("architectures") or ["none"]
    if architecture not in ARCHITECTURES:
        raise UserError(
            f"Ollama imports {', '.join(ARCHITECTURES)}, but not {architecture}",
            where=folder,
            remedy="to export, choose a base model of one of these",
        )
    if architecture == "Phi3ForCausalLM":
        config = _phi3(config, folder)
    # With every end that the model was measured with: generation_config.json may name more.
    chat = open_chat(load_tokenizer(folder))
    _check_vocabulary(chat, folder, architecture)
    start = adds_start(_read(folder / "tokenizer_config.json"))
    return Source(folder, chat, ollama_template(chat, adds_start=start), config)


def _check_vocabulary(chat: Chat, folder: Path, architecture: str) -> None:
    """Raise UserError for a vocabulary that Ollama reads otherwise.

    It imports SentencePiece without add_dummy_prefix and writes a space before every text behind a
    special token, where Gemma has none. Gemma 3 has an engine of its own, for SentencePiece alone.
    """
    there = (folder / SENTENCEPIECE).exists()
    if architecture == "Gemma3ForCausalLM" and not there:
        raise UserError(
            f"has no {SENTENCEPIECE}, which Ollama needs to read a Gemma 3",
            where=folder,
            remedy="to export, choose a base model that has one",
        )
    if architecture == "Gemma3ForCausalLM" or not there:
        return
    names = chat.tokenizer.convert_ids_to_tokens
    end = names(chat.end)
    (*_, first) = names(chat.tokenizer.encode(f"{end}a", add_special_tokens=False))[:2]
    if not first.startswith(SPACE):
        raise UserError(
            "its SentencePiece vocabulary puts no space before a text, but Ollama 0.12.11 does, so "
            "the tokens differ",
            where=folder,
            remedy="to export, choose another base model",
        )


def _phi3(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The config of a Phi-3 with LongRoPE's factors, which Ollama writes even where none are.

    A table of none does not load (convert_phi3.go), and factors of 1 change no frequency.
    Raises UserError where a part of each head is not turned: Ollama turns all of it.
    """
    part = config.get("partial_rotary_factor") or 1.0
    if part != 1.0:
        raise UserError(
            f"rotates only {part:g} of each head (partial_rotary_factor, as Phi-4-mini), which "
            "Ollama 0.12.11 does not import",
            where=folder,
            remedy="to export, choose another base model",
        )
    if config.get("rope_scaling"):
        return config
    pairs = config["hidden_size"] // config["num_attention_heads"] // 2
    ones = {name: [1.0] * pairs for name in ("short_factor", "long_factor")}
    return {**config, "rope_scaling": {"type": "", **ones}}


def _read(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise UserError("not there", where=file, remedy="run `dvc repro`") from error
    except ValueError as error:
        raise UserError("not readable as JSON", where=file, remedy="run `dvc repro`") from error

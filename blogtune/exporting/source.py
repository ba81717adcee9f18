"""The fused model as Ollama is to get it: refused here, before any work, where it cannot."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_lm.utils import load_tokenizer

from blogtune.errors import UserError
from blogtune.exporting.template import OllamaTemplate, adds_start, ollama_template
from blogtune.models.chat import Chat, open_chat

# What Ollama 0.12.11 makes a model of text from (convert/convert.go).
ARCHITECTURES = (
    *("LlamaForCausalLM", "MixtralForCausalLM", "Qwen2ForCausalLM", "Phi3ForCausalLM"),
    *("GemmaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM", "CohereForCausalLM"),
)
# Ollama's defaults are a temperature of 0.8 and a penalty of repeated tokens.
GREEDY = {"temperature": 0.0, "repeat_penalty": 1.0}
# What of a model folder Ollama reads: weights, vocabulary, configuration.
READ = ("*.safetensors", "*.json", "tokenizer.model")
NOT_READ = ("*.safetensors.index.json", "source.json")


@dataclass(frozen=True)
class Source:
    """A model folder with its chat, and that chat's template for Ollama."""

    folder: Path
    chat: Chat
    template: OllamaTemplate
    context: int | None

    @property
    def files(self) -> list[Path]:
        """The files that Ollama reads, by name."""
        skipped = {file for pattern in NOT_READ for file in self.folder.glob(pattern)}
        found = {file for pattern in READ for file in self.folder.glob(pattern)}
        return sorted(found - skipped)

    @property
    def parameters(self) -> dict[str, Any]:
        """What the model is registered with: greedy, as its answers were measured."""
        return {**GREEDY, "stop": self.template.stops}


def open_source(folder: Path) -> Source:
    """Look at the model in `folder`. Raises UserError where Ollama cannot import it."""
    config = _read(folder / "config.json")
    if "quantization" in config:
        raise UserError(
            f"{folder}: its weights are quantized by MLX, which Ollama cannot import; set "
            "fuse.dequantize: true and run `dvc repro`, then export.ollama.quantize makes it small"
        )
    (architecture, *_) = config.get("architectures") or ["none"]
    if architecture not in ARCHITECTURES:
        raise UserError(
            f"{folder}: architecture {architecture} is none that Ollama imports "
            f"({', '.join(ARCHITECTURES)}); choose a base of one of these to export it"
        )
    chat = open_chat(load_tokenizer(folder))
    start = adds_start(_read(folder / "tokenizer_config.json"))
    context = config.get("max_position_embeddings")
    return Source(folder, chat, ollama_template(chat, adds_start=start), context)


def _read(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise UserError(f"{file}: not there; run `dvc repro`") from error
    except ValueError as error:
        raise UserError(f"{file}: not readable as JSON; run `dvc repro`") from error

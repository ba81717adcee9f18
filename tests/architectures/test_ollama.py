"""Each family on the real Ollama server: it computes what MLX computes, or is refused at once.

The weights are small and random, then taught a few texts, so that nearly every token leads clearly:
what the server chooses greedily is what the fused model would choose, or the two are not the same.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from blogtune.answering.params import AnswerParams
from blogtune.common.errors import UserError
from blogtune.exporting.answers import Agreement, agreement, ask_all
from blogtune.exporting.server import OllamaServer, Reply
from blogtune.exporting.source import Source, open_source
from blogtune.models.loading import load_model
from tests.architectures.conftest import PAIRS, Trained
from tests.architectures.families import FAMILIES, save, teach
from tests.architectures.sentencepieces import save_pieces
from tests.exporting.build import ollama_params
from tests.integration.ollama import OllamaServer as Started
from tests.integration.ollama import serve

pytestmark = pytest.mark.slow
FEW = AnswerParams(split="test", max_tokens=24, batch_questions=4)
# The least share of tokens that both choose, as the default's own export has it.
LEAST = 0.98
IMPORTED = ["phi3", "llama", "qwen2", "gemma2"]
# Shapes of an imported architecture that its converter treats otherwise.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma": ("gemma2", {"model_type": "gemma", "architectures": ["GemmaForCausalLM"]}),
    # LongRoPE of which the server takes the short set, as in texts that the model saw first.
    "phi3, 128k": (
        "phi3",
        {
            "max_position_embeddings": 8192,
            "original_max_position_embeddings": 4096,
            "rope_scaling": {
                "type": "longrope",
                "short_factor": [1.0, 1.1, 1.2, 1.5, 2.0, 3.0, 4.0, 5.0],
                "long_factor": [1.0, 1.2, 1.8, 3.0, 8.0, 20.0, 30.0, 40.0],
            },
        },
    ),
}
# One block of seven sees the whole text; the others' window is wider than the texts here, because
# the server's reaches one token further back.
GEMMA3 = {
    "model_type": "gemma3_text",
    "architectures": ["Gemma3ForCausalLM"],
    "num_hidden_layers": 7,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
    "rope_theta": 1e6,
    "rope_local_base_freq": 1e4,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
}
SWALLOW = {"<|user|>", "<|assistant|>", "<|system|>", "<|end|>"}
REFUSED = {
    "qwen3": "Ollama imports .*, but not Qwen3ForCausalLM",
    "mistral": "Ollama imports .*, but not MistralForCausalLM",
    "phi4-mini": r"rotates only 0\.75 of each head .partial_rotary_factor",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    with serve(tmp_path_factory.mktemp("ollama")) as server:
        yield server


def served(source: Source, server: Started) -> list[Reply]:
    """The answers of the model that is registered from there, counted as `make export` does."""
    ours = OllamaServer(ollama_params(server.address))
    ours.register(source)
    return ask_all(ours, source, PAIRS, FEW)


def compared(folder: Path, source: Source, replies: list[Reply]) -> Agreement:
    return agreement(load_model(folder, mx.float32), source.chat, PAIRS, replies)


def check(name: str, found: Agreement) -> None:
    print(f"{name}: {found}")
    assert found.first_token == 1.0
    assert found.top1 >= LEAST
    # Half-taught models misspell, and what their tokenizer would spell otherwise is not compared.
    assert found.unread <= 2
    assert found.positions >= 30


@pytest.mark.parametrize("name", IMPORTED)
def test_the_server_chooses_what_the_fused_model_chooses(
    name: str, make_trained: Callable[[str], Trained], server: Started
) -> None:
    trained = make_trained(name)
    source = open_source(trained.fused)
    assert set(source.template.stops) == trained.family.stops
    replies = served(source, server)
    found = compared(trained.fused, source, replies)
    check(name, found)
    # The base would not pass: so near are no other weights.
    assert compared(trained.base, source, replies).top1 < LEAST


@pytest.mark.parametrize("name", VARIANTS)
def test_the_server_chooses_what_another_shape_chooses(
    name: str, server: Started, tmp_path: Path
) -> None:
    family, changes = VARIANTS[name]
    folder = save(tmp_path / "model", FAMILIES[family], **changes)
    teach(folder)
    source = open_source(folder)
    check(name, compared(folder, source, served(source, server)))


@pytest.mark.parametrize("swallow", [set(), SWALLOW], ids=["", "tokens that swallow space"])
def test_the_server_reads_phi3s_own_kind_of_vocabulary(
    swallow: set[str], server: Started, tmp_path: Path
) -> None:
    family = FAMILIES["phi3"]
    folder = save_pieces(tmp_path / "model", family, prefix=True, swallow=swallow)
    source = open_source(folder)
    assert ("<|user|>\n" in source.template.text) == (not swallow)
    check("phi3, SentencePiece", compared(folder, source, served(source, server)))


def test_the_server_chooses_what_a_gemma3_chooses(server: Started, tmp_path: Path) -> None:
    family = replace(FAMILIES["gemma2"], config={**FAMILIES["gemma2"].config, **GEMMA3})
    folder = save_pieces(tmp_path / "model", family, prefix=False, swallow=set())
    source = open_source(folder)
    check("gemma3, SentencePiece", compared(folder, source, served(source, server)))
    (folder / "tokenizer.model").unlink()
    with pytest.raises(
        UserError, match=r"has no tokenizer\.model, which Ollama needs to read a Gemma 3"
    ):
        open_source(folder)


def test_a_vocabulary_that_the_server_reads_with_other_spaces_is_refused(tmp_path: Path) -> None:
    folder = save_pieces(tmp_path / "model", FAMILIES["gemma2"], prefix=False, swallow=set())
    with pytest.raises(
        UserError, match=r"puts no space before a text, but Ollama[^\n]*; to export, [^\n]*$"
    ):
        open_source(folder)


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_server_does_not_import_is_refused_in_a_line(name: str, tmp_path: Path) -> None:
    folder = save(tmp_path / "model", FAMILIES[name])
    with pytest.raises(UserError, match=rf"^{folder}: {REFUSED[name]}[^\n]*; to export, [^\n]*$"):
        open_source(folder)


def test_every_family_is_either_imported_or_refused() -> None:
    assert {*IMPORTED, *REFUSED} == {*FAMILIES}

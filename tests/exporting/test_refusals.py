"""What cannot be exported is refused before any work, in one line."""

import json
import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError

from blogtune.common.errors import UserError
from blogtune.exporting.answers import _context, _same_tokens
from blogtune.exporting.export import _check_name
from blogtune.exporting.folder import modelfile, server_file, write_folder
from blogtune.exporting.server import OllamaServer
from blogtune.exporting.server import Reply as ServerReply
from blogtune.exporting.serving_gap import check_same_questions
from blogtune.exporting.source import Source, open_source
from blogtune.exporting.template import OllamaTemplate
from tests import tiny
from tests.exporting.build import judging, ollama_params
from tests.judging.server import CUT, NOBODY, Reply, Status, in_turn, serve


def changed(folder: Path, tiny_folder: Path, **config: object) -> Path:
    shutil.copytree(tiny_folder, folder)
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **config}))
    return folder


def test_quantized_weights_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    folder = changed(tmp_path / "m", tiny_folder, quantization={"bits": 4})
    with pytest.raises(UserError, match=r"quantized by MLX.*fuse\.dequantize: true"):
        open_source(folder)


# Mixtral's experts have other names once mlx-lm wrote them, so that its import lacks tensors.
@pytest.mark.parametrize("name", ["HeliumForCausalLM", "MixtralForCausalLM"])
def test_an_architecture_that_ollama_does_not_import_is_refused(
    name: str, tiny_folder: Path, tmp_path: Path
) -> None:
    folder = changed(tmp_path / "m", tiny_folder, architectures=[name])
    with pytest.raises(UserError, match=f"Ollama imports .*, but not {name}"):
        open_source(folder)


def test_a_phi3_is_sent_with_the_factors_that_ollama_writes_in_any_case(
    tiny_folder: Path, tmp_path: Path
) -> None:
    folder = changed(tmp_path / "m", tiny_folder, architectures=["Phi3ForCausalLM"])
    source = open_source(folder)
    ones = [1.0] * (tiny.WIDTH // tiny.HEADS // 2)
    factors = {"type": "", "short_factor": ones, "long_factor": ones}
    with source.files() as files:
        (sent,) = (file for file in files if file.name == "config.json")
        assert json.loads(sent.read_text()) == {**source.config, "rope_scaling": factors}
    assert "rope_scaling" not in json.loads((folder / "config.json").read_text())


def test_a_phi3_that_turns_a_part_of_each_head_is_refused(
    tiny_folder: Path, tmp_path: Path
) -> None:
    config = {"architectures": ["Phi3ForCausalLM"], "partial_rotary_factor": 0.75}
    with pytest.raises(UserError, match=r"rotates only 0\.75 of each head .*choose another base"):
        open_source(changed(tmp_path / "m", tiny_folder, **config))


def test_an_answer_is_read_by_the_servers_own_tokens(tiny_folder: Path) -> None:
    chat = open_source(tiny_folder).chat
    tokens = chat.answer("Another mod\u00e9l.")[:-1]
    texts = [chat.tokenizer.decode([token]) for token in tokens]

    def reply(*pieces: str) -> ServerReply:
        return ServerReply("", "end", False, len(pieces), None, pieces)

    assert _same_tokens(chat, tokens, reply(*texts))
    assert "\ufffd" in texts
    # As many, but divided elsewhere; and one more.
    other = [texts[0] + texts[1][:1], texts[1][1:], *texts[2:]]
    assert not _same_tokens(chat, tokens, reply(*other))
    assert not _same_tokens(chat, tokens, reply(*texts, ""))


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json: not there; run `dvc repro`"):
        open_source(tmp_path)


@pytest.mark.parametrize("name", ["", "a b", "a/b/c", "../x", "x:y:z", "a\nFROM b", "-x"])
def test_a_name_that_ollama_would_not_take_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="must be a name such as my-blog"):
        ollama_params(name=name)


@pytest.mark.parametrize("name", ["blog", "me/my-blog:v2", "a.b_c:latest"])
def test_a_name_that_ollama_takes_is_taken(name: str) -> None:
    assert ollama_params(name=name).name == name


def test_an_unknown_quantization_is_refused() -> None:
    with pytest.raises(ValidationError, match="quantize"):
        ollama_params(quantize="q3_K_M")


def test_the_judges_own_name_is_refused() -> None:
    model = {"source": "ollama:llama3.2", "revision": "0"}
    with pytest.raises(UserError, match="is the judge's model, which would be overwritten"):
        _check_name("llama3.2:latest", judging(kind="ollama", model=model))
    _check_name("llama3.2", judging())


def test_answers_to_other_questions_are_refused() -> None:
    with pytest.raises(UserError, match=r"not the answers to the questions of answer\.split"):
        check_same_questions([], tiny.facts(), "data/answers/fused.jsonl")


def test_questions_that_do_not_fit_are_refused(tiny_folder: Path) -> None:
    source = open_source(tiny_folder)
    assert _context(512, source) == 4096
    with pytest.raises(UserError, match="are 513 tokens together, and the model's context is 512"):
        _context(513, source)


def test_no_server_is_said_before_the_files_are_read(tiny_folder: Path) -> None:
    server = OllamaServer(ollama_params(NOBODY))
    with pytest.raises(UserError, match=r"no Ollama server at http://127\.0\.0\.1:9"):
        server.register(open_source(tiny_folder))


FAULTS = [
    pytest.param(Status(503), 2, "says: so it is .HTTP 503", id="busy"),
    pytest.param(Status(404), 1, "says: so it is .HTTP 404", id="gone"),
    pytest.param(CUT, 2, "does not answer .RemoteProtocolError", id="cut"),
]


@pytest.mark.parametrize(("fault", "requests", "said"), FAULTS)
def test_a_question_is_asked_again_only_where_that_may_help(
    fault: object, requests: int, said: str
) -> None:
    with serve(lambda _: fault) as fake:  # type: ignore[arg-type,return-value]
        server = OllamaServer(ollama_params(fake.address))
        with server.model().client() as client, pytest.raises(UserError, match=said):
            server.ask(client, "Why?", 8, 512)
        assert len(fake.asked) == requests


def test_a_fault_that_passes_costs_nothing_but_time() -> None:
    with serve(in_turn(Status(503), Reply("So."))) as fake:
        fake.rule("")  # the answer to a judge's probe
        server = OllamaServer(ollama_params(fake.address))
        with server.model().client() as client:
            assert server.ask(client, "Why?", 8, 512).text == "So."
        options = fake.asked[-1]["options"]
    assert (options["temperature"], options["repeat_penalty"]) == (0.0, 1.0)
    assert (options["num_predict"], options["num_ctx"]) == (8, 512)


def source_with(text: str, system: str | None, tiny_folder: Path) -> Source:
    source = open_source(tiny_folder)
    template = OllamaTemplate("ChatML", text, system, ["<|im_end|>"])
    return Source(tiny_folder, source.chat, template, source.config)


def test_a_modelfile_quotes_what_the_model_brought(tiny_folder: Path) -> None:
    text = modelfile(source_with("a\nPARAMETER b", "You are.\nFROM x", tiny_folder), "./model.gguf")
    assert text == (
        'FROM ./model.gguf\nTEMPLATE """a\nPARAMETER b"""\nSYSTEM """You are.\nFROM x"""\n'
        'PARAMETER temperature 0.0\nPARAMETER repeat_penalty 1.0\nPARAMETER stop """<|im_end|>"""\n'
    )


@pytest.mark.parametrize("text", ['a""" FROM x', 'a"'])
def test_what_a_modelfile_cannot_hold_is_refused(text: str, tiny_folder: Path) -> None:
    with pytest.raises(UserError, match="a Modelfile cannot hold"):
        modelfile(source_with(text, None, tiny_folder), ".")


def test_a_server_elsewhere_gives_no_gguf() -> None:
    for text in ("", f"FROM /nowhere/sha256-{'0' * 64}\n", "FROM llama3\n"):
        with pytest.raises(UserError, match=r"set export\.folder: safetensors"):
            server_file(text)


def test_a_gguf_that_is_not_what_its_name_says_leaves_the_folder_as_it_was(
    tiny_folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / f"sha256-{'0' * 64}"
    file.write_bytes(b"GGUF and more")
    assert server_file(f"FROM {file}\n") == file
    with pytest.raises(UserError, match="its content does not match the digest in its name"):
        write_folder(tmp_path / "export", open_source(tiny_folder), file, "-")
    assert not (tmp_path / "export").exists()

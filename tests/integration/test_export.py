"""Export on the real Ollama server: the templates it executes, the taught model it serves."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import mlx.core as mx
import ollama
import pytest

from blogtune.answering.params import AnswerParams
from blogtune.common.errors import UserError
from blogtune.exporting.answers import agreement, ask_all, records
from blogtune.exporting.folder import server_file, write_folder
from blogtune.exporting.params import OllamaParams
from blogtune.exporting.server import OllamaServer
from blogtune.exporting.source import Source, open_source
from blogtune.exporting.template import ollama_template
from blogtune.models.loading import load_model
from blogtune.models.template import TEMPLATE_ARGUMENTS
from tests import tiny
from tests.exporting.build import ollama_params
from tests.exporting.templates import TEMPLATES, open_template
from tests.integration.ollama import MODEL, program, serve
from tests.integration.ollama import OllamaServer as Started
from tests.integration.project import Project
from tests.judging.server import NOBODY

FEW = AnswerParams(split="test", max_tokens=24, batch_questions=4)
CONVERSATIONS = {
    "question": [("user", "Why {{ this }}?")],
    "history": [("user", "Why?"), ("assistant", "Because."), ("user", "So?")],
    "system": [("system", "Be brief."), ("user", "Why?")],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    with serve(tmp_path_factory.mktemp("export")) as server:
        yield server


@pytest.fixture(scope="module")
def source(taught_folder: Path) -> Source:
    return open_source(taught_folder)


def params(server: Started, **changes: Any) -> OllamaParams:
    return ollama_params(server.address, **changes)


@pytest.mark.slow
@pytest.mark.parametrize("name", TEMPLATES)
def test_the_server_writes_what_the_models_own_template_writes(
    name: str, server: Started, tmp_path: Path
) -> None:
    chat = open_template(tmp_path, TEMPLATES[name])
    template = ollama_template(chat, adds_start=False)
    with ollama.Client(server.address, timeout=300) as client:
        client.create("template", from_=MODEL, template=template.text, system=template.system)
    for kind, turns in CONVERSATIONS.items():
        if kind == "system" and name in ("Gemma", "Mistral 7B v0.3"):
            # Their own template has no place for it: it opens the first question, as in `Chat`.
            theirs = [{"role": "user", "content": "Be brief.\n\nWhy?"}]
        else:
            theirs = [{"role": role, "content": content} for role, content in turns]
        ours = chat.tokenizer.apply_chat_template(
            theirs, tokenize=False, add_generation_prompt=True, **TEMPLATE_ARGUMENTS
        )
        messages = [{"role": role, "content": content} for role, content in turns]
        body = {"model": "template", "messages": messages, "_debug_render_only": True}
        reply = httpx.post(
            f"{server.address}/api/chat", json={**body, "stream": False}, timeout=300
        )
        assert reply.json()["_debug_info"]["rendered_template"] == ours, kind


@pytest.mark.slow
def test_the_served_model_answers_as_the_fused_one(
    source: Source, server: Started, tmp_path: Path
) -> None:
    ours = OllamaServer(params(server))
    digest = ours.register(source)
    with ours.model().client() as client:
        assert not [each for each in client.list().models if "unchecked" in str(each.model)]
        shown = client.show("taught")
    assert ours.model().digest() == digest
    pairs = tiny.facts()
    replies = ask_all(ours, source, pairs, FEW)
    assert [answer.answer for answer in records(pairs, replies)] == [*tiny.FACTS.values()]
    assert {reply.stop for reply in replies} == {"end"}
    found = agreement(load_model(source.folder, mx.float32), source.chat, pairs, replies)
    assert (found.top1, found.first_token, found.unread) == (1.0, 1.0, 0)
    assert found.positions == sum(reply.tokens + 1 for reply in replies)

    for form, file in (("gguf", server_file(shown.modelfile or "")), ("safetensors", None)):
        write_folder(tmp_path / form, source, file, "a.dir")
        carried = create_from(tmp_path / form, f"carried-{form}", server)
        assert carried.template == shown.template
        # The server lists them in any order.
        assert lines(carried.parameters) == lines(shown.parameters)
        with ours.model().client() as client:
            reply = ours._ask(client, f"carried-{form}", pairs[0].question, 24, 512)
        assert reply == replies[0]


def lines(text: str | None) -> list[str]:
    return sorted((text or "").splitlines())


def create_from(folder: Path, name: str, server: Started) -> ollama.ShowResponse:
    """`ollama create` on another machine, as far as the server can tell."""
    environment = {"OLLAMA_HOST": server.address, "HOME": str(folder)}
    command = [program(), "create", name, "-f", "Modelfile"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    with ollama.Client(server.address, timeout=300) as client:
        return client.show(name)


@pytest.mark.slow
def test_a_prompt_that_the_server_reads_otherwise_registers_nothing(
    taught_folder: Path, server: Started, tmp_path: Path
) -> None:
    folder = tmp_path / "other"
    shutil.copytree(taught_folder, folder)
    source = open_source(folder)
    wrong = Source(folder, source.chat, other_text(source), source.config)
    ours = OllamaServer(params(server, name="wrong"))
    said = r"the same question has \d+ tokens on the server and \d+ here; its template"
    with pytest.raises(UserError, match=said):
        ours.register(wrong)
    assert ours.model().digest() is None
    assert ours.model("wrong:unchecked").digest() is None


def other_text(source: Source) -> Any:
    """The template with its first token twice, as a start that both write."""
    template = source.template
    return type(template)(
        template.family, tiny.START + template.text, template.system, template.stops
    )


@pytest.mark.slow
def test_weights_that_the_server_cannot_read_are_its_error_in_one_line(
    taught_folder: Path, server: Started, tmp_path: Path
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(taught_folder, folder)
    (folder / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    with pytest.raises(UserError, match=r"^ollama:broken: the server at http.* says: [^\n]*$"):
        OllamaServer(params(server, name="broken")).register(open_source(folder))


def test_the_source_names_the_files_that_the_server_reads(source: Source) -> None:
    with source.files() as files:
        names = {file.name for file in files}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert json.loads((source.folder / "config.json").read_text())["model_type"] == "llama"


@pytest.mark.slow
def test_make_export_serves_what_the_pipeline_made_and_measures_it(
    project: Project, server: Started
) -> None:
    project.set(export__folder="gguf", export__ollama__threads=1)
    project.set(export__ollama__host=server.address)
    told = project.make("export").stdout.splitlines()
    metrics = project.json("metrics/export.json")
    assert metrics["name"] == "blogtune"
    assert metrics["quantization"] == "F16"
    answers = (project.root / "data/answers/fused.jsonl").read_text().splitlines()
    assert metrics["questions"] == metrics["scored"] == len(answers) == 12
    # The very figure of the pipeline: the same answers, by the same judge.
    compared = project.json("metrics/comparison.json")
    assert metrics["fused_mean"] == pytest.approx(compared["fused"]["mean"], abs=1e-6)
    assert metrics["top1_agreement"] >= 0.98
    assert metrics["first_token_agreement"] == 1.0
    assert metrics["unread"] <= 1
    difference = metrics["difference"]
    assert difference["low"] <= difference["mean"] <= difference["high"]
    assert metrics["fused_mean"] + difference["mean"] == pytest.approx(metrics["mean"], abs=2e-6)

    equal = "equivalent" if metrics["equivalent"] else "not shown to be equivalent"
    assert told[-2].startswith(f"blogtune (F16): similarity {difference['mean']:+.3f} [")
    assert f" against the fused model, {equal} within 0.02; top-1 agreement " in told[-2]
    assert told[-2].endswith(f"{metrics['top1_agreement']:.2%} at {metrics['positions']} tokens")
    assert told[-1] == (
        "run it: ollama run blogtune; figures: metrics/export.json; files: models/export"
    )

    folder = project.root / "models/export"
    files = {"Modelfile", "model.gguf", "weights.json"}
    assert {file.name for file in folder.iterdir()} == files
    assert "models/fused" in project.json("models/export/weights.json")
    carried = create_from(folder, "carried", server)
    with ollama.Client(server.address, timeout=300) as client:
        shown = client.show("blogtune")
        assert {"blogtune:latest", "carried:latest"} <= {str(m.model) for m in client.list().models}
    assert (carried.template, lines(carried.parameters)) == (
        shown.template,
        lines(shown.parameters),
    )
    # No stage reads the section, and no stage's output was touched.
    assert project.is_clean()


def test_answers_of_older_weights_are_refused_before_any_request(project: Project) -> None:
    """Their questions are the same: by these alone they passed as this model's."""
    project.set(export__ollama__host=NOBODY)
    weights = next((project.root / "models/fused").glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.unlink()  # the others' file too
    weights.write_bytes(content)
    told = project.run(*project.command("export"), fails=True).stderr
    (line,) = (line for line in told.splitlines() if line.startswith("error: "))
    assert line == (
        "error: data/answers/fused.jsonl: not the answers of the present models/fused (see "
        "`dvc status answer@fused`); run `dvc repro`"
    )
    project.run("dvc", "checkout", "--force", "models/fused")
    told = project.run(*project.command("export"), fails=True).stderr
    assert f"error: no Ollama server at {NOBODY}" in told

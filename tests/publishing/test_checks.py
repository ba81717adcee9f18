"""What is refused before any request, each in one line."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from blogtune.common.errors import UserError
from blogtune.project.settings import read_settings, set_value
from blogtune.publishing.bundle import read_entries
from blogtune.publishing.checks import obstacles, of_the_run
from blogtune.publishing.facts import Facts, read_facts
from blogtune.publishing.receipt import Receipt, read_receipt
from tests.publishing import project as projects
from tests.publishing.project import commit, publish, run

WORSE = "this adapter, fused: worse; similarity -0.052 [-0.080, -0.025], 150 questions in 70 posts"


@pytest.fixture
def facts(project: Path, monkeypatch: pytest.MonkeyPatch) -> Facts:
    """The facts of a project in whose folder the test runs."""
    monkeypatch.chdir(project)
    monkeypatch.setenv("HOME", str(project / "home"))
    return read_facts(read_settings())


def found(facts: Facts) -> list[str]:
    entries = read_entries(facts.settings.publish)
    return [str(each) for each in obstacles(facts, entries, even_if_worse=False)]


def told_of(facts: Facts, *, even_if_worse: bool = False) -> list[str]:
    """The same without git, DVC and the weights."""
    return [str(each) for each in of_the_run(facts, even_if_worse=even_if_worse)]


def with_publish(facts: Facts, **changes: Any) -> Facts:
    params = facts.settings.publish.model_copy(update=changes)
    return dataclasses.replace(
        facts, settings=facts.settings.model_copy(update={"publish": params})
    )


def with_verdict(facts: Facts, outcome: str, verdict: str = "") -> Facts:
    fused = {**facts.comparison["fused"], "outcome": outcome, "verdict": verdict}
    return dataclasses.replace(facts, comparison={**facts.comparison, "fused": fused})


def test_a_committed_run_may_be_published(facts: Facts) -> None:
    assert found(facts) == []


def test_no_repository_is_named_until_someone_names_one(facts: Facts) -> None:
    assert told_of(with_publish(facts, repository=None)) == [
        "publish.repository: not set; set it to <owner>/<name>"
    ]


def test_what_is_not_committed_is_named(facts: Facts, project: Path) -> None:
    (project / "notes.txt").write_text("new")
    (project / "metrics/published.json").write_text("{}")
    assert found(facts) == ["git: not committed: notes.txt; commit the changes, or undo them"]


def test_other_weights_than_those_measured_are_refused(facts: Facts, project: Path) -> None:
    weights = project / "models/fused/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    told = found(facts)
    assert told[0].startswith("dvc status: not what dvc.lock describes: everything; run `make")
    assert told[1].startswith("models/fused: not the files that dvc.lock names, so the metrics")
    assert len(told) == 2


def test_other_weights_are_seen_even_where_dvc_sees_none(facts: Facts, project: Path) -> None:
    """DVC believes a file's time, size and inode."""
    run(project, "dvc", "status")
    weights = project / "models/fused/model.safetensors"
    before = weights.stat()
    with weights.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read()
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    (told,) = found(facts)
    assert told.startswith("models/fused: not the files that dvc.lock names")


def test_metrics_of_another_run_are_refused(facts: Facts, project: Path) -> None:
    metrics = project / "metrics/comparison.json"
    found_there = json.loads(metrics.read_text())
    found_there["finetuned"]["mean"] += 0.2
    metrics.write_text(json.dumps(found_there, indent=2))
    commit(project)
    (told,) = found(facts)
    assert told.startswith("dvc status: not what dvc.lock describes: everything; run `make repro`")


def test_parameters_of_another_run_are_refused(facts: Facts, project: Path) -> None:
    set_value("train.seed", 8, project / "params.yaml")
    commit(project)
    (told,) = found(facts)
    assert told.startswith("dvc status: not what dvc.lock describes")


def test_a_failed_parity_is_refused(facts: Facts) -> None:
    for changes in ({"top1_agreement": 0.98}, {"mean_kl_micronats": 200.0}):
        fusion = {**facts.fusion, **changes}
        (told,) = told_of(dataclasses.replace(facts, fusion=fusion))
        assert told.startswith("metrics/fusion.json: departs from the adapted model: mean KL ")
        assert told.endswith("do not ship it")


def test_worse_is_published_only_when_told(facts: Facts) -> None:
    worse = with_verdict(facts, "worse", WORSE)
    (told,) = told_of(worse)
    assert told.startswith(f"{WORSE}; `make publish EVEN_IF_WORSE=1`")
    assert told_of(worse, even_if_worse=True) == []


@pytest.mark.parametrize("word", ["no evidence", "no verdict"])
def test_without_evidence_it_is_published_with_that_on_its_card(facts: Facts, word: str) -> None:
    assert told_of(with_verdict(facts, word)) == []


def test_without_any_verdict_it_is_refused(facts: Facts) -> None:
    (told,) = told_of(with_verdict(facts, ""))
    assert told.startswith("metrics/comparison.json: no verdict on the fused model")


def test_a_license_must_be_known_and_is_the_base_models(facts: Facts) -> None:
    silent = dataclasses.replace(facts, base={**facts.base, "license": None}, datasheet="")
    base, data = told_of(silent)
    assert base.endswith("states no license, which the result would inherit; set publish.license")
    assert data.startswith("publish.data_license: not set, and data/raw has no README.md with a")
    assert told_of(with_publish(silent, license="MIT", data_license="CC-BY-4.0")) == []
    both = with_publish(facts, license="MIT")
    assert both.license == "Apache-2.0"
    (other,) = told_of(both)
    assert other.startswith("publish.license: MIT, but the base states Apache-2.0")


def test_the_license_of_a_data_set_of_the_hub_is_what_the_hub_states(facts: Facts) -> None:
    fetched = {"source": "hub:someone/posts", "revision": "5f0c", "license": "cc-by-4.0"}
    stated = dataclasses.replace(facts, fetched=fetched)
    assert (told_of(stated), stated.data_license) == ([], "cc-by-4.0")
    assert told_of(with_publish(stated, data_license="cc-by-4.0")) == []
    assert told_of(with_publish(stated, data_license="MIT")) == [
        "publish.data_license: MIT, but hub:someone/posts states cc-by-4.0; set it to null"
    ]


def test_a_data_set_without_a_stated_license_is_refused_until_someone_says_one(
    facts: Facts,
) -> None:
    fetched = {"source": "hub:someone/posts", "revision": "5f0c", "license": None}
    silent = dataclasses.replace(facts, fetched=fetched, datasheet="")
    assert told_of(silent) == [
        "publish.data_license: not set, and the hub states none of hub:someone/posts; set it"
    ]
    said = with_publish(silent, data_license="MIT")
    assert (told_of(said), said.data_license) == ([], "MIT")


def test_what_was_fetched_is_read_from_its_receipt(project: Path, facts: Facts) -> None:
    assert facts.fetched == {}
    set_value("data.path", "data/fetched", project / "params.yaml")
    set_value("data.fetch.source", "hub:someone/posts", project / "params.yaml")
    with pytest.raises(UserError, match=r"^data/fetched/source\.json: not there yet; run `make r"):
        read_facts(read_settings())
    (project / "data/fetched").mkdir()
    (project / "data/fetched/source.json").write_text(json.dumps({"license": "mit"}))
    assert read_facts(read_settings()).data_license == "mit"


def test_a_gguf_is_there_and_of_these_weights(facts: Facts, project: Path) -> None:
    wanted = with_publish(facts, gguf=True)
    absent = "publish.gguf: models/export/model.gguf is not there; run `make export`"
    assert told_of(wanted) == [absent]
    projects.export_gguf(project)
    assert told_of(wanted) == []
    # Another run: dvc.lock names other weights, while the file is as young as before.
    (project / "models/fused/model.safetensors").write_bytes(b"other")
    projects.commit_run(project)
    others = (
        "publish.gguf: models/export/model.gguf was not made from the present models/fused; run "
        "`make export`"
    )
    assert told_of(wanted) == [others]
    projects.export_gguf(project)
    assert told_of(wanted) == []
    (project / "models/export/weights.json").unlink()
    assert told_of(wanted) == [others]


def test_an_adapter_that_was_retrained_is_refused(facts: Facts, project: Path) -> None:
    wanted = with_publish(facts, adapter=True)
    assert found(wanted) == []
    (project / "models/adapter/adapters.safetensors").write_bytes(b"another")
    assert any(told.startswith("models/adapter: not the files") for told in found(wanted))


def test_before_any_run_it_says_what_to_do(project: Path) -> None:
    (project / "metrics/fusion.json").unlink()
    done = publish(project)
    assert done.returncode == 1
    assert done.stderr == "error: metrics/fusion.json: not there yet; run `make repro`\n"


def test_hidden_files_stay_here(facts: Facts, project: Path) -> None:
    before = read_entries(facts.settings.publish)
    (project / "models/fused/.DS_Store").write_text("where the icons are")
    assert read_entries(facts.settings.publish) == before


def test_the_receipt_of_another_repository_is_none_of_this_one(tmp_path: Path) -> None:
    path = tmp_path / "published.json"
    texts = ("url", "commit", "commit_url", "source_commit", "dvc_lock", "card")
    receipt = Receipt(repository="someone/blog", files={}, **dict.fromkeys(texts, "5f0c"))
    path.write_text(receipt.model_dump_json())
    assert read_receipt("someone/blog", path) == receipt
    assert read_receipt("someone/other", path) is None


def test_a_broken_receipt_is_named(facts: Facts, project: Path) -> None:
    assert read_receipt("someone/blog") is None
    (project / "metrics/published.json").write_text(json.dumps({"commit": 1}))
    with pytest.raises(UserError, match=r"metrics/published.json: not a receipt"):
        read_receipt(facts.settings.publish.repository or "")

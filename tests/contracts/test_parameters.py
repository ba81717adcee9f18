"""params.yaml: valid, explained, and the profile it claims to be."""

import re
import shutil
from itertools import pairwise
from pathlib import Path

import pytest

from blogtune.common.errors import UserError
from blogtune.common.sources import ModelParams
from blogtune.project.settings import obstacles, read_settings, set_value, use_profile
from blogtune.training.lora import apply_lora
from tests.contracts.pipeline import DEFAULT, ROOT, is_default_run, of_the_default
from tests.training.architectures import build

PARAMS = ROOT / "params.yaml"
SECOND = {
    "kind": "embedding",
    "model": {"source": "path:models/mine", "revision": None},
    "scale": "likert",
    "host": None,
    "pull": False,
    "workers": 4,
    "timeout_seconds": 120,
    "retries": 4,
    "batch_items": 16,
}
PROFILES = sorted((ROOT / "profiles").glob("*.yaml"))


@pytest.fixture
def committed(tmp_path: Path) -> Path:
    """A copy of params.yaml as it is committed, which may be a user's own."""
    return Path(shutil.copy(PARAMS, tmp_path / "params.yaml"))


@pytest.fixture
def params(committed: Path) -> Path:
    """The same with the default profile laid over it."""
    use_profile(DEFAULT, committed)
    return committed


def test_the_committed_parameters_are_valid_and_can_run() -> None:
    found = obstacles(read_settings(PARAMS))
    # A user's data need not be in git, nor their sources pinned before they are fetched.
    assert found == [] or not is_default_run()


@of_the_default
def test_the_committed_parameters_are_the_default_profile(committed: Path) -> None:
    changes = use_profile(DEFAULT, committed)
    assert changes == [], "a changed default stands in profiles/smollm2.yaml too"
    assert committed.read_bytes() == PARAMS.read_bytes()


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
def test_a_profile_comes_and_goes_without_a_trace(profile: Path, params: Path) -> None:
    before = params.read_bytes()
    use_profile(profile, params)
    use_profile(DEFAULT, params)
    assert params.read_bytes() == before


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.path", "data/mine.csv"),
        ("data.columns", {"question": "Frage", "answer": "Antwort"}),
        ("judge.check.paraphrases", "data/mine.jsonl"),
        ("judge.second", SECOND),
    ],
)
def test_the_default_profile_undoes_a_user_s_own_data(
    key: str, value: object, params: Path
) -> None:
    before = read_settings(params)
    set_value(key, value, params)
    assert read_settings(params) != before
    use_profile(DEFAULT, params)
    assert read_settings(params) == before


def test_the_reference_profile_carries_the_reference_figures(params: Path) -> None:
    use_profile(ROOT / "profiles/phi3-mini.yaml", params)
    settings = read_settings(params)
    train, lora = settings.train, settings.train.lora
    assert settings.model == ModelParams(
        source="hub:microsoft/Phi-3-mini-4k-instruct",
        revision="0a67737cc96d2554230f90338b163bc6380a2a85",
    )
    assert settings.data.fetch.source == "hub:didierlopes/my-blog-qa-dataset"
    assert (train.iterations, train.evaluate_every, train.save_every) == (500, 100, 100)
    assert (train.optimizer, train.learning_rate, train.batch_pairs) == ("adam", 5e-6, 16)
    assert (lora.layers, lora.rank, lora.scale, lora.dropout) == (8, 8, 5.0, 0.2)
    # No weight of it is computed, so it takes no memory.
    network = build("phi3", hidden_size=3072, num_hidden_layers=32, num_key_value_heads=4)
    assert apply_lora(network, lora) == 786_432
    assert settings.answer.max_tokens == 200
    assert (settings.judge.kind, settings.judge.model.source) == ("ollama", "ollama:llama3.2")


def test_what_cannot_run_is_said_before_any_work(params: Path) -> None:
    use_profile(ROOT / "profiles/phi3-mini.yaml", params)
    told = "\n".join(map(str, obstacles(read_settings(params))))
    assert told.splitlines() == [
        "judge.model.revision: ollama:llama3.2 is not pinned; run `make pin`",
        "data.fetch.revision: hub:didierlopes/my-blog-qa-dataset is not pinned; run `make pin`",
    ]


def test_missing_data_are_said_before_any_work(params: Path) -> None:
    set_value("data.path", "data/mine", params)
    told = [str(each) for each in obstacles(read_settings(params))]
    assert told == ["data.path: data/mine is not there; put the data there"]


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
def test_every_profile_is_valid_and_lacks_nothing_but_pins(profile: Path, params: Path) -> None:
    use_profile(profile, params)
    told = map(str, obstacles(read_settings(params)))
    assert [line for line in told if not line.endswith("is not pinned; run `make pin`")] == []


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
def test_no_profile_names_a_commit_that_nobody_has_seen(profile: Path, params: Path) -> None:
    use_profile(profile, params)
    seen = {None, "0a67737cc96d2554230f90338b163bc6380a2a85"}
    assert {each.revision for each in read_settings(params).sources().values()} <= seen


def test_a_16_gb_profile_takes_the_reference_s_steps_in_pieces(params: Path) -> None:
    use_profile(ROOT / "profiles/phi3-mini-4bit.yaml", params)
    settings = read_settings(params)
    assert settings.model.source == "hub:mlx-community/Phi-3-mini-4k-instruct-4bit"
    assert settings.train.batch_pairs * settings.train.accumulate_batches == 16
    assert settings.data.fetch.source == "hub:didierlopes/my-blog-qa-dataset"


@pytest.mark.parametrize("name", ["llama3.2-1b", "qwen3-0.6b"])
def test_another_model_takes_three_keys(name: str, params: Path) -> None:
    changes = use_profile(ROOT / f"profiles/{name}.yaml", params)
    assert [line.partition(":")[0] for line in changes] == ["model.source", "train.learning_rate"]


@pytest.mark.parametrize(
    ("path", "source", "told"),
    [
        pytest.param("data/raw", "hub:a/b", "path must be data/fetched", id="not read"),
        pytest.param("data/fetched", None, "fetch names no data set", id="not fetched"),
        pytest.param("data/fetched/x", "path:x", "null or hub:<repository>", id="not on the hub"),
    ],
)
def test_data_are_read_from_where_they_are_fetched_to(
    params: Path, path: str, source: str | None, told: str
) -> None:
    set_value("data.path", path, params)
    set_value("data.fetch.source", source, params)
    with pytest.raises(UserError, match=f"params.yaml: data.*{re.escape(told)}"):
        read_settings(params)


def test_a_missing_file_of_paraphrases_is_said_before_any_work(params: Path) -> None:
    set_value("judge.check.paraphrases", "data/none.jsonl", params)
    (told,) = map(str, obstacles(read_settings(params)))
    assert str(told) == (
        "judge.check.paraphrases: data/none.jsonl is not there; if you have none, name an empty "
        "file"
    )


def test_a_small_number_keeps_a_form_that_every_yaml_reads(params: Path) -> None:
    use_profile(ROOT / "profiles/phi3-mini.yaml", params)
    assert "learning_rate: 5.0e-6\n" in params.read_text()


def test_setting_a_value_keeps_every_comment(params: Path) -> None:
    before = params.read_text().splitlines()
    set_value("model.revision", "0" * 40, params)
    after = params.read_text().splitlines()
    changed = [new for old, new in zip(before, after, strict=True) if old != new]
    assert [line.split(":")[0].strip() for line in changed] == ["revision"]


def test_an_unknown_profile_is_answered_with_the_known_ones(params: Path) -> None:
    with pytest.raises(UserError, match=r"no such profile; there are llama3\.2-1b, phi3-mini,"):
        use_profile(ROOT / "profiles/large.yaml", params)


def test_a_profile_with_an_unknown_key_is_refused(params: Path, tmp_path: Path) -> None:
    profile = tmp_path / "odd.yaml"
    profile.write_text("train: {itterations: 3}\n")
    with pytest.raises(UserError, match=re.escape("train.itterations: unknown key")):
        use_profile(profile, params)


def test_every_key_stands_under_a_comment() -> None:
    # What stands in a second judge's section is told above it.
    lines = re.sub(r"(?m)^  second:\n(?:    .*\n)+", "", PARAMS.read_text()).splitlines()
    for above, line in pairwise(lines):
        bare = (
            "revision:",
            "model:",
            "split:",
            "validation:",
            "test:",
            "poor:",
            "lora:",
            "source:",
        )
        if line and not line.lstrip().startswith(("#", *bare)):
            assert above.lstrip().startswith("#"), line

import shutil
import time
from pathlib import Path

import pytest

from blogtune.common.errors import UserError
from blogtune.common.params import COMPARE, RENAMED, read_params
from blogtune.project.settings import Settings, read_settings, set_value, use_profile
from blogtune.training.params import TrainParams

ROOT = Path(__file__).parents[2]
GOOD = """\
train:
  seed: 7
  iterations: 300
  batch_pairs: 8
  accumulate_batches: 1
  max_sequence_tokens: 512
  evaluate_every: 50
  validation_pairs: 64
  patience: null
  save_every: 100
  keep_checkpoints: 2
  optimizer: adam
  weight_decay: 0.0
  learning_rate: 1e-3
  schedule: cosine
  warmup_iterations: 20
  clip_norm: null
  gradient_checkpointing: false
  activation_cache: auto
  lora:
    kind: lora
    layers: 8
    targets: qkv
    rank: 8
    scale: 5.0
    dropout: 0.05
"""


@pytest.fixture
def params(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(GOOD)
    return path


def committed_with(folder: Path, key: str, value: object) -> Path:
    """The committed params.yaml with another value."""
    path = Path(shutil.copy(ROOT / "params.yaml", folder))
    set_value(key, value, path)
    return path


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("written", ["1e-5", "1.0e-5", "0.00001", "1E-5"])
def test_a_number_in_scientific_notation_is_a_number(params: Path, written: str) -> None:
    replace(params, "1e-3", written)
    assert read_params("train", TrainParams, params).learning_rate == 1e-5


def test_a_whole_number_may_stand_for_a_float(params: Path) -> None:
    replace(params, "scale: 5.0", "scale: 5")
    assert read_params("train", TrainParams, params).lora.scale == 5.0


def test_a_section_cannot_be_changed_after_reading(params: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        read_params("train", TrainParams, params).seed = 8  # type: ignore[misc]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param(
            "rank: 8",
            "rnak: 8\n    rank: 8",
            "train.lora.rnak: unknown key; did you mean rank?",
            id="misspelt key in an inner section",
        ),
        pytest.param(
            "seed: 7",
            "sed: 7\n  seed: 7",
            "train.sed: unknown key; did you mean seed?",
            id="misspelt key",
        ),
        pytest.param(
            "seed: 7",
            "sed: 7",
            "train.sed: unknown key; did you mean seed? (and 1 more)",
            id="misspelt key, so that the right one is missing",
        ),
        pytest.param(
            "seed: 7",
            "seed: 7\n  width: 3",
            "train.width: unknown key; remove it",
            id="key like no other",
        ),
        pytest.param("  seed: 7\n", "", f"train.seed: missing; {COMPARE}", id="missing key"),
        pytest.param(
            "  seed: 7\n  iterations: 300\n",
            "",
            f"train.seed: missing; {COMPARE} (and 1 more)",
            id="two missing keys",
        ),
        pytest.param(
            "rank: 8",
            "rank: eight",
            "train.lora.rank: Input should be a valid integer, got 'eight'",
            id="text for a number",
        ),
        pytest.param(
            "rank: 8",
            "rank: '8'",
            "train.lora.rank: Input should be a valid integer, got '8'",
            id="quoted number",
        ),
        pytest.param(
            "rank: 8",
            "rank: 8.5",
            "train.lora.rank: Input should be a valid integer, got 8.5",
            id="fraction for a whole number",
        ),
        pytest.param(
            "rank: 8",
            "rank: true",
            "train.lora.rank: Input should be a valid integer, got True",
            id="truth for a number",
        ),
        pytest.param(
            "rank: 8",
            "rank:",
            "train.lora.rank: Input should be a valid integer, got None",
            id="nothing for a number",
        ),
        pytest.param(
            "rank: 8",
            "rank: 0",
            "train.lora.rank: Input should be greater than or equal to 1, got 0",
            id="too small",
        ),
        pytest.param(
            "dropout: 0.05",
            "dropout: 1.0",
            "train.lora.dropout: Input should be less than 1, got 1.0",
            id="too large",
        ),
        pytest.param(
            "scale: 5.0",
            "scale: .inf",
            "train.lora.scale: Input should be a finite number, got inf",
            id="infinite",
        ),
        pytest.param(
            "clip_norm: null",
            "clip_norm: .nan",
            "train.clip_norm: Input should be a finite number, got nan",
            id="no number",
        ),
        pytest.param(
            "targets: qkv",
            "targets: 5",
            "train.lora.targets: Input should be 'qkv' or 'all', or a valid list, got 5",
            id="none of two kinds",
        ),
        pytest.param(
            "targets: qkv",
            "targets: [q_proj, 5]",
            "train.lora.targets.1: Input should be a valid string, got 5",
            id="inside one of two kinds",
        ),
        pytest.param(
            "schedule: cosine",
            "schedule: linear",
            "train.schedule: Input should be 'constant' or 'cosine', got 'linear'",
            id="none of the choices",
        ),
        pytest.param(
            "warmup_iterations: 20",
            "warmup_iterations: 300",
            "train: warmup_iterations must be below iterations",
            id="keys at odds with each other",
        ),
        pytest.param(
            "weight_decay: 0.0",
            "weight_decay: 0.1",
            "train: weight_decay is for optimizer: adamw; set it to 0.0",
            id="a key that would have no effect",
        ),
    ],
)
def test_a_bad_value_is_explained_in_one_line(
    params: Path, old: str, new: str, message: str
) -> None:
    replace(params, old, new)
    with pytest.raises(UserError) as caught:
        read_params("train", TrainParams, params)
    assert str(caught.value) == f"{params}: {message}"


@pytest.mark.parametrize("section", ["judge", "train.adapter", "train.seed.inner"])
def test_a_missing_section_is_named(params: Path, section: str) -> None:
    with pytest.raises(UserError) as caught:
        read_params(section, TrainParams, params)
    assert str(caught.value) == f"{params}: {section}: missing; {COMPARE}"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"train: [1, 2", id="open bracket"),
        pytest.param(b"train:\n\tseed: 7\n", id="tab"),
        pytest.param(b"train: 1\ntrain: 2\n", id="key given twice"),
        pytest.param(b"train: \xff\xfe\n", id="not UTF-8"),
    ],
)
def test_a_file_that_is_not_yaml_is_refused_in_one_line(params: Path, content: bytes) -> None:
    params.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_params("train", TrainParams, params)
    message = str(caught.value)
    assert message.startswith(f"{params}: not readable as YAML: ")
    assert "\n" not in message


@pytest.mark.parametrize("content", ["7\n", "- train\n"], ids=["number", "list"])
def test_a_file_without_sections_lacks_the_section(params: Path, content: str) -> None:
    params.write_text(content)
    with pytest.raises(UserError, match="train: missing"):
        read_params("train", TrainParams, params)


@pytest.mark.parametrize("content", ["", "# nothing\n"], ids=["empty", "comment"])
def test_an_empty_file_is_called_so(params: Path, content: str) -> None:
    params.write_text(content)
    with pytest.raises(UserError) as caught:
        read_params("", Settings, params)
    assert str(caught.value) == f"{params}: empty; {COMPARE}"


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        pytest.param(
            "runtime.processes", 0, "Input should be greater than 0, or a valid string", id="union"
        ),
        pytest.param(
            "runtime.processes",
            "many",
            r"Input should be a valid integer, or text like '^auto$|\.json$'",
            id="pattern",
        ),
        pytest.param("train.lora", None, "Input should be a section with keys", id="section"),
    ],
)
def test_the_keys_alone_lead_to_a_problem(
    tmp_path: Path, key: str, value: object, told: str
) -> None:
    path = committed_with(tmp_path, key, value)
    with pytest.raises(UserError) as caught:
        read_settings(path)
    assert str(caught.value) == f"{path}: {key}: {told}, got {value!r}"


def test_a_column_that_is_none_is_named_without_pydantics_words(tmp_path: Path) -> None:
    path = committed_with(tmp_path, "data.columns", {"questoin": "Frage"})
    with pytest.raises(UserError) as caught:
        read_settings(path)
    told = str(caught.value)
    assert told.startswith(f"{path}: data.columns.questoin: Input should be 'question', ")
    assert told.endswith(" or 'title', got 'questoin'")


def test_a_misspelt_key_of_a_section_that_may_be_null_is_guessed(tmp_path: Path) -> None:
    path = committed_with(tmp_path, "judge.second", {"kimd": "mlx"})
    with pytest.raises(UserError, match=r": judge\.second\.kimd: unknown key; did you mean kind\?"):
        read_settings(path)


def test_a_missing_file_says_where_to_stand(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    with pytest.raises(UserError) as caught:
        read_params("train", TrainParams, path)
    assert str(caught.value) == f"{path}: not found; run this from the repository's root"


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_key_that_was_renamed_is_answered_with_its_new_name(
    tmp_path: Path, old: str, new: str
) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    was, now = (name.split(".")[-1] for name in (old, new))
    assert f"  {now}: " in text
    file = tmp_path / "params.yaml"
    file.write_text(text.replace(f"  {now}: ", f"  {was}: "))
    with pytest.raises(UserError) as caught:
        read_settings(file)
    assert str(caught.value) == f"{file}: {old}: renamed; it is called {new} now"


def integers(of: object, where: str = "") -> dict[str, dict[str, object]]:
    """Each whole number of a JSON schema, by where it stands."""
    found: dict[str, dict[str, object]] = {}
    if isinstance(of, dict):
        if of.get("type") == "integer":
            found[where] = of
        for key, value in of.items():
            found |= integers(value, f"{where}.{key}")
    elif isinstance(of, list):
        for number, value in enumerate(of):
            found |= integers(value, f"{where}.{number}")
    return found


def test_every_whole_number_has_two_limits() -> None:
    found = integers(Settings.model_json_schema())
    limits = [("minimum", "exclusiveMinimum"), ("maximum",)]
    lacking = [k for k, of in found.items() for names in limits if not of.keys() & {*names}]
    assert lacking == []
    assert len(found) > 30


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.seed", 2**64),
        ("train.lora.rank", 10**9),
        ("answer.max_tokens", 10**9),
        ("runtime.processes", 100_000),
        ("judge.timeout_seconds", 1e300),
        ("train.iterations", -(10**30)),
    ],
)
def test_a_number_beyond_all_measure_is_one_line(tmp_path: Path, key: str, value: float) -> None:
    path = committed_with(tmp_path, key, value)
    with pytest.raises(UserError) as caught:
        read_settings(path)
    assert str(caught.value).startswith(f"{path}: {key}: Input should be ")
    assert len(str(caught.value).splitlines()) == 1


UNREADABLE_YAML = {
    "deep": "train: " + "[" * 5000,
    "deep, and closed": "train: " + "[" * 5000 + "]" * 5000,
    "deep by indentation": "".join(f"{' ' * n}a{n}:\n" for n in range(500)),
    "long": "train: 1  # " + "x" * 200_000,
    "5,000 digits": "train: {seed: " + "7" * 5000 + "}",
    "a 13th month": "train: 2024-13-01",
    "a tag of Python's": "train: !!python/object/apply:os.system [ls]",
    "a number that is none": "train: !!int x",
    "zeros": "\0\0",
}


@pytest.mark.parametrize("text", UNREADABLE_YAML.values(), ids=UNREADABLE_YAML)
def test_yaml_that_cannot_be_read_is_one_line(tmp_path: Path, text: str) -> None:
    params, profile = tmp_path / "params.yaml", tmp_path / "profile.yaml"
    committed = (ROOT / "params.yaml").read_text(encoding="utf-8")
    for file, other in ((params, profile), (profile, params)):
        file.write_text(text)
        other.write_text(committed)
        began = time.monotonic()
        with pytest.raises(UserError) as caught:
            use_profile(profile, params)
        assert time.monotonic() - began < 30
        told = str(caught.value)
        # With comments ruamel keeps a tag that it does not know: then it is no section.
        assert told.startswith(str(tmp_path))
        assert len(told.splitlines()) == 1
        assert len(told) < 600
    assert params.read_text() == committed


def test_a_bomb_of_aliases_is_told_in_short(tmp_path: Path) -> None:
    """Nine lists of ten of the one before: written out, its value would fill the memory."""
    text = "a0: &a0 [x, x]\n"
    text += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
    path = tmp_path / "params.yaml"
    path.write_text(f"{text}train: *a11\n")
    with pytest.raises(UserError) as caught:
        read_params("train", TrainParams, path)
    assert len(str(caught.value)) < 600


def test_a_number_of_5000_hexadecimal_digits_is_told_in_short(tmp_path: Path) -> None:
    path = committed_with(tmp_path, "train.seed", 0)
    text = path.read_text().replace("seed: 0", f"seed: 0x{'f' * 5000}", 1)
    path.write_text(text)
    with pytest.raises(UserError, match=r"train\.seed: .*, got a huge number$"):
        read_settings(path)
    profile = tmp_path / "profile.yaml"
    profile.write_text(f"train: {{seed: 0x{'f' * 5000}}}")
    committed = (ROOT / "params.yaml").read_text(encoding="utf-8")
    path.write_text(committed)
    with pytest.raises(UserError):
        use_profile(profile, path)
    assert path.read_text() == committed


@pytest.mark.parametrize("text", ["- a", "7", "text"])
def test_a_profile_without_sections_is_refused(tmp_path: Path, text: str) -> None:
    profile, path = tmp_path / "profile.yaml", tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text(encoding="utf-8"))
    profile.write_text(text)
    with pytest.raises(UserError, match=r"profile\.yaml: no sections with keys$"):
        use_profile(profile, path)

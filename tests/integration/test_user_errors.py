"""A user's mistake, made for real in a real stage: one line, status 1, no traceback."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.project import Project

Change = Callable[[Project], None]


def break_weights(project: Project) -> None:
    (file,) = (project.root / "models/base").glob("*.safetensors")
    start = file.read_bytes()[:1000]
    file.unlink()  # the others' file too
    file.write_bytes(start)


MISTAKES = [
    pytest.param(
        "compare",
        lambda project: project.replace("params.yaml", "confidence: 0.95", "confidense: 0.95"),
        "params.yaml: compare.confidense: unknown key; did you mean confidence? (and 1 more)",
        id="misspelt key",
    ),
    pytest.param(
        "compare",
        lambda project: project.set(compare__good="high"),
        "params.yaml: compare.good: Input should be a valid number, got 'high'",
        id="wrong type",
    ),
    pytest.param(
        "compare",
        lambda project: project.set(compare__confidence=1.5),
        "params.yaml: compare.confidence: Input should be less than 1, got 1.5",
        id="out of range",
    ),
    pytest.param(
        "train",
        lambda project: project.set(train__batch_pairs=1000),
        "train.batch_pairs: 1000, but there are 40 training pairs",
        id="batch larger than the split",
    ),
    pytest.param(
        "train",
        lambda project: project.set(train__max_sequence_tokens=16),
        "which leaves none of train.max_sequence_tokens (16) for the answer",
        id="question longer than the limit",
    ),
    pytest.param(
        "prepare",
        lambda project: project.append("data/raw/lora.jsonl", '{"question": "Why?"\n'),
        "data/raw/lora.jsonl:11: ",
        id="bad row",
    ),
    pytest.param(
        "prepare",
        lambda project: (project.root / "data/raw/lora.jsonl").unlink(),
        "data/raw/lora.jsonl: no such file or folder; set data.path to your data",
        id="missing data",
    ),
    pytest.param(
        "prepare",
        lambda project: project.set_all(
            {"data.split.train": 0.4, "data.split.validation": 0.5999, "data.split.test": 0.0001}
        ),
        "data.split: no test pair, there are only 220 pairs in data/raw/lora.jsonl",
        id="empty split",
    ),
    pytest.param(
        "answer base",
        break_weights,
        "models/base: mlx-lm cannot load it: ",
        id="unreadable model",
    ),
    pytest.param(
        "judge",
        lambda project: project.append("data/answers/base.jsonl", "half a li"),
        "data/answers/base.jsonl:13: ",
        id="half a record",
    ),
    pytest.param(
        "check_judge",
        lambda project: project.append("data/paraphrases.jsonl", '{"question": "Why?"}\n'),
        "data/paraphrases.jsonl:71: paraphrase: Field required",
        id="half a paraphrase",
    ),
    pytest.param(
        "probe",
        lambda project: (project.root / "data/processed/test.jsonl").write_text(""),
        "data/processed: no questions to choose answers to",
        id="nothing to probe",
    ),
    pytest.param(
        "compare",
        lambda project: project.append("metrics/judge.json", "}"),
        "metrics/judge.json: file: Invalid JSON",
        id="unreadable metrics",
    ),
    pytest.param(
        "baselines",
        lambda project: (project.root / "data/answers/finetuned.jsonl").unlink(),
        "data/answers/finetuned.jsonl: not found; run `dvc repro`",
        id="missing input",
    ),
]


@pytest.mark.parametrize(("stage", "mistake", "message"), MISTAKES)
def test_a_mistake_is_told_in_one_line(
    project: Project, stage: str, mistake: Change, message: str
) -> None:
    mistake(project)
    result = project.run(*project.stage(*stage.split()), fails=True)
    assert result.returncode == 1
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("error: "))
    assert message in line
    assert "Traceback" not in result.stderr


def test_debug_shows_where_it_came_from(project: Project) -> None:
    project.set(compare__good="high")
    told = project.run(*project.stage("compare"), "--debug", fails=True).stderr
    assert "Traceback" in told
    assert told.splitlines()[-1].startswith("error: params.yaml: compare.good: ")


FULL_TEXT = "with open('/dev/full', 'w') as file:\n        file.write('x' * 100000)"
FULL_WEIGHTS = """with atomic_folder(Path('models/adapter')) as folder:
        (folder / 'a.safetensors').symlink_to('/dev/full')
        mx.save_safetensors(str(folder / 'a.safetensors'), {'a': mx.zeros((100000,))})"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("write", [FULL_TEXT, FULL_WEIGHTS], ids=["text", "weights"])
def test_a_full_disk_is_told_in_one_line_and_spoils_nothing(project: Project, write: str) -> None:
    before = sorted(path.name for path in (project.root / "models").iterdir())
    program = f"""
from pathlib import Path
from blogtune.common.files import atomic_folder
from blogtune.common.command import readable_errors
import mlx.core as mx
with readable_errors():
    {write}
"""
    result = project.run(sys.executable, "-c", program, fails=True)
    assert result.returncode == 1
    assert result.stderr == (
        "error: no room left on the disk; "
        "free some, then `dvc repro` goes on from what is finished\n"
    )
    assert sorted(path.name for path in (project.root / "models").iterdir()) == before
    assert (project.root / "models/adapter/adapters.safetensors").exists()

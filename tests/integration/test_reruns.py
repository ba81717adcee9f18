"""A change reruns exactly what depends on it, with the real `dvc repro`."""

from collections.abc import Callable

import pytest

from tests.integration.project import LIGHT, Project

BEHIND_TRAIN = {
    *("train", "fuse", "answer@finetuned", "answer@fused", "baselines"),
    *("judge", "compare", "probe"),
}
COMMENT = "\n# a comment\n"

cases = pytest.mark.parametrize(
    ("change", "stages"),
    [
        pytest.param(
            lambda project: project.set(judge__other_references=3),
            {"judge", "check_judge", "compare"},
            id="judge key",
        ),
        pytest.param(
            lambda project: project.append("blogtune/checking/probes.py", COMMENT),
            {"check_judge", "compare"},
            id="comment in the judge's test",
        ),
        pytest.param(lambda project: project.set(probe__seed=8), {"probe"}, id="probe key"),
        pytest.param(
            lambda project: project.set(compare__candidate="fused"), {"compare"}, id="candidate"
        ),
        pytest.param(
            lambda project: project.append("blogtune/comparing/verdict.py", COMMENT),
            {"compare"},
            id="comment in a library module",
        ),
        pytest.param(
            lambda project: project.append("blogtune/project/comparison_table.py", COMMENT),
            set[str](),
            id="comment in a module that no stage uses",
        ),
    ],
)


@cases
def test_a_change_reruns_what_depends_on_it(
    project: Project, change: Callable[[Project], None], stages: set[str]
) -> None:
    change(project)
    assert project.repro() == stages


def test_changed_back_it_comes_from_the_cache(project: Project) -> None:
    project.set(compare__candidate="fused")
    project.repro()
    project.set(compare__candidate="finetuned")
    result = project.run("dvc", "repro")
    assert "Running stage" not in result.stdout
    assert "'compare' is cached" in result.stdout
    assert project.run("git", "status", "--porcelain").stdout == ""


@pytest.mark.slow
def test_a_training_parameter_leaves_the_base_model_s_answers_alone(project: Project) -> None:
    project.set_all({**LIGHT, "train.lora.rank": 4})
    assert project.repro() == BEHIND_TRAIN


@pytest.mark.slow
def test_one_byte_of_data_reruns_prepare_and_what_follows(project: Project) -> None:
    project.set_all(LIGHT)
    project.repro("train")
    file = project.root / "data/raw/lora.jsonl"
    data = file.read_bytes()
    place = data.index(b'"role": "assistant", "content": "') + 33
    file.write_bytes(data[:place] + b"X" + data[place + 1 :])
    assert len(file.read_bytes()) == len(data)
    stages = project.repro()
    assert {"prepare", "train", "fuse", "compare"} <= stages
    assert "fetch" not in stages

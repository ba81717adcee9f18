from typing import Any

import pytest
from pydantic import ValidationError

from tests.comparing.build import params


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        pytest.param({"poor": 0.7}, "poor", id="poor is not below good"),
        pytest.param({"good": 1.0}, "good", id="nothing could be good"),
        pytest.param({"candidate": "echo"}, "candidate", id="not a model"),
        pytest.param({"confidence": 95}, "confidence", id="confidence in percent"),
        pytest.param({"min_posts": 2}, "min_posts", id="too few posts"),
        pytest.param({"examples": 0}, "examples", id="no examples"),
        pytest.param({"bootstrap": 100}, "bootstrap", id="unknown key"),
    ],
)
def test_a_value_out_of_range_names_its_key(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(ValidationError) as caught:
        params(**changes)
    assert [problem["loc"] for problem in caught.value.errors()] == [(key,)]

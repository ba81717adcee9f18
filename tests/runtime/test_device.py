import mlx.core as mx
import pytest

from blogtune.runtime.device import compute_dtype, describe, on_cpu
from blogtune.runtime.params import RuntimeParams


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("float32", mx.float32), ("float16", mx.float16), ("bfloat16", mx.bfloat16)],
)
def test_a_type_by_name_is_that_type(name: str, dtype: mx.Dtype) -> None:
    assert compute_dtype(RuntimeParams.model_validate({"dtype": name, "processes": 1})) == dtype


def test_auto_is_float32_on_a_cpu_and_bfloat16_elsewhere() -> None:
    expected = mx.float32 if on_cpu() else mx.bfloat16
    assert compute_dtype(RuntimeParams(dtype="auto", processes=1)) == expected
    assert on_cpu() == (mx.default_device().type == mx.cpu)


def test_the_device_is_told_in_a_phrase() -> None:
    phrases = ("Apple GPU", "CUDA GPU", "CPU with OpenBLAS", "CPU with the reference BLAS: slow")
    assert describe().startswith(phrases)
    assert describe().startswith("CPU") == on_cpu()

import re
from pathlib import Path

import mlx.core as mx
import psutil
import pytest

from blogtune.cpu.cores import usable_cores
from blogtune.runtime import device as module
from blogtune.runtime.device import Device, compute_dtype, device, fast_math, free_memory, padded
from blogtune.runtime.params import RuntimeParams

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("float32", mx.float32), ("float16", mx.float16), ("bfloat16", mx.bfloat16)],
)
def test_a_type_by_name_is_that_type(name: str, dtype: mx.Dtype) -> None:
    assert compute_dtype(RuntimeParams.model_validate({"dtype": name, "processes": 1})) == dtype


def test_auto_is_float32_on_a_cpu_and_as_stored_elsewhere() -> None:
    expected = mx.float32 if device().is_cpu else None
    assert compute_dtype(RuntimeParams(dtype="auto", processes=1)) == expected
    assert device().is_cpu == (mx.default_device().type == mx.cpu)


def test_the_device_is_told_in_a_phrase() -> None:
    phrases = ("Apple GPU", "CUDA GPU", "CPU with OpenBLAS", "CPU with the reference BLAS: slow")
    assert device().name.startswith(phrases)
    assert device().name.startswith("CPU") == device().is_cpu


class Elsewhere:
    """MLX as it answers on a GPU."""

    def __init__(self, *, metal: bool) -> None:
        self.metal = self
        self.available = metal
        self.type = "gpu"

    def default_device(self) -> "Elsewhere":
        return self

    def is_available(self) -> bool:
        return self.available

    def __getattr__(self, name: str) -> object:
        return getattr(mx, name)


@pytest.mark.parametrize(("metal", "name"), [(True, "Apple GPU"), (False, "CUDA GPU")])
def test_a_gpu_computes_as_stored_with_its_own_functions(
    monkeypatch: pytest.MonkeyPatch, *, metal: bool, name: str
) -> None:
    monkeypatch.setattr(module, "mx", Elsewhere(metal=metal))
    found = device()
    assert found == Device(name, None, 1, 32, is_cpu=False)
    assert padded(33) == padded(64) == 64
    before = mx.fast.scaled_dot_product_attention
    with fast_math():
        assert mx.fast.scaled_dot_product_attention is before


def test_a_cpu_widens_weights_and_shares_work_among_its_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module.mx, "default_device", lambda: mx.Device(mx.cpu, 0))
    found = device()
    assert (found.dtype, found.cores, found.is_cpu) == (mx.float32, usable_cores(), True)
    assert padded(33) == 33


@pytest.mark.parametrize(
    ("about", "held", "expected"),
    [
        pytest.param({"max_recommended_working_set_size": 12_000}, 5_000, 7_000, id="Metal's"),
        pytest.param(
            {"max_recommended_working_set_size": 12_000}, 0, 10_500, id="the Mac has less"
        ),
        pytest.param({"max_recommended_working_set_size": 12_000}, 13_000, 0, id="Metal is full"),
        pytest.param({"free_memory": 80_000, "total_memory": 90_000}, 5_000, 80_500, id="CUDA's"),
        pytest.param({"architecture": "x86_64"}, 5_000, 10_500, id="the system's"),
    ],
)
def test_free_memory_is_that_of_where_arrays_lie(
    monkeypatch: pytest.MonkeyPatch, about: dict[str, object], held: int, expected: int
) -> None:
    real = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: real._replace(available=10_000))
    monkeypatch.setattr(module.mx, "device_info", lambda: about)
    monkeypatch.setattr(module.mx, "get_active_memory", lambda: held)
    monkeypatch.setattr(module.mx, "get_cache_memory", lambda: 500)
    assert free_memory() == expected


def test_no_more_than_six_places_ask_which_device_it_is() -> None:
    asking = re.compile(r"\.is_cpu\b|default_device\(|metal\.is_available\(")
    sources = (file.read_text(encoding="utf-8") for file in (ROOT / "blogtune").rglob("*.py"))
    assert sum(len(asking.findall(source)) for source in sources) <= 6

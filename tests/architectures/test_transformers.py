"""Fused models in transformers with torch, which has an environment of its own: logits agree."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from mlx_lm.utils import make_shards

from benchmarks.fused import PEERS, Agreement, compare
from blogtune.fusing.fuse import fuse
from tests import tiny
from tests.architectures.conftest import PAIRS, Trained
from tests.architectures.families import FAMILIES
from tests.fusing.conftest import fuse_params, make_adapter, quantized
from tests.fusing.test_fuse import Kilobytes

PYTHON = Path(os.environ.get("BLOGTUNE_PEERS", PEERS))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not PYTHON.exists(), reason=f"no {PYTHON}: make .venv-peers/.ready, or set BLOGTUNE_PEERS"
    ),
]
# Known texts, and one on which a model has nothing to be sure of.
ANSWER = "A factor of the seed, when it is done."
TEXTS = [*PAIRS, tiny.pair("n", "Tell again of it all!", ANSWER)]
# Longer than the 64 tokens from which on Phi-4-mini's shape has other frequencies.
LONG = [tiny.pair("long", "Tell again and again of it all! " * 4, ANSWER)]
MODELS = [*FAMILIES, "phi3 in parts", "phi3 from 4 bits", "phi4-mini, long"]


@pytest.fixture(scope="module")
def agreements(
    make_trained: Callable[[str], Trained],
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> dict[str, Agreement]:
    """Those that are asked for, in one process there: seven families, one of them in parts, and one
    whose base was quantized."""
    asked = {item.name for item in request.session.items}
    names = [name for name in MODELS if any(each.endswith(f"[{name}]") for each in asked)]
    root = tmp_path_factory.mktemp("shipped")
    families = [name for name in FAMILIES if name in names or f"{name}, long" in names]
    folders = {name: make_trained(name).fused for name in families}
    phi3 = make_trained("phi3")
    folders["phi3 in parts"] = root / "parts"
    with pytest.MonkeyPatch.context() as patch:
        small = partial(make_shards, max_file_size_gb=Kilobytes(64))
        patch.setattr("mlx_lm.utils.make_shards", small)
        fuse(phi3.base, phi3.adapter, folders["phi3 in parts"], fuse_params())
    folders["phi3 from 4 bits"] = root / "plain"
    base = quantized(phi3.base, root / "quantized")
    fuse(base, make_adapter(base, root / "adapter"), folders["phi3 from 4 bits"], fuse_params())
    if "phi4-mini" in folders:
        folders["phi4-mini, long"] = folders["phi4-mini"]
    jobs = [(folders[name], LONG if "long" in name else TEXTS) for name in names]
    return dict(zip(names, compare(jobs, 12, "float32", PYTHON), strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_transformers_gives_the_logits_that_mlx_gives(
    agreements: dict[str, Agreement], name: str
) -> None:
    agreement = agreements[name]
    print(f"{name}: {agreement}")
    assert agreement.top1 >= 0.99
    assert agreement.difference < 1e-3
    assert all(place is None for place in agreement.parted), str(agreement)

from pathlib import Path

import mlx.core as mx
import pytest

from blogtune.models.loading import LoadedModel, load_model


@pytest.fixture(scope="module")
def taught(taught_folder: Path) -> LoadedModel:
    return load_model(taught_folder, mx.float32)

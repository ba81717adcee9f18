"""models/export/weights.json: which weights the files beside it were made of, in DVC's words.

{"models/fused": "9c1f...e2.dir"}
"""

import json
from pathlib import Path

from blogtune.common.errors import UserError
from blogtune.common.files import write_json
from blogtune.project import lock

WEIGHTS = "weights.json"
FUSED = Path("models/fused")


def measured_weights(answers: Path) -> str:
    """The name that dvc.lock gives the weights in models/fused, whose answers are in `answers`.

    Raises UserError where the two do not belong together: answers of older weights pass for these
    by their questions alone.
    """
    if lock.changes("answer@fused"):
        raise UserError(
            f"not the answers of the present {FUSED} (see `dvc status answer@fused`)",
            where=answers,
            remedy="run `dvc repro`",
        )
    return lock.outputs()[str(FUSED)]


def write_weights(folder: Path, name: str) -> None:
    write_json(folder / WEIGHTS, {str(FUSED): name})


def weights_of(folder: Path) -> str | None:
    """The name of the weights that the folder's files were made of; None where it says none."""
    try:
        return str(json.loads((folder / WEIGHTS).read_text(encoding="utf-8"))[str(FUSED)])
    except (OSError, ValueError, KeyError, TypeError):
        return None

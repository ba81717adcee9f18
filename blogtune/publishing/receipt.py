"""What was published, as metrics/published.json says it: written last, and meant to be committed.

{"repository": "someone/blog", "url": "https://huggingface.co/someone/blog",
 "commit": "41c0...", "commit_url": "https://huggingface.co/someone/blog/tree/41c0...",
 "source_commit": "5d68...", "dvc_lock": "9f0e...", "card": "8a31...",
 "files": {"README.md": {"size": 6120, "sha256": "1d2f..."}, "model.safetensors": {...}, ...}}
"""

from pathlib import Path

from pydantic import ValidationError

from blogtune.common.errors import UserError
from blogtune.common.records import Record

RECEIPT = Path("metrics/published.json")


class PublishedFile(Record):
    size: int
    sha256: str


class Receipt(Record):
    """`commit` is the hub's, `source_commit` ours, `card` git's name of the card's content."""

    repository: str
    url: str
    commit: str
    commit_url: str
    source_commit: str
    dvc_lock: str
    card: str
    files: dict[str, PublishedFile]


def read_receipt(repository: str, path: Path = RECEIPT) -> Receipt | None:
    """The receipt of what was last published there, if any. Raises UserError if it is broken."""
    if not path.exists():
        return None
    try:
        receipt = Receipt.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise UserError(
            "not a receipt", where=path, remedy=f"run `git checkout {path}`, or remove it"
        ) from error
    return receipt if receipt.repository == repository else None

"""HF_ENDPOINT, which says where the hub is: the hub's client cannot be imported where it is odd."""

import os
import sys
from urllib.parse import urlsplit

ODD, REMEDY = "no address of a hub", "unset it, or let it read https://host"


def check() -> None:
    """End with one line where no address can be read from it: the import would end in a traceback.

    Its value is not told: there may be a password in it.
    """
    try:
        _ = urlsplit(os.environ.get("HF_ENDPOINT", "")).port
    except ValueError:
        sys.exit(f"error: HF_ENDPOINT: {ODD}; {REMEDY}")


def is_address(text: str) -> bool:
    parts = urlsplit(text)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and text.isprintable()

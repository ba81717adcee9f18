"""Looks up what a hub repository's main branch points at."""

from blogtune.errors import UserError


def hub_commit(repository: str) -> str:
    """The commit of the repository's main branch, as the hub says it.

    Raises UserError when there is no such repository, no access, or no network.
    """
    from httpx2 import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError

    try:
        commit = HfApi().repo_info(repository, timeout=30).sha
    except (HFValidationError, HTTPError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"hub:{repository}: its commit could not be looked up: {reason}") from error
    if commit is None:
        raise UserError(f"hub:{repository}: the hub names no commit")
    return commit

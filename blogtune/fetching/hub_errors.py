"""What can go wrong with the hub, each in one line with its remedy.

An error's own text is never told: it may hold an address that is signed.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Literal

from blogtune.common.errors import UserError
from blogtune.common.proxies import proxy_variable
from blogtune.fetching.surroundings import prepare_client

Kind = Literal["model", "dataset"]
MISSHAPEN = (ValueError, TypeError, KeyError, AttributeError, RecursionError)


@contextmanager
def readable_errors(name: str, kind: Kind, revision: str | None) -> Generator[None]:
    """Turn what the hub's client raises into a UserError of one line; the disk's errors stay."""
    from httpx2 import HTTPError, InvalidURL
    from huggingface_hub.errors import HFValidationError

    prepare_client()
    try:
        yield
    except HFValidationError as error:
        raise UserError(
            "no repository's name", where=f"hub:{name}", remedy="it reads owner/name"
        ) from error
    # What comes of a listing in another shape: the client reads it as it expects it.
    except (HTTPError, OSError, InvalidURL, *MISSHAPEN) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's, not the hub's
        what, remedy = _told(error, name, kind, revision)
        raise UserError(what, where=f"hub:{name}", remedy=remedy) from error


def _told(error: Exception, name: str, kind: Kind, revision: str | None) -> tuple[str, str]:
    """What went wrong, and what to do."""
    from httpx2 import ConnectError, ConnectTimeout, InvalidURL
    from huggingface_hub import constants, errors, get_token

    hub = constants.ENDPOINT
    page = f"{hub}/{'datasets/' if kind == 'dataset' else ''}{name}"
    log_in = "log in with `hf auth login`, or set HF_TOKEN"
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else 0
    if isinstance(error, errors.GatedRepoError):
        # With a token, its owner has not accepted the terms yet; without one, nobody is known.
        then = "with the account that your token is of" if get_token() else f"and {log_in}"
        return f"gated: accept its terms at {page} {then}", ""
    if isinstance(error, errors.RevisionNotFoundError):
        return f"no commit {revision} there", "run `make pin`"
    if status in (401, 403) and get_token() and not _is_missing(error):
        return (
            f"the hub refuses your token ({status})",
            "renew it with `hf auth login`, or unset it",
        )
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 403):
        what = "data set" if kind == "dataset" else "model"
        return f"no such {what}, or a private one", f"look at {page}, and {log_in} if it is private"
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return "a file that the hub lists is not there", "run it again, later"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, so nothing is fetched", "unset it"
    if status == 429:
        return f"too many requests for {hub} (429)", "wait some minutes, then run it again"
    if status:
        return f"{hub} answers with an error ({status})", "run it again, later"
    if isinstance(error, (InvalidURL, *MISSHAPEN)):
        return f"what answers at {hub} is no hub", "look at HF_ENDPOINT"
    unreached = isinstance(error, (ConnectError, ConnectTimeout))
    then = "run it again when there is one" if unreached else "what came is kept, run it again"
    variable = proxy_variable(hub)
    through = f" through the proxy in {variable}" if variable else ""
    return f"no connection to {hub}{through}, or it broke ({type(error).__name__})", then


def _is_missing(error: Exception) -> bool:
    from huggingface_hub.errors import RepositoryNotFoundError

    return isinstance(error, RepositoryNotFoundError)

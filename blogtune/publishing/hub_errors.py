"""What goes wrong with the hub, in one line, and without its secrets."""

from collections.abc import Generator
from contextlib import contextmanager
from json import JSONDecodeError

from httpx2 import HTTPError
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from blogtune.common.errors import UserError
from blogtune.fetching.surroundings import without_queries

AGAIN = "run `make publish` again; what has arrived is not sent twice"
LONGEST = 300


@contextmanager
def hub_errors(api: HfApi, doing: str) -> Generator[None]:
    """Turn what the client raises into a UserError that says what to do."""
    try:
        yield
    # KeyError and TypeError: from an answer that is not what the hub's protocol says.
    except (HTTPError, OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        what, remedy = _said(error)
        # The cause is left out: a server might repeat the token that it was sent.
        what = _without_secrets(what, str(api.token))
        raise UserError(what, where=doing, remedy=remedy) from None
    except KeyboardInterrupt:
        raise UserError("stopped", where=doing, remedy=AGAIN) from None


def _said(error: BaseException) -> tuple[str, str]:
    """What went wrong, and what to do."""
    http = _http_error(error)
    if http is None and isinstance(error, KeyError | TypeError | JSONDecodeError):
        return "the reply does not follow the hub's protocol", AGAIN
    if http is None:
        reason = " ".join(str(error.__cause__ or error).split()) or type(error).__name__
        return reason[:LONGEST], AGAIN
    status = http.response.status_code
    if status == 401:
        return "the hub does not accept the token (401)", "run `hf auth login`, or set HF_TOKEN"
    if status == 403:
        what = "the token has no permission for this (403)"
        return what, "run `hf auth login` with a token that may write there"
    if status in (409, 412):
        return f"the repository changed meanwhile ({status})", AGAIN
    if status == 429:
        wait = http.response.headers.get("Retry-After")
        return "too many requests (429)", f"wait{f' {wait} s' if wait else ''}, then {AGAIN}"
    reason = http.server_message or str(http)
    return f"{status}, {' '.join(reason.split())[:LONGEST]}", AGAIN


def _http_error(error: BaseException | None) -> HfHubHTTPError | None:
    """The hub's own answer among what led to the error; uploads wrap it."""
    while error is not None and not isinstance(error, HfHubHTTPError):
        error = error.__cause__
    return error


def _without_secrets(text: str, token: str) -> str:
    return without_queries(text).replace(token, "<token>")

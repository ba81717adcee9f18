"""What the environment must not spoil before the hub is asked: its address, proxies, the token."""

import logging
import re

from blogtune.common import endpoint
from blogtune.common.errors import UserError
from blogtune.common.output import in_one_line
from blogtune.common.proxies import check_proxies, spare_this_machine


class Plain(logging.Filter):
    """Shows log records as all else is shown, and without the queries of URLs.

    That of an upload's URL is a key to it, and a hub may send a warning of any text.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = in_one_line(without_queries(record.getMessage())), ()
        return True


PLAIN = Plain()


def prepare_client() -> None:
    """Make the hub's client fit to be used. Raises UserError that names the variable at fault."""
    from huggingface_hub import constants, get_token

    if not endpoint.is_address(constants.ENDPOINT):
        raise UserError(endpoint.ODD, where="HF_ENDPOINT", remedy=endpoint.REMEDY)
    token = get_token() or ""
    if not (token.isascii() and token.isprintable() and " " not in token):
        remedy = "`hf auth login` keeps a new one, or set HF_TOKEN anew"
        raise UserError("holds what no token holds", where="the hub's token", remedy=remedy)
    check_proxies()
    spare_this_machine()
    for handler in logging.getLogger("huggingface_hub").handlers:
        handler.addFilter(PLAIN)


def without_queries(text: str) -> str:
    return re.sub(r"\?[\w.~%-]+=[^\s'\"]*", "", text)

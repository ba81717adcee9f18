"""Which proxy the environment names for an address, so that a message can name its variable."""

import ipaddress
import os
from collections.abc import Iterator
from importlib.util import find_spec
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

from blogtune.common.errors import UserError

HERE = "localhost,127.0.0.1,::1"
KINDS = ("http_proxy", "https_proxy", "all_proxy")


def proxy_variable(address: str) -> str | None:
    """The variable that names the proxy for this address; None where there is none between.

    Never for a server on this machine, which a proxy cannot see.
    """
    parts = urlsplit(address)
    host = parts.hostname or "127.0.0.1"
    if _is_this_machine(host) or proxy_bypass(host):
        return None
    return next(_variables(f"{parts.scheme}_proxy", "all_proxy"), None)


def check_proxies() -> None:
    """Raise UserError where a variable names what is no proxy, or a SOCKS one that lacks its part.

    The hub's client opens a way through each of them before it asks whether one is needed.
    """
    for name in _variables(*KINDS):
        try:
            scheme = urlsplit(os.environ[name]).scheme
        except ValueError:
            scheme = ""
        if scheme not in ("http", "https", "socks5", "socks5h"):
            raise UserError("names no proxy", where=name, remedy="unset it, or mend it")
        if scheme.startswith("socks") and find_spec("socksio") is None:
            remedy = "`.venv/bin/python -m pip install socksio`, or unset it"
            raise UserError("names a SOCKS proxy, which needs socksio", where=name, remedy=remedy)


def spare_this_machine() -> None:
    """Let no proxy come between us and a server on this machine."""
    name = "no_proxy" if os.environ.get("no_proxy") else "NO_PROXY"
    given = os.environ.get(name)
    if given is None or HERE not in given:
        os.environ[name] = f"{given},{HERE}" if given else HERE


def _variables(*names: str) -> Iterator[str]:
    spelt = (each for name in names for each in (name, name.upper()))
    return (name for name in spelt if os.environ.get(name))


def _is_this_machine(host: str) -> bool:
    try:
        number = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    # 0.0.0.0, as a server is told to listen everywhere, leads a client to its own machine.
    return number.is_loopback or number.is_unspecified

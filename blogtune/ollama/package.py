"""The `ollama` package, imported where no environment can stop it.

While it is imported the package opens a client that nobody here uses, from OLLAMA_HOST and from
the proxies' variables: ALL_PROXY=socks5://... ended every run, also one that needs no network.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def _without_network_settings() -> Generator[None]:
    names = [name for name in os.environ if name.lower().endswith(("_proxy", "ollama_host"))]
    taken = {name: os.environ.pop(name) for name in names}
    try:
        yield
    finally:
        os.environ.update(taken)


with _without_network_settings():
    import ollama

__all__ = ["ollama"]

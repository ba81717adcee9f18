"""A server that means no good costs one line, within the time, and nothing goes elsewhere."""

import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from blogtune.common.errors import UserError
from blogtune.common.proxies import proxy_variable
from blogtune.judging import ollama as judging
from blogtune.judging.ollama import OllamaJudge
from blogtune.judging.protocol import Item
from blogtune.ollama.client import OllamaModel
from blogtune.ollama.transport import MOST_BYTES
from tests.judging.server import MODEL, judge_params
from tests.judging.server import serve as serve_well
from tests.ollama.hostile import (
    HEAD,
    MISSHAPEN,
    REDIRECTS,
    SLOW,
    Sender,
    dripping,
    once,
    serve,
    whole,
)

ROOT = Path(__file__).parents[2]
SECONDS = 2.0
# What this machine may take besides, busy as it may be.
SPARE = 20.0
EVERY = {**SLOW, **MISSHAPEN, **REDIRECTS}
each = pytest.mark.parametrize("sender", EVERY.values(), ids=list(EVERY))


def model(address: str | None, seconds: float = SECONDS) -> OllamaModel:
    return OllamaModel(MODEL, address, seconds)


@each
def test_a_look_at_the_server_ends_in_one_line_within_the_time(sender: Sender) -> None:
    with serve(sender) as server, serve(once(whole(b"{}"))) as other:
        server.other = other.address
        start = time.monotonic()
        with pytest.raises(UserError) as caught:
            model(server.address).require(pull=False)
        assert time.monotonic() - start < SECONDS + SPARE
    told = str(caught.value)
    assert told.isprintable()
    assert len(told) < 500
    assert server.address in told
    assert other.asked == []
    assert len(server.asked) == 1


@each
def test_a_question_to_the_judge_ends_in_one_line_within_the_time(sender: Sender) -> None:
    with serve(sender) as server, serve(once(whole(b"{}"))) as other:
        server.other = other.address
        params = judge_params(server.address, retries=0, timeout_seconds=SECONDS)
        start = time.monotonic()
        with pytest.raises(UserError) as caught:
            OllamaJudge(params, model(server.address))
        assert time.monotonic() - start < SECONDS + SPARE
    assert str(caught.value).isprintable()
    assert other.asked == []


def test_a_server_that_turns_slow_leaves_the_items_unscored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(judging, "FIRST_DELAY_SECONDS", 0.01)
    with serve_well() as good:
        params = judge_params(good.address, retries=0, timeout_seconds=SECONDS)
        judge = OllamaJudge(params, model(good.address))
    for kind, sender in SLOW.items():
        with serve(sender) as server:
            judge.model = model(server.address)
            start = time.monotonic()
            (verdict,) = judge.judge([Item("Why?", "So.", "Thus.")])
            assert time.monotonic() - start < SECONDS + SPARE, kind
        assert (verdict.similarity, verdict.reason) == (None, "timeout"), kind


def test_an_endless_body_takes_no_memory_beyond_the_limit() -> None:
    tracemalloc.start()
    with serve(MISSHAPEN["an endless body"]) as server, pytest.raises(UserError):
        model(server.address).digest()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * MOST_BYTES


def test_a_body_of_just_the_limit_is_read() -> None:
    body = b'{"models": []}'
    with serve(once(whole(body + b" " * (MOST_BYTES - 1000)))) as server:
        assert model(server.address).digest() is None
    with serve(once(whole(body + b" " * MOST_BYTES))) as server, pytest.raises(UserError):
        model(server.address).digest()


def test_a_pull_that_gets_on_takes_longer_than_one_request_may_and_one_that_stalls_does_not() -> (
    None
):
    head = HEAD + b"\r\n"

    def gets_on(_: object):
        yield head
        for done in range(6):
            yield b'{"status": "pulling", "completed": %d, "total": 5}\n' % done
            time.sleep(0.4)

    with serve(gets_on) as server:
        asked = model(server.address, 1.0)
        start = time.monotonic()
        asked._pull()
        assert time.monotonic() - start > 2.0
    with serve(dripping(head, b'{"status": "pulling", "completed": 1, "total": 5}\n', 0.2)) as bad:
        start = time.monotonic()
        with pytest.raises(UserError):
            model(bad.address, 1.0)._pull()
        assert time.monotonic() - start < 1.0 + SPARE


HERE = ["127.0.0.1", "127.1.2.3", "localhost", "my.localhost", "[::1]", "0.0.0.0"]


@pytest.mark.parametrize("host", HERE)
@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_no_proxy_stands_between_us_and_this_machine(
    monkeypatch: pytest.MonkeyPatch, host: str, name: str
) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert proxy_variable(f"http://{host}:11434") is None


def test_a_server_on_this_machine_is_found_past_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was "no Ollama server ... start it with `ollama serve`"."""
    for name in ("HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with serve_well() as server:
        assert model(server.address).digest() is not None
        monkeypatch.setenv("OLLAMA_HOST", server.address)
        assert model(None).digest() is not None


def test_a_server_elsewhere_is_asked_by_the_proxy_which_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serve(once(whole(b'{"error": "no way"}', "502 Bad Gateway"))) as proxy:
        monkeypatch.setenv("http_proxy", proxy.address.replace("//", "//me:secret@"))
        with pytest.raises(UserError) as caught:
            model("http://ollama.example:11434").digest()
    assert proxy.asked == ["GET http://ollama.example:11434/api/tags HTTP/1.1"]
    assert str(caught.value) == (
        "ollama:toy: the server at http://ollama.example:11434 (by the proxy in http_proxy, which "
        "NO_PROXY=ollama.example goes past) says: no way (HTTP 502)"
    )
    monkeypatch.setenv("no_proxy", "example")
    assert proxy_variable("http://ollama.example:11434") is None


@pytest.mark.parametrize("proxy", ["socks5://me:secret@127.0.0.1:1080", "http://[::1", "ftp://a"])
def test_a_proxy_of_another_kind_is_named_where_it_is_in_the_way(
    monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(UserError) as caught:
        model("http://ollama.example:11434").digest()
    assert str(caught.value) == (
        "ALL_PROXY: names no HTTP proxy, and Ollama is reached through no other; unset it, or set "
        "NO_PROXY=ollama.example"
    )


@pytest.mark.parametrize(
    "proxy", ["socks5://127.0.0.1:1080", "nonsense://", "http://[::1", "http://a:b:c"]
)
@pytest.mark.parametrize("module", ["blogtune.judging.ollama", "commands.preflight"])
def test_what_needs_no_network_starts_whatever_the_environment_says(
    module: str, proxy: str
) -> None:
    """ALL_PROXY=socks5://... ended in an ImportError: the package opens a client when imported."""
    names = ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "https_proxy")
    environment = {**os.environ, **dict.fromkeys(names, proxy), "OLLAMA_HOST": "http://[::1"}
    command = [sys.executable, "-c", f"import {module}, os; print(os.environ['ALL_PROXY'])"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, proxy, "")


@pytest.mark.parametrize(
    "address",
    [
        *("http://[::1", "http://host:port", "http://host:0", "ftp://host", "http://host:99999"),
        *("http://me:pa/ss@host", "http://me:secret@ho\x1bst", "me:secret@host:x"),
    ],
)
def test_an_address_that_is_none_is_one_line_without_it(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", address)
    with pytest.raises(UserError) as caught:
        model(None).digest()
    assert str(caught.value) == ("OLLAMA_HOST: no address of a server; it reads http://host:11434")


@pytest.mark.parametrize("address", ["http://me:secret@127.0.0.1:9", "me:se@cret@127.0.0.1:9"])
def test_a_password_in_the_address_is_not_told(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", address)
    with pytest.raises(UserError) as caught:
        model(None).digest()
    assert "127.0.0.1:9 (ConnectionError)" in str(caught.value)
    assert "cret" not in str(caught.value)


def test_a_password_in_params_is_refused_and_not_told() -> None:
    with pytest.raises(ValueError, match="must hold no user and password") as caught:
        judge_params("http://me:secret@host:1")
    assert "secret@" not in str(UserError(str(caught.value)))

"""A thousand replies of every kind from an Ollama server and from a hub: a result, or one line."""

import json
import re
import time
import unicodedata
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blogtune.common.errors import UserError
from blogtune.fetching.hub import look_up
from blogtune.fetching.repositories import data_files, model_files
from blogtune.judging.ollama import OllamaJudge
from blogtune.judging.protocol import Item
from blogtune.ollama.client import OllamaModel
from tests.fetching.hub import COMMIT, client
from tests.judging.server import DIGEST, MODEL, Reply, judge_params
from tests.judging.server import serve as serve_well
from tests.ollama.hostile import Server, serve, whole

pytestmark = pytest.mark.slow
SECONDS, SPARE = 2.0, 20.0
thousand = settings(max_examples=1000, suppress_health_check=list(HealthCheck))
ITEM = Item("Why?", "So.", "Thus.")

KEYS = st.sampled_from(
    [
        *("models", "model", "digest", "message", "content", "role", "logprobs", "token", "error"),
        *("logprob", "top_logprobs", "model_info", "toy.context_length", "prompt_eval_count"),
        *("eval_count", "done", "details", "sha", "siblings", "rfilename", "size", "blobId", "lfs"),
        *("sha256", "cardData", "license", "id", "private", "tags", "gated", "lastModified"),
    ]
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.sampled_from(
        ["toy:latest", DIGEST, COMMIT, '{"score": 4}', '{"score": 9}', "config.json", "../x"]
    ),
    st.sampled_from(["\x1b[2J", "\u202e", "a\x00b", 10**400, -1, 1e308]),
)
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=30,
)
CHAT = Reply().body()
TAGS = {"models": [{"model": "toy:latest", "digest": DIGEST}]}
SHOWN = {"model_info": {"toy.context_length": 8192}}
LISTED = {
    "id": "a/b",
    "sha": COMMIT,
    "cardData": {"license": "mit"},
    "siblings": [
        {"rfilename": "config.json", "size": 2, "blobId": "a" * 40},
        {
            "rfilename": "model.safetensors",
            "size": 9,
            "blobId": "b" * 40,
            "lfs": {"sha256": "c" * 64, "size": 9, "pointerSize": 100},
        },
    ],
}
STATUSES = st.sampled_from(["200 OK", "204 No Content", "302 Found", "400 Bad", "500 Oh \x1b[2J"])


@st.composite
def mutated(draw: st.DrawFn, value: Any) -> Any:
    """The value with something else in the place of one of its parts."""
    value = json.loads(json.dumps(value))
    inner: Any = value
    while isinstance(inner, dict | list) and inner:
        places = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        place = draw(st.sampled_from(places))
        deeper = isinstance(inner[place], dict | list) and inner[place] and draw(st.booleans())
        if not deeper:
            inner[place] = draw(ANYTHING)
            return value
        inner = inner[place]
    return value


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def replies(*honest: Any) -> st.SearchStrategy[bytes]:
    """Whole HTTP replies: of another shape, slightly wrong, cut off, or bytes at random."""
    bodies = st.one_of(
        *(mutated(each).map(encoded) for each in honest),
        ANYTHING.map(encoded),
        st.binary(max_size=200),
    )
    built = st.builds(lambda body, status: whole(body, status), bodies, STATUSES)
    good = bodies.map(whole)
    cut = st.builds(lambda reply, share: reply[: int(len(reply) * share)], good, st.floats(0, 1))
    return st.one_of(good, good, built, cut, st.binary(max_size=200))


class Turn:
    """What the server sends next."""

    reply = b""

    def __call__(self, _: Server) -> Generator[bytes]:
        yield self.reply


@pytest.fixture
def turn() -> Turn:
    return Turn()


@pytest.fixture
def server(turn: Turn) -> Iterator[Server]:
    with serve(turn) as server:
        yield server


def shows_itself(text: str) -> bool:
    """One line without controls, surrogates or what turns a line around.

    Not `isprintable`: a code point that is a letter in a later Unicode than Python's, one of
    private use and a wide space are none of these.
    """
    hidden = [each for each in text if unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp")]
    return not hidden and not re.search("[\u202a-\u202e\u2066-\u2069]", text)


def in_time_and_one_line(request: Callable[[], Any]) -> Any:
    """What it returns; None where a UserError of one line was raised."""
    start = time.monotonic()
    found, told = None, ""
    try:
        found = request()
    except UserError as error:
        told = str(error)
    assert shows_itself(told)
    assert time.monotonic() - start < SECONDS + SPARE
    return found


def test_a_look_at_an_ollama_server(server: Server, turn: Turn) -> None:
    model = OllamaModel(MODEL, server.address, SECONDS)

    @thousand
    @given(replies(TAGS, SHOWN))
    def check(reply: bytes) -> None:
        turn.reply = reply
        found = in_time_and_one_line(lambda: model.require(pull=False))
        assert found is None or (len(found) == 64 and found.isalnum())
        length = in_time_and_one_line(model.context_length)
        assert length is None or (type(length) is int and length > 0)
        in_time_and_one_line(model._pull)

    check()


def test_a_verdict_of_an_ollama_judge(server: Server, turn: Turn) -> None:
    with serve_well() as good:
        params = judge_params(good.address, retries=0, timeout_seconds=SECONDS, workers=1)
        judge = OllamaJudge(params, OllamaModel(MODEL, good.address, SECONDS))
    judge.model = OllamaModel(MODEL, server.address, SECONDS)

    @thousand
    @given(replies(CHAT))
    def check(reply: bytes) -> None:
        turn.reply = reply
        judge.lost = 0
        (verdict,) = judge.judge([ITEM])
        if verdict.similarity is None:
            assert verdict.reason
            assert shows_itself(verdict.reason)
        else:
            # Never a score that nobody gave.
            assert 0.0 <= verdict.similarity <= 1.0
            body = json.loads(reply.partition(b"\r\n\r\n")[2])
            assert json.loads(body["message"]["content"])["score"] in (1, 2, 3, 4, 5)

    check()


def test_a_listing_of_a_hub(server: Server, turn: Turn, tmp_path: Path) -> None:
    @thousand
    @given(replies(LISTED))
    def check(reply: bytes) -> None:
        turn.reply = reply
        found = in_time_and_one_line(lambda: look_up("a/b", "model"))
        if found is not None:
            assert len(found.commit) == 40
            for files in (model_files, data_files):
                for file in in_time_and_one_line(lambda files=files: files(found)) or ():
                    assert file.size >= 0
                    assert not {"..", ""} & set(file.path.split("/"))

    with client(server.address, tmp_path, None):
        check()

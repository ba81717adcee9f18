"""A small server on 127.0.0.1 that speaks Ollama's protocol, well or badly, as a test wants it."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any

from blogtune.judging.params import OneJudge
from blogtune.judging.prompt import DIGITS
from tests.serving import serving

MODEL, DIGEST = "toy", "ab" * 32
# Nothing listens there.
NOBODY = "http://127.0.0.1:9"


@dataclass(frozen=True)
class Reply:
    """An answer of /api/chat. `weights` are the digits' probabilities, None: no logprobs."""

    content: str = '{\n  "score": 4\n}'
    weights: dict[str, float] | None = field(
        default_factory=lambda: dict(zip(DIGITS, (0.0625, 0.0625, 0.125, 0.5, 0.25), strict=True))
    )
    prompt_tokens: int | None = 300
    seconds: float = 0.0

    def body(self) -> dict[str, Any]:
        values: dict[str, Any] = {
            "model": MODEL,
            "message": {"role": "assistant", "content": self.content},
            "done": True,
            "eval_count": 10,
        }
        if self.prompt_tokens is not None:
            values["prompt_eval_count"] = self.prompt_tokens
        if self.weights is not None:
            values["logprobs"] = [
                *[_token(text) for text in ("{", "\n ", ' "', "score", '":', " ")],
                {**_token("4"), "top_logprobs": [_token(*each) for each in self.weights.items()]},
                *[_token(text) for text in ("\n", "}")],
            ]
        return values


@dataclass(frozen=True)
class Raw:
    """Bytes sent in the place of a reply, then the connection is closed."""

    content: bytes


@dataclass(frozen=True)
class Status:
    """An error's status with a JSON body."""

    status: int
    body: str = '{"error": "so it is"}'


Answer = Reply | Raw | Status
Rule = Callable[[str], Answer]
STALL = Reply(seconds=60)
CUT = Raw(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"mess')
GARBAGE = Raw(b"\x00\xffSSH-2.0-OpenSSH\r\n\r\n")


def hashed(prompt: str) -> Reply:
    """A score of its own for each prompt, and the same for the same."""
    digest = hashlib.sha256(prompt.encode()).digest()
    total = sum(digest[:5]) + 5
    weights = {digit: (digest[row] + 1) / total for row, digit in enumerate(DIGITS)}
    return Reply(weights=weights)


class Server(ThreadingHTTPServer):
    """Answers /api/chat by a rule, from the user's message; remembers all that it was asked."""

    daemon_threads = True

    def __init__(self, rule: Rule) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.rule = rule
        self.digests = {f"{MODEL}:latest": DIGEST}
        self.context_length: int | None = 8192
        self.asked: list[dict[str, Any]] = []
        self.pulled: list[str] = []
        self.lock = Lock()
        self.busy = self.busiest = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def prompts(self) -> list[str]:
        """The user's messages, in the order of their coming, without the probe."""
        found = [_prompt(body) for body in self.asked]
        return [prompt for prompt in found if "spider" not in prompt]

    def handle_error(self, *_: Any) -> None:
        """A client that went away is what some tests want."""


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        models = [{"model": name, "digest": each} for name, each in self.server.digests.items()]
        self._send(200, json.dumps({"models": models}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/api/chat":
            self._chat(body)
        elif self.path == "/api/show":
            length = self.server.context_length
            self._send(200, json.dumps({"model_info": {"toy.context_length": length}}))
        else:
            self._pull(body["model"])

    def _chat(self, body: dict[str, Any]) -> None:
        with self.server.lock:
            self.server.asked.append(body)
            self.server.busy += 1
            self.server.busiest = max(self.server.busy, self.server.busiest)
        try:
            answer = self.server.rule(_prompt(body))
            if isinstance(answer, Reply):
                time.sleep(answer.seconds)
        finally:
            with self.server.lock:
                self.server.busy -= 1
        if isinstance(answer, Raw):
            self.wfile.write(answer.content)
            self.close_connection = True
        elif isinstance(answer, Status):
            self._send(answer.status, answer.body)
        else:
            self._send(200, json.dumps(answer.body()))

    def _pull(self, name: str) -> None:
        self.server.pulled.append(name)
        if name != MODEL:
            self._send(200, '{"error": "pull model manifest: file does not exist"}\n')
            return
        self.server.digests[f"{name}:latest"] = DIGEST
        steps = [{"status": "pulling", "completed": done, "total": 8} for done in (0, 4, 8)]
        self._send(
            200, "".join(f"{json.dumps(step)}\n" for step in [*steps, {"status": "success"}])
        )

    def _send(self, status: int, text: str) -> None:
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Keep the test's output clean."""


@contextmanager
def serve(rule: Rule = hashed) -> Generator[Server]:
    with Server(rule) as server, serving(server):
        yield server


def judge_params(host: str | None = None, **changes: Any) -> OneJudge:
    """An Ollama judge of the tests; keys of OneJudge may stand among the changes."""
    values: dict[str, Any] = {
        "kind": "ollama",
        "model": {"source": f"ollama:{MODEL}", "revision": DIGEST},
        "scale": "likert",
        "host": host,
        "pull": False,
        "workers": 4,
        "timeout_seconds": 60.0,
        "retries": 1,
        "batch_items": 4,
    }
    return OneJudge.model_validate({**values, **changes})


def in_turn(*answers: Answer) -> Rule:
    """One after the other, behind a good answer to the probe; the last stays."""
    left = [Reply(), *answers]
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


def _token(text: str, probability: float = 1.0) -> dict[str, Any]:
    logprob = math.log(probability) if probability else -1e9
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}


def _prompt(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"])

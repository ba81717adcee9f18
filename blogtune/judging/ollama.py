"""A language model on an Ollama server as judge.

How a score comes about is fixed when the judge is opened, by one request: from the probabilities
of the digits where the server gives them ("likert logprobs"), else from the digit alone ("likert
digit"), or from one number ("unit number"). Every row says which.
"""

import math
import re
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import TypeVar

import httpx

from blogtune.common.errors import UserError
from blogtune.judging.params import OneJudge
from blogtune.judging.prompt import DIGITS, Message, messages, reply_schema, template
from blogtune.judging.protocol import Item, Verdict, in_order
from blogtune.judging.scores import from_probabilities, from_text
from blogtune.ollama.client import NO_ANSWER, OllamaModel, in_a_line
from blogtune.ollama.package import ollama
from blogtune.ollama.workers import in_parallel

LOGPROBS, DIGIT, UNIT = "likert logprobs", "likert digit", "unit number"
# The penalty of repeated tokens is off: a digit in the prompt would count against a score.
OPTIONS = {"temperature": 0.0, "seed": 0, "num_predict": 64, "repeat_penalty": 1.0}
TOP_LOGPROBS = 20
# What may pass if asked again: too many requests, an error of the model's process, a busy server.
MAY_PASS = (429, 500, 502, 503, 504)
FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS = 0.5, 30.0
# So many items in a row without an answer, and the rest is not asked.
PATIENCE = 20
# Tokens that a chat template adds to the messages.
TEMPLATE_TOKENS = 256
# Ollama's own context. Another one makes the server load the model again.
LEAST_CONTEXT = 4096
TOO_LONG = Verdict(None, reason="prompt too long")
NOT_ASKED = Verdict(None, reason="not asked, the server is gone", server_failed=True)
PROBE = Item("How many legs has a spider?", "A spider has eight legs.", "It has eight.")

T = TypeVar("T")
Prompt = list[Message]
Size = Callable[[Prompt], int]


def open_ollama_judge(params: OneJudge) -> "OllamaJudge":
    """The judge, after a look at the server: it is there, it has this very model, it answers.

    Raises UserError for the first of these that does not hold.
    """
    model = OllamaModel(params.model.name, params.host, params.timeout_seconds)
    if params.model.revision is None:
        raise UserError(
            "its digest is not pinned", where=params.model.source, remedy="run `make pin`"
        )
    found = model.require(pull=params.pull)
    if found != params.model.revision:
        raise UserError(
            f"the server at {model.address} has digest {found[:12]}, params.yaml has "
            f"{params.model.revision[:12]}",
            where=params.model.source,
            remedy="`make pin` takes the server's",
        )
    return OllamaJudge(params, model)


def ollama_identity(params: OneJudge) -> dict[str, object]:
    """What makes this judge's verdicts, apart from the item and the method."""
    return {
        "kind": "ollama",
        "model": params.model.source,
        "digest": params.model.revision,
        "prompt": template(params.scale),
        "schema": reply_schema(params.scale),
        "options": OPTIONS,
    }


class OllamaJudge:
    """Asks the server with `params.workers` requests at a time."""

    def __init__(self, params: OneJudge, model: OllamaModel) -> None:
        self.params = params
        self.model = model
        self.identity: Mapping[str, object] = ollama_identity(params)
        self.limit = model.context_length() or math.inf
        # Items in a row that got no answer, after all retries.
        self.lost = 0
        self.method = self._probe()

    def judge(self, items: Sequence[Item]) -> Iterator[Verdict]:
        return in_order(self.ask(items))

    def ask(self, items: Sequence[Item]) -> Generator[tuple[int, Verdict]]:
        """Ask in a context that is likely to hold every prompt, and again what was too long."""
        prompts = [messages(item, self.params.scale) for item in items]
        contexts = sorted({self._context(prompts, size) for size in (_likely, _certain)})
        waiting = list(range(len(prompts)))
        for context in contexts:
            cut: list[int] = []
            for index, verdict in self._ask_all(prompts, waiting, context):
                if verdict is TOO_LONG and context != contexts[-1]:
                    cut.append(index)
                else:
                    yield index, verdict
            waiting = cut

    def _ask_all(
        self, prompts: Sequence[Prompt], indices: Sequence[int], context: int
    ) -> Generator[tuple[int, Verdict]]:
        with self.model.client() as client:

            def ask(index: int) -> Verdict:
                return self._verdict(client, prompts[index], context)

            yield from in_parallel(ask, indices, self.params.workers)

    def _verdict(self, client: ollama.Client, prompt: Prompt, context: int) -> Verdict:
        if self.lost > PATIENCE:
            return NOT_ASKED
        try:
            # A server that is gone is not waited for again by each of many items.
            reply = self._reply(client, prompt, context, 0 if self.lost else self.params.retries)
        except _NoReplyError as error:
            self.lost += error.may_pass
            return Verdict(None, reason=error.reason, server_failed=error.of_server)
        self.lost = 0
        if _tokens(reply, prompt) >= context:
            return TOO_LONG
        said = from_text(reply.message.content or "", self.params.scale)
        if self.method != LOGPROBS or said.similarity is None:
            return said
        return from_probabilities(digit_weights(reply))

    def _probe(self) -> str:
        prompt = messages(PROBE, self.params.scale)
        context = self._context([prompt], _certain)
        with self.model.client() as client:
            try:
                reply = self._reply(client, prompt, context, self.params.retries)
            except _NoReplyError as error:
                where = f"{self.params.model.source} at {self.model.address}"
                raise UserError(f"{where} does not answer: {error}") from error
        if self.params.scale == "unit":
            return UNIT
        readable = from_probabilities(digit_weights(reply)).similarity is not None
        return LOGPROBS if readable else DIGIT

    def _reply(
        self, client: ollama.Client, prompt: Prompt, context: int, retries: int
    ) -> ollama.ChatResponse:
        def request() -> ollama.ChatResponse:
            return self._chat(client, prompt, context)

        try:
            return patiently(request, retries, lambda error: _failure(error).may_pass)
        except (ollama.ResponseError, *NO_ANSWER) as error:
            raise _failure(error) from error

    def _chat(self, client: ollama.Client, prompt: Prompt, context: int) -> ollama.ChatResponse:
        return client.chat(
            self.model.name,
            prompt,
            format=reply_schema(self.params.scale),
            think=False,
            logprobs=True,
            top_logprobs=TOP_LOGPROBS,
            options={**OPTIONS, "num_ctx": context},
        )

    def _context(self, prompts: Sequence[Prompt], size: Size) -> int:
        """Tokens of context for the longest prompt: a power of two, and not beyond the model."""
        longest = max(map(size, prompts), default=0)
        needed = longest + TEMPLATE_TOKENS + int(OPTIONS["num_predict"])
        return int(min(max(LEAST_CONTEXT, 1 << (needed - 1).bit_length()), self.limit))


def patiently(request: Callable[[], T], retries: int, may_pass: Callable[[Exception], bool]) -> T:
    """What `request` returns, made again after twice the time where that may help.

    Raises what the last one raised, of what Ollama's client raises.
    """
    delay = FIRST_DELAY_SECONDS
    while True:
        try:
            return request()
        except (ollama.ResponseError, *NO_ANSWER) as error:
            if not (may_pass(error) and retries):
                raise
        time.sleep(delay)
        delay = min(2 * delay, LONGEST_DELAY_SECONDS)
        retries -= 1


class _NoReplyError(Exception):
    """A request without a reply: a short fixed reason, and whether asking again may help.

    `of_server`: it tells of the server and nothing of the judge.
    """

    def __init__(
        self, reason: str, *, may_pass: bool, detail: str = "", of_server: bool = True
    ) -> None:
        super().__init__(detail or reason)
        self.reason = reason
        self.may_pass = may_pass
        self.of_server = of_server


def _failure(error: Exception) -> _NoReplyError:
    match error:
        case ollama.ResponseError():
            passes = error.status_code in MAY_PASS
            reason = f"HTTP {error.status_code}"
            return _NoReplyError(reason, may_pass=passes, detail=in_a_line(error))
        case httpx.TimeoutException():
            return _NoReplyError("timeout", may_pass=True)
        case ConnectionError():
            return _NoReplyError("no server", may_pass=True)
        case httpx.HTTPError() | OSError():
            return _NoReplyError("connection lost", may_pass=True)
        case _:
            return _NoReplyError("no readable reply", may_pass=False, of_server=False)


def digit_weights(reply: ollama.ChatResponse) -> dict[str, float]:
    """The probability of each digit as the score, its spellings (" 3", "3") added up.

    A digit that is not among the most likely tokens is missing; empty where no token is the score.
    """
    before = ""
    for token in reply.logprobs or ():
        if re.search(r'"score"\s*:\s*$', before) and token.token.strip() in DIGITS:
            # One entry for each spelling: the chosen token is usually among the likely ones.
            spellings = {each.token: each.logprob for each in (token, *(token.top_logprobs or ()))}
            weights: dict[str, float] = defaultdict(float)
            for spelling, logprob in spellings.items():
                if spelling.strip() in DIGITS:
                    weights[spelling.strip()] += math.exp(min(logprob, 0.0))
            return dict(weights)
        before += token.token
    return {}


def _tokens(reply: ollama.ChatResponse, prompt: Prompt) -> int:
    """Tokens of prompt and reply; where the server does not count, as many as there can be."""
    return (reply.prompt_eval_count or _certain(prompt)) + (reply.eval_count or 0)


def _certain(prompt: Prompt) -> int:
    """As many tokens as a prompt can have: one for each byte."""
    return sum(len(message["content"].encode()) for message in prompt)


def _likely(prompt: Prompt) -> int:
    """As many as a prompt in a Latin script will hardly have: two ASCII characters a token."""
    ascii_characters = sum(c.isascii() for message in prompt for c in message["content"])
    return _certain(prompt) - ascii_characters // 2

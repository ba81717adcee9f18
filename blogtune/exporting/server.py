"""Requests to the Ollama server: the model registered, one question asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from blogtune.common.errors import UserError
from blogtune.common.progress import progress
from blogtune.common.records import Message
from blogtune.exporting.params import OllamaParams
from blogtune.exporting.source import GREEDY, Source
from blogtune.judging.ollama import LEAST_CONTEXT, MAY_PASS, patiently
from blogtune.ollama.client import NO_ANSWER, Client, OllamaModel, in_a_line
from blogtune.ollama.package import ollama

# Asked before all questions: words, figures, white space and letters outside ASCII.
PROBE = (
    "In 2026, 12,345 rows of 3.14159 fell.\n    def f(x):\n        return x\n"
    "Gr\xf6\xdfe, \u77e9\u9635?"
)
UNCHECKED = "-unchecked"


@dataclass(frozen=True)
class Reply:
    """What the server answered, and how it counted.

    `stop` is "end" at an end token; "length" at the limit, or where the server gave up on a text
    that repeats one token (`repeats`). `tokens` are the answer's, without the end token, `pieces`
    their texts, and `prompt_tokens` the prompt's, None where the server did not say.
    """

    text: str
    stop: Literal["end", "length"]
    repeats: bool
    tokens: int
    prompt_tokens: int | None
    pieces: tuple[str, ...] = ()


class OllamaServer:
    """The server that `params` names."""

    def __init__(self, params: OllamaParams) -> None:
        self.params = params

    def model(self, name: str | None = None) -> OllamaModel:
        return OllamaModel(name or self.params.name, self.params.host, self.params.timeout_seconds)

    def register(self, source: Source) -> str:
        """Give the model its name once the server reads a prompt as we do; return the digest.

        Raises UserError where there is no server, where it refuses the model, or where it makes
        another number of tokens of the same question.
        """
        self.model().digest()
        unchecked = f"{self.params.name}{UNCHECKED if ':' in self.params.name else ':unchecked'}"
        with self.model().client() as client:
            try:
                self._create(client, unchecked, source)
                try:
                    self._check(client, unchecked, source)
                    client.copy(unchecked, self.params.name)
                finally:
                    client.delete(unchecked)
            except (ollama.ResponseError, *NO_ANSWER) as error:
                raise self._told(error) from error
        return self.model().require(pull=False)

    def ask(
        self,
        client: ollama.Client,
        question: str,
        limit: int,
        context: int,
        earlier: Sequence[Message] = (),
    ) -> Reply:
        """One greedy answer of at most `limit` tokens, asked for again where that may help.

        `context` is the length in tokens that the server keeps, `earlier` what was said before.
        Raises UserError when there is none after `params.retries` repetitions.
        """
        return self._ask(client, self.params.name, question, limit, context, earlier)

    def _create(self, client: Client, name: str, source: Source) -> None:
        steps = client.create(
            name,
            files=_send(client, source),
            template=source.template.text,
            system=source.template.system,
            parameters=source.parameters,
            quantize=self.params.quantize,
            stream=True,
        )
        client.follow(steps, "import")

    def _check(self, client: ollama.Client, name: str, source: Source) -> None:
        ours = len(source.chat.prompt(PROBE))
        theirs = self._ask(client, name, PROBE, 1, LEAST_CONTEXT).prompt_tokens
        if theirs != ours:
            raise UserError(
                "Ollama does not build the prompt that the model was trained on: the same "
                f"question has {theirs} tokens on the server and {ours} here",
                remedy=f"its template (family {source.template.family}) or its tokenizer "
                "differs, so nothing was registered",
            )

    def _ask(
        self,
        client: ollama.Client,
        name: str,
        question: str,
        limit: int,
        context: int,
        earlier: Sequence[Message] = (),
    ) -> Reply:
        messages = [
            turn.model_dump() for turn in (*earlier, Message(role="user", content=question))
        ]

        def request() -> Reply:
            return _reply(self._chat(client, name, messages, limit, context))

        try:
            return patiently(request, self.params.retries, _may_pass)
        except (ollama.ResponseError, *NO_ANSWER) as error:
            raise self._told(error) from error

    def _chat(
        self,
        client: ollama.Client,
        name: str,
        messages: Sequence[dict[str, str]],
        limit: int,
        context: int,
    ) -> ollama.ChatResponse:
        options: dict[str, Any] = {
            **GREEDY,
            "seed": 0,
            "num_predict": limit,
            "num_ctx": context,
        }
        if self.params.threads is not None:
            options["num_thread"] = self.params.threads
        return client.chat(name, messages, options=options, logprobs=True)

    def _told(self, error: Exception) -> UserError:
        where, server = f"ollama:{self.params.name}", f"the server at {self.model().address}"
        if isinstance(error, ollama.ResponseError):
            return UserError(f"{server} says: {in_a_line(error)}", where=where)
        what = f"{server} does not answer ({type(error).__name__})"
        return UserError(what, where=where, remedy="check it, then run `make export` again")


def _send(client: ollama.Client, source: Source) -> dict[str, str]:
    """Bring the model's files to the server; return their digests by name."""
    with source.files() as files:
        total = sum(file.stat().st_size for file in files)
        digests: dict[str, str] = {}
        with progress(desc="to the server", unit="B", total=total, scaled=True) as bar:
            for file in files:
                digests[file.name] = client.create_blob(file)
                bar.update(file.stat().st_size)
        return digests


def _may_pass(error: Exception) -> bool:
    return not isinstance(error, ollama.ResponseError) or error.status_code in MAY_PASS


def _reply(response: ollama.ChatResponse) -> Reply:
    pieces = tuple(each.token for each in response.logprobs or ())
    ended = response.done_reason == "stop"
    # A text of one repeated token ends without a word on why, and without a count.
    counted = response.eval_count
    return Reply(
        text=response.message.content or "",
        stop="end" if ended else "length",
        repeats=response.done_reason is None,
        tokens=len(pieces) if counted is None else counted - ended,
        prompt_tokens=response.prompt_eval_count,
        pieces=pieces,
    )

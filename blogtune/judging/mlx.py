"""A language model in this process as judge: nothing is generated, the score's digits are weighed.

The reply's beginning, `{"score": `, is part of the prompt, so one forward pass gives the
probabilities of the digits behind it. What all prompts begin with is computed once, and so is what
the prompts of one answer begin with, which is judged against several references.
"""

import json
from collections import defaultdict
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from mlx_lm.models.cache import KVCache

from blogtune.common.errors import UserError
from blogtune.common.records import Context
from blogtune.judging.params import OneJudge
from blogtune.judging.prompt import DIGITS, messages, template
from blogtune.judging.protocol import Item, Verdict, in_order
from blogtune.judging.scores import from_probabilities
from blogtune.models.chat import Chat, open_chat
from blogtune.models.head import open_head
from blogtune.models.loading import load_model
from blogtune.models.prefix import common_prefix, plain_caches, repeated
from blogtune.runtime.device import device, padded

Logits = npt.NDArray[np.float64]

REPLY = '{"score": '
TOO_LONG = Verdict(None, reason="prompt too long")
SAMPLE = Item("?", "?", "?")
UNLIMITED = 2**31


def mlx_identity(params: OneJudge, folder: Path) -> dict[str, object]:
    """What makes this judge's verdicts, apart from the item and the method."""
    receipt = json.loads((folder / "source.json").read_text(encoding="utf-8"))
    return {
        "kind": "mlx",
        "model": params.model.source,
        "files": receipt["files"],
        "prompt": template("likert"),
        "reply": REPLY,
        "dtype": "float32" if device().dtype else "stored",
    }


class MlxJudge:
    """Judges with the chat model in `folder`, in batches of prompts of like length."""

    method = "likert logits"

    def __init__(self, params: OneJudge, folder: Path) -> None:
        self.identity: Mapping[str, object] = mlx_identity(params, folder)
        model = load_model(folder, device().dtype)
        self.network = model.network
        self.head = open_head(model.network)
        self.chat = open_chat(model.tokenizer)
        self.digits = _digit_tokens(self.chat)
        self.limit = model.context or UNLIMITED
        self.batch_items = params.batch_items

    def judge(self, items: Sequence[Item]) -> Iterator[Verdict]:
        return in_order(self.ask(items))

    def ask(self, items: Sequence[Item]) -> Generator[tuple[int, Verdict]]:
        prompts = [_prompt(self.chat, item) for item in items]
        fitting = [index for index, prompt in enumerate(prompts) if len(prompt) <= self.limit]
        for index in sorted(set(range(len(items))) - set(fitting)):
            yield index, TOO_LONG
        root = self._read([prompts[index] for index in fitting], [])
        for group in _groups(items, fitting):
            shared = self._read([prompts[index] for index in group], root)
            group.sort(key=lambda index: len(prompts[index]))
            for start in range(0, len(group), self.batch_items):
                chosen = group[start : start + self.batch_items]
                verdicts = self._verdicts([prompts[index] for index in chosen], shared)
                yield from zip(chosen, verdicts, strict=True)

    def _read(self, prompts: Sequence[list[int]], shared: list[KVCache]) -> list[KVCache]:
        """Keys and values of what the prompts begin with in common, of which `shared` is a part.

        Empty where a layer keeps something else than all keys and values.
        """
        cache = [repeated(layer, 1) for layer in shared] or plain_caches(self.network)
        if not cache:
            return []
        unread = common_prefix(prompts)[cache[0].offset :]
        if not unread:
            return shared
        self._logits([unread], cache)
        return cache

    def _verdicts(self, prompts: Sequence[list[int]], shared: list[KVCache]) -> list[Verdict]:
        """One forward pass over what follows the shared beginning, padded on the right."""
        start = shared[0].offset if shared else 0
        cache = [repeated(layer, len(prompts)) for layer in shared] or None
        logits = self._logits([prompt[start:] for prompt in prompts], cache)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        return [from_probabilities(dict(zip(DIGITS, row, strict=True))) for row in weights.tolist()]

    def _logits(
        self, rows: Sequence[list[int]], cache: list[KVCache] | None
    ) -> npt.NDArray[np.float64]:
        """The digits' logits behind the end of each row, rows x digits."""
        ends = np.array([len(row) for row in rows], np.int32)
        inputs = np.zeros((len(rows), padded(int(ends.max()))), np.int32)
        for number, row in enumerate(rows):
            inputs[number, : len(row)] = row
        places = np.arange(len(rows), dtype=np.int32) * inputs.shape[1] + ends - 1
        logits = self.head.project(self.head.hidden(inputs, places, cache))
        return np.asarray(logits[:, mx.array(self.digits)]).astype(np.float64)


def _prompt(chat: Chat, item: Item, digit: str = DIGITS[0]) -> list[int]:
    """The tokens before the digit, as they are when the digit follows: its spelling may hold the
    space before it."""
    return chat.opening(messages(item, "likert"), REPLY + digit)[:-1]


def _digit_tokens(chat: Chat) -> list[int]:
    """The token of each digit behind the same beginning. Raises UserError where it is none."""
    replies = [chat.opening(messages(SAMPLE, "likert"), REPLY + digit) for digit in DIGITS]
    tokens = [reply[-1] for reply in replies]
    if len({tuple(reply[:-1]) for reply in replies}) > 1 or len(set(tokens)) < len(DIGITS):
        raise UserError(
            "the judge's tokenizer has no token for each digit", remedy="choose another model"
        )
    return tokens


def _groups(items: Sequence[Item], indices: Sequence[int]) -> list[list[int]]:
    """The items of one answer together, whose prompts differ in the reference only; and the rest,
    which share no more than what all do."""
    by_answer: dict[tuple[Context, str, str], list[int]] = defaultdict(list)
    for index in indices:
        item = items[index]
        by_answer[item.context, item.question, item.answer].append(index)
    several = [group for group in by_answer.values() if len(group) > 1]
    rest = [group[0] for group in by_answer.values() if len(group) == 1]
    return [*several, rest] if rest else several

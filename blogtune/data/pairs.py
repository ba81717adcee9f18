"""Turns one row into question/answer pairs, or says why it cannot.

Three schemas; other keys in a row are passed over, and `data.columns` renames those that are read:

    {"title": "Rank", "url": "https://blog.example/rank", "date": "2026-01-05", "context": "...",
     "conversation": [{"role": "user", "content": "What is ...?"},
                      {"role": "assistant", "content": "The rank is ...", "facts": ["8"]}]}
    {"question": "What is ...?", "answer": "The rank is ...", "post": "https://blog.example/rank"}
    {"messages": [{"role": "system", "content": "..."}, {"role": "user", "content": "..."}, ...]}

`facts`, beside an answer, are the values that make it right; most data have none.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from itertools import chain, pairwise
from typing import Literal, NamedTuple, cast, get_args

from blogtune.common.records import Pair
from blogtune.data.columns import AS_HERE, Columns

Reason = Literal[
    "encoding",
    "not_json",
    "not_object",
    "unknown_schema",
    "missing_field",
    "wrong_type",
    "empty_text",
    "turn_order",
]
REASONS: tuple[Reason, ...] = get_args(Reason)

_KINDS = {
    "dict": "an object",
    "list": "a list",
    "str": "text",
    "bool": "true or false",
    "int": "a number",
    "float": "a number",
    "NoneType": "null",
}


class BadRowError(Exception):
    """A row that gives no pairs: the reason it is counted under, and what is wrong in words."""

    def __init__(self, reason: Reason, problem: str) -> None:
        super().__init__(problem)
        self.reason: Reason = reason


# A JSONL line, a table's row, or what is wrong with a row that is none.
Content = bytes | Mapping[str, object] | BadRowError
# Question, answer and the answer's facts.
Exchange = tuple[str, str, list[str]]


class _Turn(NamedTuple):
    """A message, its content and facts not yet looked at, and where it stands."""

    role: str
    content: object
    facts: object
    where: str


def pairs_of(content: Content, columns: Columns = AS_HERE) -> list[Pair]:
    """Return the row's pairs, at least one, in its order; raise BadRowError where it is malformed.

    A conversation gives one pair for each user turn with the assistant turn that follows; a
    leading system message is passed over. The post is the first of `post`, `url` and `title`
    that says something. Without one a single pair has None, but the pairs of one conversation
    share a post named after its text: they are no independent questions. Text loses its outer
    white space.
    """
    if isinstance(content, BadRowError):
        raise content
    row = _parse(content) if isinstance(content, bytes) else content
    post = _post(row, columns)
    exchanges = list(_exchanges(row, columns))
    if post is None and len(exchanges) > 1:
        post = _conversation(exchanges)
    return [_pair(post, *exchange) for exchange in exchanges]


def pair_id(post: str | None, question: str, answer: str) -> str:
    """Return 16 hex digits that stay the same wherever and whenever the pair is read."""
    text = "\x1f".join((post or "", question, answer))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _conversation(exchanges: list[Exchange]) -> str:
    text = "\x1f".join(chain.from_iterable(each[:2] for each in exchanges))
    return f"conversation {hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _pair(post: str | None, question: str, answer: str, facts: list[str]) -> Pair:
    named = pair_id(post, question, answer)
    return Pair(id=named, post=post, question=question, answer=answer, facts=facts)


def _parse(line: bytes) -> Mapping[str, object]:
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise BadRowError("encoding", f"not UTF-8 at byte {error.start + 1} of the line") from error
    except RecursionError as error:
        raise BadRowError("not_json", "not JSON: nested too deeply") from error
    except ValueError as error:  # not only JSONDecodeError: also a number of 5,000 digits
        raise BadRowError("not_json", f"not JSON: {error}") from error
    if not isinstance(row, dict):
        raise BadRowError("not_object", f"{_kind(row)} where an object was expected")
    return cast("dict[str, object]", row)


def _post(row: Mapping[str, object], columns: Columns) -> str | None:
    for key in columns.posts:
        value = row.get(key)
        if value is not None and not (isinstance(value, str) and not value.strip()):
            return _text(value, key)
    return None


def _exchanges(row: Mapping[str, object], columns: Columns) -> Iterator[Exchange]:
    # A table's row has all columns, so that a schema's key with None counts as absent.
    for key in columns.talks:
        if row.get(key) is not None:
            return _turns(row[key], key)
    question, answer = row.get(columns.question), row.get(columns.answer)
    if question is None and answer is None:
        known = " or ".join([", ".join(columns.talks), columns.question])
        raise BadRowError("unknown_schema", f"no {known}")
    texts = _text(question, columns.question), _text(answer, columns.answer)
    return iter([(*texts, _facts(row.get("facts"), "facts"))])


def _turns(messages: object, key: str) -> Iterator[Exchange]:
    if not isinstance(messages, list):
        raise BadRowError("wrong_type", f"{key} is {_kind(messages)}, not a list")
    items = cast("list[object]", messages)
    turns = [_turn(message, f"{key} turn {number}") for number, message in enumerate(items, 1)]
    if turns and turns[0].role == "system":
        turns = turns[1:]
    _check_order([turn.role for turn in turns], key)
    texts = [_text(turn.content, f"content of {turn.where}") for turn in turns]
    facts = [_facts(turn.facts, f"facts of {turn.where}") for turn in turns]
    return zip(texts[::2], texts[1::2], facts[1::2], strict=True)


def _turn(message: object, where: str) -> _Turn:
    if not isinstance(message, dict):
        raise BadRowError("wrong_type", f"{where} is {_kind(message)}, not an object")
    turn = cast("dict[str, object]", message)
    role = _text(turn.get("role"), f"role of {where}")
    return _Turn(role, turn.get("content"), turn.get("facts"), where)


def _check_order(roles: list[str], key: str) -> None:
    """Raise BadRowError unless user and assistant take turns, from the one to the other."""
    unknown = next((role for role in roles if role not in ("user", "assistant")), None)
    if unknown is not None:
        raise BadRowError("turn_order", f"unknown role {unknown!r} in {key}")
    if not roles:
        raise BadRowError("turn_order", f"no turns in {key}")
    if roles[0] != "user":
        raise BadRowError("turn_order", f"{key} starts with an assistant turn")
    for role, following in pairwise(roles):
        if role == following:
            raise BadRowError("turn_order", f"two {role} turns in a row in {key}")
    if roles[-1] != "assistant":
        raise BadRowError("turn_order", f"{key} ends with a user turn")


def _facts(value: object, name: str) -> list[str]:
    if value is None or value == "":  # a table's empty cell
        return []
    if not isinstance(value, list):
        raise BadRowError("wrong_type", f"{name} is {_kind(value)}, not a list")
    items = cast("list[object]", value)
    return [_text(each, f"item {number} of {name}") for number, each in enumerate(items, 1)]


def _text(value: object, name: str) -> str:
    if value is None:
        raise BadRowError("missing_field", f"no {name}")
    if not isinstance(value, str):
        raise BadRowError("wrong_type", f"{name} is {_kind(value)}, not text")
    text = value.strip()
    if not text:
        raise BadRowError("empty_text", f"{name} is empty")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON can spell half a surrogate pair, UTF-8 cannot
        raise BadRowError("encoding", f"{name} holds half a surrogate pair") from error
    return text


def _kind(value: object) -> str:
    return _KINDS.get(type(value).__name__, f"a {type(value).__name__}")

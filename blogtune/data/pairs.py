"""Turns one row into question/answer pairs, or says why it cannot.

The schemas; other keys in a row are passed over, and `data.columns` renames those that are read:

    {"title": "Rank", "url": "https://blog.example/rank", "date": "2026-01-05", "context": "...",
     "conversation": [{"role": "user", "content": "What is ...?"},
                      {"role": "assistant", "content": "The rank is ...", "facts": ["8"]}]}
    {"question": "What is ...?", "answer": "The rank is ...", "post": "https://blog.example/rank"}
    {"messages": [{"role": "system", "content": "..."}, {"role": "user", "content": "..."}, ...]}
    {"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}
    {"prompt": "What is ...?", "completion": "The rank is ..."}
    {"instruction": "Shorten this.", "input": "The rank ...", "output": "..."}

`facts`, beside an answer, are the values that make it right; most data have none.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import chain, pairwise
from typing import Literal, NamedTuple, cast

from blogtune.common.records import Context, Message, Pair
from blogtune.data.columns import ALPACA, AS_HERE, SHAREGPT, SYSTEM, Columns
from blogtune.data.values import (
    NAME_CHARACTERS,
    BadRowError,
    kind_of,
    name_of,
    text_of,
    without_missing,
)

# A JSONL line, a table's row, or what is wrong with a row that is none.
Content = bytes | Mapping[str, object] | BadRowError
Role = Literal["system", "user", "assistant"]

# ShareGPT's words, and OpenAI's newer one.
ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}


class _Exchange(NamedTuple):
    """A question, its answer, and the values that make the answer right."""

    question: str
    answer: str
    facts: list[str]


class _Turn(NamedTuple):
    """A message, its content and facts not yet looked at, and where it stands."""

    role: str
    content: object
    facts: object
    where: str


class _Talk(NamedTuple):
    """A system text, if any, and questions with their answers in order."""

    system: str | None
    exchanges: list[_Exchange]


def pairs_of(content: Content, columns: Columns = AS_HERE, context_turns: int = 0) -> list[Pair]:
    """Return the row's pairs, at least one, in its order; raise BadRowError where it is malformed.

    A conversation gives one pair for each user turn with the assistant turn that follows. Its
    context is the system text, and of the earlier turns the last `context_turns` questions with
    their answers. The post is the first of `post`, `url` and `title` that says something. Without
    one a single pair has None, but the pairs of one conversation share a post named after its
    text: they are no independent questions. Text loses its outer white space.
    """
    if isinstance(content, BadRowError):
        raise content
    row = without_missing(_parse(content) if isinstance(content, bytes) else content)
    post = _post(row, columns)
    talk = _talk(row, columns)
    if post is None and len(talk.exchanges) > 1:
        post = _conversation(talk)
    return [
        _pair(post, _context(talk, number, context_turns), exchange)
        for number, exchange in enumerate(talk.exchanges)
    ]


def pair_id(post: str | None, question: str, answer: str, context: Context = ()) -> str:
    """Return 16 hex digits that stay the same wherever and whenever the pair is read."""
    said = (text for turn in context for text in (turn.role, turn.content))
    text = "\x1f".join((post or "", question, answer, *said))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _conversation(talk: _Talk) -> str:
    texts = chain.from_iterable((each.question, each.answer) for each in talk.exchanges)
    text = "\x1f".join(chain([talk.system] if talk.system else [], texts))
    return f"conversation {hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _context(talk: _Talk, number: int, turns: int) -> Context:
    """What stands before the exchange of that number."""
    system = [Message(role="system", content=talk.system)] if talk.system else []
    earlier = talk.exchanges[max(0, number - turns) : number]
    return (*system, *chain.from_iterable(map(_messages, earlier)))


def _messages(exchange: _Exchange) -> Sequence[Message]:
    return (
        Message(role="user", content=exchange.question),
        Message(role="assistant", content=exchange.answer),
    )


def _pair(post: str | None, context: Context, exchange: _Exchange) -> Pair:
    question, answer, facts = exchange
    name = pair_id(post, question, answer, context)
    return Pair(id=name, post=post, context=context, question=question, answer=answer, facts=facts)


def _parse(line: bytes) -> Mapping[str, object]:
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise BadRowError("encoding", f"not UTF-8 at byte {error.start + 1} of the line") from error
    except RecursionError as error:
        raise BadRowError("not_json", "not JSON: nested too deeply") from error
    except json.JSONDecodeError as error:
        raise BadRowError("not_json", f"not JSON: {error}") from error
    except ValueError as error:  # Python reads numbers of up to 4,300 digits
        raise BadRowError("not_json", "not JSON: a number of too many digits") from error
    if not isinstance(row, dict):
        raise BadRowError("not_object", f"{kind_of(row)} where an object was expected")
    return cast("dict[str, object]", row)


def _post(row: Mapping[str, object], columns: Columns) -> str | None:
    names = (name_of(row.get(key), key) for key in columns.posts)
    return next((name for name in names if name is not None), None)


def _talk(row: Mapping[str, object], columns: Columns) -> _Talk:
    # A table's row has all columns, so that a schema's key with None counts as absent.
    for key in columns.talks:
        if row.get(key) is not None:
            talk = _turns(row[key], key)
            return talk if talk.system or key != SHAREGPT else talk._replace(system=_system(row))
    for question, answer in columns.questions:
        if row.get(question) is not None or row.get(answer) is not None:
            asked = _asked(row, question, columns)
            system = _system(row) if question == ALPACA else None
            said, facts = text_of(row.get(answer), answer), _facts(row.get("facts"), "facts")
            return _Talk(system, [_Exchange(asked, said, facts)])
    *known, last = [*columns.talks, *(question for question, _ in columns.questions)]
    raise BadRowError("unknown_schema", f"no {', '.join(known)} or {last}")


def _asked(row: Mapping[str, object], question: str, columns: Columns) -> str:
    """The question, with what it is about behind it."""
    parts = [text_of(row.get(question), question)]
    about = row.get(columns.input) if columns.has_input(question) else None
    if about is not None and about != "":
        parts.append(text_of(about, columns.input))
    return "\n\n".join(parts)


def _system(row: Mapping[str, object]) -> str | None:
    """The system text that stands beside a ShareGPT conversation or an Alpaca instruction."""
    return name_of(row.get(SYSTEM), SYSTEM)


def _turns(messages: object, key: str) -> _Talk:
    if not isinstance(messages, list):
        raise BadRowError("wrong_type", f"{key} is {kind_of(messages)}, not a list")
    items = cast("list[object]", messages)
    turns = [_turn(message, f"{key} turn {number}") for number, message in enumerate(items, 1)]
    system = None
    if turns and turns[0].role == "system":
        # An empty one says nothing.
        system = name_of(turns[0].content, f"content of {turns[0].where}")
        turns = turns[1:]
    _check_order([turn.role for turn in turns], key)
    texts = [text_of(turn.content, f"content of {turn.where}") for turn in turns]
    facts = [_facts(turn.facts, f"facts of {turn.where}") for turn in turns]
    found = zip(texts[::2], texts[1::2], facts[1::2], strict=True)
    return _Talk(system, [_Exchange(*each) for each in found])


def _turn(message: object, where: str) -> _Turn:
    """A turn's role as it is called here, its content, and where it stands."""
    if not isinstance(message, dict):
        raise BadRowError("wrong_type", f"{where} is {kind_of(message)}, not an object")
    turn = cast("dict[str, object]", message)
    if "role" not in turn and "from" in turn:
        turn = {**turn, "role": turn["from"], "content": turn.get("value")}
    role = text_of(turn.get("role"), f"role of {where}")
    return _Turn(ROLES.get(role, role), turn.get("content"), turn.get("facts"), where)


def _check_order(roles: list[str], key: str) -> None:
    """Raise BadRowError unless user and assistant take turns, from the one to the other."""
    unknown = next((role for role in roles if role not in ("user", "assistant")), None)
    if unknown is not None:
        raise BadRowError("turn_order", f"unknown role {unknown[:NAME_CHARACTERS]!r} in {key}")
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
        raise BadRowError("wrong_type", f"{name} is {kind_of(value)}, not a list")
    items = cast("list[object]", value)
    return [text_of(each, f"item {number} of {name}") for number, each in enumerate(items, 1)]

"""The values that make an answer right: those that the data name, or those found by rule.

By rule they are what the reference says beyond the question: its dates, times and numbers, its
names (words with a capital inside a sentence), and its rare words.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from blogtune.common.records import Pair
from blogtune.judging.facts.tokens import UNITS, Token, tokens

# A word is rare that stands in the answers of at most this share of the posts.
RARE = 0.01


class Value(NamedTuple):
    """A value as it is written, and its tokens."""

    text: str
    tokens: tuple[Token, ...]


class Vocabulary:
    """In how many posts' answers a word stands."""

    def __init__(self, pairs: Iterable[Pair]) -> None:
        posts: defaultdict[str, set[str]] = defaultdict(set)
        every: set[str] = set()
        for pair in pairs:
            every.add(pair.post or pair.id)
            for token in tokens(pair.answer):
                posts[token.key].add(pair.post or pair.id)
        self._posts = {key: len(found) for key, found in posts.items()}
        self._most = max(1, int(RARE * len(every)))

    def is_rare(self, word: str) -> bool:
        return self._posts.get(word, 0) <= self._most


def named_values(facts: Sequence[str]) -> list[Value]:
    """The values that the data name; one without a letter or digit is none."""
    read = (Value(fact, tuple(tokens(fact))) for fact in facts)
    return [value for value in read if value.tokens]


def values_by_rule(question: str, reference: str, vocabulary: Vocabulary) -> list[Value]:
    """The values of the reference that the question does not give."""
    asked = {token.key for token in tokens(question)}
    found: dict[tuple[str, ...], Value] = {}
    for part in _parts(tokens(reference), vocabulary):
        if not {token.key for token in part} <= asked:
            keys = tuple(token.key for token in part)
            found.setdefault(keys, Value(" ".join(keys), tuple(part)))
    return list(found.values())


def _parts(said: Sequence[Token], vocabulary: Vocabulary) -> Iterator[list[Token]]:
    """Each date, time, number with its unit, name and rare word, in the text's order."""
    at = 0
    while at < len(said):
        count = 1
        if said[at].kind == "number":
            count += is_unit(said, at + 1)
        elif is_name(said[at]):
            while at + count < len(said) and _goes_on(said[at + count - 1], said[at + count]):
                count += 1
        if said[at].kind != "word" or is_name(said[at]) or vocabulary.is_rare(said[at].key):
            yield list(said[at : at + count])
        at += count


def is_name(token: Token) -> bool:
    """A word with a capital that no beginning of a sentence explains."""
    return token.kind == "word" and token.capital and not token.opens


def is_unit(said: Sequence[Token], at: int) -> bool:
    return (
        at < len(said) and said[at].key in UNITS.values() and said[at].clause == said[at - 1].clause
    )


def _goes_on(name: Token, following: Token) -> bool:
    return is_name(following) and following.clause == name.clause

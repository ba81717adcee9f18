"""The values of an answer that others can stand in for, and where in its text they stand.

"Oxbow Hut has 44 beds, kept by Freya Langdon." has the number 44 (of beds) and a name. Which values
there are is what `blogtune.judging.facts` finds: those that the data name, else dates, times,
numbers and names that the question does not give. A rare word by itself is left alone.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from blogtune.common.records import Pair
from blogtune.judging.facts.find import YEARS
from blogtune.judging.facts.tokens import UNITS, Token, tokens
from blogtune.judging.facts.values import Value, Vocabulary, named_values, values_by_rule


class Place(NamedTuple):
    """A value in an answer's text: values of a `kind` can be exchanged, best those of a `unit`.

    kind: date, time, year, ordinal, number, name, or "3 words". unit: what a number counts, how
    many words a name has. key: what is compared. text: as it is written.
    """

    kind: str
    unit: str
    key: str
    text: str
    start: int
    end: int


class Values:
    """Finds the exchangeable values of an answer; `pairs` tell which words are rare, and which are
    no names although they have a capital somewhere."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.vocabulary = Vocabulary(pairs)
        self._ordinary = {
            token.key
            for pair in pairs
            for token in tokens(pair.answer)
            if token.kind == "word" and not token.capital
        }

    def of(self, pair: Pair) -> list[Place]:
        """The values of the pair's answer, wherever they stand in it, in the text's order."""
        if not _keeps_its_length(pair.answer):
            return []
        named = named_values(pair.facts)
        said = tokens(pair.answer)
        found: dict[int, Place] = {}
        for value in named or values_by_rule(pair.question, pair.answer, self.vocabulary):
            for at in _where(said, value):
                for place in _parts(pair.answer, said, at, value, named=bool(named)):
                    if named or self._is_telling(place):
                        found.setdefault(place.start, place)
        return sorted(found.values(), key=lambda place: place.start)

    def _is_telling(self, place: Place) -> bool:
        """Of what a rule found: "one" is mostly an article, and "And" may open a quotation."""
        if place.kind == "name":
            return not any(word in self._ordinary for word in place.key.split())
        return place.kind not in ("number", "ordinal") or place.text[0].isdigit()


def _keeps_its_length(text: str) -> bool:
    """Whether a token's place is its place in the text: NFKC makes two letters of a ligature."""
    plain = unicodedata.normalize("NFKC", text)
    return len(plain) == len(text) and all(
        len(unicodedata.normalize("NFKC", each)) == 1 for each in text
    )


def _where(said: Sequence[Token], value: Value) -> Iterator[int]:
    keys = [token.key for token in value.tokens]
    for at in range(len(said) - len(keys) + 1):
        if [token.key for token in said[at : at + len(keys)]] == keys:
            yield at


def _parts(
    text: str, said: Sequence[Token], at: int, value: Value, *, named: bool
) -> Iterator[Place]:
    """Each date, time, number and name of the value; all of it, where the data name a value of
    other words."""
    count, start, found = len(value.tokens), 0, False
    while start < count:
        size = 1
        token = said[at + start]
        if token.kind == "word":
            while start + size < count and _names(value.tokens[start : start + size + 1], named):
                size += 1
        if token.kind != "word" or _names(value.tokens[start : start + size], named):
            found = True
            yield from _place(text, said, at + start, size)
        start += size
    if named and not found:
        yield from _whole(text, said[at : at + count])


def _names(words: Sequence[Token], named: bool) -> bool:
    """Words with a capital that no beginning of a sentence explains; the data's own begin none."""
    return all(each.kind == "word" and each.capital and (named or not each.opens) for each in words)


def _place(text: str, said: Sequence[Token], at: int, size: int) -> Iterator[Place]:
    first, last = said[at], said[at + size - 1]
    written = text[first.start : last.end]
    if first.kind == "word":
        written = written.removesuffix("'s").removesuffix("\u2019s")
    kind, unit = _kind(said, at, size, written)
    if _stands_alone(text, first.start, first.start + len(written)) and written.count(".") < 2:
        key = " ".join(token.key for token in said[at : at + size])
        yield Place(kind, unit, key, written, first.start, first.start + len(written))


def _whole(text: str, said: Sequence[Token]) -> Iterator[Place]:
    start, end = said[0].start, said[-1].end
    key = " ".join(token.key for token in said)
    yield Place(f"{len(said)} words", "", key, text[start:end], start, end)


def _kind(said: Sequence[Token], at: int, size: int, written: str) -> tuple[str, str]:
    token = said[at]
    if token.kind == "word":
        return "name", f"{size} words"
    if token.kind != "number":
        return token.kind, ""
    following = said[at + 1] if at + 1 < len(said) else None
    counted = following and following.kind == "word" and following.clause == token.clause
    unit = following.key if following and counted else ""
    if written == token.key and token.key.isdigit() and int(token.key) in YEARS:
        return ("number", unit) if unit in UNITS.values() else ("year", "")
    return ("ordinal" if token.key[-1].isalpha() else "number"), unit


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Not the 2 of SmolLM2, nor the 135 of SmolLM2-135M."""
    before, behind = text[start - 1 : start] if start else "", text[end : end + 1]
    return not (
        before.isalnum() or before in ("-", "_", ".", "+") or behind.isalnum() or behind == "_"
    )

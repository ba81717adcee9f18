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


class _Part(NamedTuple):
    words: Sequence[Token]
    is_name: bool


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
            for part in _parts(said, value, named=bool(named)):
                same = [*_places(pair.answer, said, part)]
                if named or any(map(self._is_telling, same)):
                    found.update({place.start: place for place in same})
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


def _parts(said: Sequence[Token], value: Value, *, named: bool) -> Iterator[_Part]:
    """Each date, time, number and name in the value; all of it, where the data name a value of
    other words. None where the answer does not say the value."""
    words = value.tokens
    if next(_where(said, words), None) is None:
        return
    start, found = 0, False
    while start < len(words):
        size = 1
        while start + size < len(words) and _names(words[start : start + size + 1], named):
            size += 1
        part, is_name = words[start : start + size], _names(words[start : start + size], named)
        if is_name or part[0].kind != "word":
            found = True
            yield _Part(part, is_name)
        start += size
    if named and not found:
        yield _Part(words, is_name=False)


def _where(said: Sequence[Token], words: Sequence[Token]) -> Iterator[int]:
    keys = [token.key for token in words]
    for at in range(len(said) - len(keys) + 1):
        if [token.key for token in said[at : at + len(keys)]] == keys:
            yield at


def _names(words: Sequence[Token], named: bool) -> bool:
    """Words with a capital that no beginning of a sentence explains; the data's own begin none."""
    return all(each.kind == "word" and each.capital and (named or not each.opens) for each in words)


def _places(text: str, said: Sequence[Token], part: _Part) -> Iterator[Place]:
    """Wherever the part stands in the answer, in whatever writing: 540, five hundred and forty."""
    size = len(part.words)
    for at in _where(said, part.words):
        first, last = said[at], said[at + size - 1]
        written = text[first.start : last.end].removesuffix("'s").removesuffix("\u2019s")
        end = first.start + len(written)
        if _stands_alone(text, first.start, end) and written.count(".") < 2:
            kind, unit = f"{size} words", ""
            if part.is_name:
                kind, unit = "name", kind
            elif size == 1 and first.kind != "word":
                kind, unit = _kind(said, at, written)
            yield Place(
                kind, unit, " ".join(word.key for word in part.words), written, first.start, end
            )


def _kind(said: Sequence[Token], at: int, written: str) -> tuple[str, str]:
    """Of a date, a time or a number, whose unit is the word behind it."""
    token = said[at]
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

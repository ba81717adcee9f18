"""Wrong answers to choose among, of which it is known that they are wrong.

`same_post`: held-out answers to other questions on the same post, about other facts. `other_value`:
the reference itself with another post's value in the place of its own.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Literal

from blogtune.common.records import Pair, Record
from blogtune.common.texts import folded
from blogtune.judging.facts.find import find_facts
from blogtune.judging.facts.tokens import tokens
from blogtune.probing.params import ProbeParams
from blogtune.probing.values import Place, Values

Kind = Literal["same_post", "other_value"]
KINDS: tuple[Kind, ...] = ("same_post", "other_value")
# Kinds with a case of their own; in all others the first letter's belongs to the sentence.
OWN_CASE = ("name", "date", "time", "year")


class Distractor(Record):
    """A wrong answer to a question, and of what kind."""

    kind: Kind
    text: str


class Distractors:
    """Finds a pair's distractors; the seed and the pairs' ids choose among those that there are."""

    def __init__(
        self, held_out: Sequence[Pair], everything: Sequence[Pair], params: ProbeParams
    ) -> None:
        """`held_out` are pairs that no model was trained on, `everything` all that values may be
        taken from."""
        self._params = params
        self._values = Values(everything)
        self._by_post: defaultdict[str, list[Pair]] = defaultdict(list)
        for pair in held_out:
            self._by_post[_post(pair)].append(pair)
        self._known: defaultdict[str, set[tuple[Place, str]]] = defaultdict(set)
        for pair in everything:
            for place in self._values.of(pair):
                self._known[place.kind].add((place._replace(start=0, end=0), _post(pair)))

    def of(self, pair: Pair) -> list[Distractor]:
        """At most `distractors` of each kind, all of them unlike the answer and each other."""
        known = {folded(pair.answer)}
        found: list[Distractor] = []
        offered: dict[Kind, Iterator[str]] = {
            "same_post": self._same_post(pair),
            "other_value": self._other_value(pair),
        }
        for kind, texts in offered.items():
            count = 0
            for text in texts:
                if count < self._params.distractors and folded(text) not in known:
                    known.add(folded(text))
                    found.append(Distractor(kind=kind, text=text))
                    count += 1
        return found

    def _same_post(self, pair: Pair) -> Iterator[str]:
        others = self._by_post[_post(pair)]
        drawn = sorted(others, key=lambda other: self._draw(pair.id, other.id))
        yield from (other.answer for other in drawn if self._is_another_fact(other, pair))

    def _is_another_fact(self, other: Pair, pair: Pair) -> bool:
        """Whether the other answer leaves out some of what makes this one right."""
        if other.id == pair.id or folded(other.question) == folded(pair.question):
            return False
        if {*map(folded, pair.facts)} & {*map(folded, other.facts)}:
            return False
        asked = pair.question, pair.answer, other.answer, pair.facts
        found = find_facts(*asked, self._values.vocabulary)
        return found is None or bool(found.missing)

    def _other_value(self, pair: Pair) -> Iterator[str]:
        """The answer with one value exchanged, each of its values in turn."""
        own = self._values.of(pair)
        said = {token.key for text in (pair.question, pair.answer) for token in tokens(text)}
        keys = {place.key: place for place in own}
        drawn = sorted(keys.values(), key=lambda place: self._draw(pair.id, place.key))
        offers = {place.key: self._offers(pair, place, said) for place in drawn}
        for turn in range(self._params.distractors):
            for place in drawn:
                if turn < len(offers[place.key]):
                    yield _exchanged(pair.answer, own, place, offers[place.key][turn])

    def _offers(self, pair: Pair, place: Place, said: set[str]) -> list[str]:
        """Values of other posts for this place, of its unit first, then as it is written."""

        def order(value: Place) -> tuple[bool, bool, int]:
            other_shape = _shape(value.text) != _shape(place.text)
            return value.unit != place.unit, other_shape, self._draw(pair.id, value.text)

        post = _post(pair)
        own = {value.key for value, of in self._known[place.kind] if of == post}
        fitting = {
            value
            for value, of in self._known[place.kind]
            if of != post and value.key not in own and not set(value.key.split()) <= said
        }
        by_key: dict[str, str] = {}
        for value in sorted(fitting, key=order):
            by_key.setdefault(value.key, value.text)
        return [*by_key.values()][: self._params.distractors]

    def _draw(self, *parts: str) -> int:
        """64 bits that depend on the seed and the parts alone."""
        text = "\x1f".join((str(self._params.seed), *parts))
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def _post(pair: Pair) -> str:
    """A pair without a post is a post of its own."""
    return pair.post or pair.id


def _exchanged(answer: str, own: Sequence[Place], place: Place, text: str) -> str:
    """The answer with `text` wherever this value stands in it."""
    for each in reversed(own):
        if each.key == place.key:
            new = text if each.kind in OWN_CASE else _in_case_of(each.text, text)
            answer = f"{answer[: each.start]}{new}{answer[each.end :]}"
    return answer


def _shape(text: str) -> str:
    """ "1,358" and "2,140" are both 0,000, "21 May" and "20 September" both 00 a."""
    return re.sub(r"[^\W\d]+", "a", re.sub(r"\d", "0", text))


def _in_case_of(old: str, new: str) -> str:
    first = new[:1].upper() if old[:1].isupper() else new[:1].lower()
    return first + new[1:]

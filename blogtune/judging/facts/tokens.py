"""A text as the tokens by which two texts are compared: words, numbers, dates and times.

"Bed 41, from 3 May at half past seven" is the word bed, the number 41, the word from, the date
-05-03, the word at and the time 7:30. As in SQuAD (Rajpurkar et al. 2016, "SQuAD: 100,000+
questions for machine comprehension of text") case, punctuation and English articles do not count.
Writing without spaces between words is compared by characters, as in MLQA (Lewis et al. 2020).
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import Literal, NamedTuple

from blogtune.common.texts import sentence_ends
from blogtune.judging.facts.dates import read_date, read_time, spoken_time
from blogtune.judging.facts.numbers import DIGITS, from_digits, from_words, ordinal

Kind = Literal["word", "number", "date", "time"]

ARTICLES = {"a", "an", "the"}
# What begins another clause without a mark.
CONJUNCTIONS = {"and", "because", "but", "which", "who"}
_UNITS = {
    "metre": "m metres meter meters",
    "kilometre": "km kilometres kilometer kilometers",
    "centimetre": "cm centimetres centimeter centimeters",
    "millimetre": "mm millimetres millimeter millimeters",
    "gram": "g grams",
    "kilo": "kg kilos kilogram kilograms kilogramme kilogrammes",
    "litre": "l litres liter liters",
    "minute": "min mins minutes",
    "hour": "h hr hrs hours",
    "percent": "%",
    "degree": "° degrees",
}
UNITS = {other: unit for unit, others in _UNITS.items() for other in (unit, *others.split())}
_NUMBER = re.compile(rf"(?P<digits>{DIGITS})(?P<ordinal>(?:st|nd|rd|th)\b)?")
# Kana, Han, Thai, Lao, Burmese, Khmer: no spaces between words.
_UNSPACED = r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]"
_WORD = re.compile(rf"{_UNSPACED}|(?:(?!{_UNSPACED})[^\W\d])+(?:'[^\W\d]+)*|[%°]")
# What ends a part of a sentence: any mark but a hyphen inside a word.
_MARK = re.compile(r"[^\w\s'\-]|\s[\-]")


class Token(NamedTuple):
    """`key` is what is compared. A clause is what stands between two marks of punctuation.

    `start` and `end` are its place in the text as `plain` gives it.
    """

    kind: Kind
    key: str
    clause: int
    capital: bool
    opens: bool  # it stands at the beginning of a sentence
    start: int
    end: int


def tokens(text: str) -> list[Token]:
    """The text's tokens, English articles left out."""
    parts = [*_with_number_words(list(_scanned(plain(text))))]
    return [token for token in _with_spoken_times(parts) if token.key not in ARTICLES]


def plain(text: str) -> str:
    """The text as it is read: full-width digits, ligatures and curly apostrophes are plain ones."""
    return unicodedata.normalize("NFKC", text).replace("\u2019", "'").replace("\u2018", "'")


def _scanned(text: str) -> Iterator[Token]:
    """Words, and whatever is written in digits."""
    small = text.lower()
    if len(small) != len(text):  # as with the capital dotted i: places must stay the same
        small = "".join(low if len(low := each.lower()) == 1 else each for each in text)
    starts = {0, *sentence_ends(text)}
    at, clause, opens = 0, 0, True
    while at < len(text):
        opens = opens or at in starts
        kind, key, end = _read(small, at)
        if kind:
            clause += key in CONJUNCTIONS
            yield Token(kind, key, clause, text[at].isupper(), opens, at, end)
            opens = False
        elif _MARK.match(text, at):
            clause += 1
        at = max(end, at + 1)


def _read(text: str, at: int) -> tuple[Kind | None, str, int]:
    """What begins there: its kind, its key and its end."""
    date, end = read_date(text, at)
    if date:
        return "date", date, end
    if text[at].isdigit():
        time, end = read_time(text, at)
        if time:
            return "time", time, end
        if number := _NUMBER.match(text, at):
            digits = from_digits(number["digits"])
            return "number", ordinal(digits) if number["ordinal"] else digits, number.end()
    word = _WORD.match(text, at)
    if not word:
        return None, "", at
    key = word[0].removesuffix("'s").casefold()
    return "word", UNITS.get(key, key), word.end()


def _with_number_words(parts: list[Token]) -> Iterator[Token]:
    """ "Forty", "one" become the number 41, where no mark stands between them."""
    at = 0
    while at < len(parts):
        words = [each.key for each in parts[at : at + 12] if each.clause == parts[at].clause]
        number, count = from_words(words) if parts[at].kind == "word" else ("", 0)
        if count:
            yield parts[at]._replace(kind="number", key=number, end=parts[at + count - 1].end)
        else:
            yield parts[at]
        at += count or 1


def _with_spoken_times(parts: list[Token]) -> Iterator[Token]:
    """ "20", "past", "5" become the time 5:20."""
    at = 0
    while at < len(parts):
        words = [each.key for each in parts[at : at + 3] if each.clause == parts[at].clause]
        time, count = spoken_time(words)
        if count:
            yield parts[at]._replace(kind="time", key=time, end=parts[at + count - 1].end)
        else:
            yield parts[at]
        at += count or 1

"""Numbers as they are compared: 1,420 and 1 420 are 1420, forty-one is 41, third is 3rd.

Digits are read in every script. Number words are English.
"""

import math
import re
import unicodedata
from collections.abc import Sequence

_UNITS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
    "nineteen",
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
SMALL = {word: number for number, word in enumerate(_UNITS)}
TENS = {word: 10 * number for number, word in enumerate(_TENS, 2)}
SCALES = {"thousand": 1000, "million": 1_000_000}
_ODD = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
ORDINALS = {
    **{_ODD.get(word, f"{word}th"): number for word, number in SMALL.items()},
    **{f"{word[:-1]}ieth": number for word, number in TENS.items()},
}
# Groups of three behind a comma, a space or an apostrophe; behind points only if there are several,
# for one point and three digits are a fraction in English.
DIGITS = r"\d{1,3}(?:[ '\u2019]\d{3})+(?!\d)|\d+(?:[.,]\d+)*"
_GROUPED = re.compile(
    r"\d{1,3}(?:,\d{3})+(?!\d)|\d{1,3}(?:[ '\u2019]\d{3})+|\d{1,3}(?:\.\d{3}){2,}(?!\d)"
)


def from_digits(text: str) -> str:
    """The number that digits with separators say, as it is compared: "1420", "98.3"."""
    grouped = _GROUPED.match(text)
    if grouped:
        whole, rest = re.sub(r"\D", "", grouped[0]), text[grouped.end() :]
    else:
        whole, _, rest = re.sub(r"[.,]", ".", text).partition(".")
    fraction = re.sub(r"\D", "", rest)
    # Not int(): a model may write more digits than Python reads.
    whole, fraction = (
        "".join(str(unicodedata.decimal(each)) for each in part) for part in (whole, fraction)
    )
    whole = whole.lstrip("0") or "0"
    fraction = fraction.rstrip("0")
    return f"{whole}.{fraction}" if fraction else whole


def from_words(words: Sequence[str]) -> tuple[str, int]:
    """The number with which the casefolded words begin, and how many of them say it.

    ("41", 2) for "forty one bunks", ("3rd", 1) for "third step", ("", 0) where there is none.
    "Seven fifteen" is two numbers.
    """
    total, taken, limit = 0, 0, math.inf
    while True:
        start = _behind_and(words, taken) if taken else 0
        value, count = _below_1000(words[start:])
        if not count:
            break
        behind = start + count
        scale = SCALES.get(words[behind], 0) if behind < len(words) else 0
        if not 0 < scale < limit or words[behind - 1] in ORDINALS:
            total, taken = total + value, behind
            break
        total, taken, limit = total + value * scale, behind + 1, scale
    if not taken:
        return "", 0
    return (ordinal(str(total)) if words[taken - 1] in ORDINALS else str(total)), taken


def ordinal(number: str) -> str:
    """The number of "1st" and "22nd" as it is compared."""
    return f"{number}{_suffix(int(number[-2:]))}"


def _below_1000(words: Sequence[str]) -> tuple[int, int]:
    """ "three hundred and two" is (302, 4); nothing is (0, 0)."""
    value, count = _below_100(words)
    if not count or count >= len(words) or words[count] != "hundred":
        return value, count
    start = _behind_and(words, count + 1)
    rest, more = _below_100(words[start:])
    return (value * 100 + rest, start + more) if more else (value * 100, count + 1)


def _below_100(words: Sequence[str]) -> tuple[int, int]:
    """ "forty one" is (41, 2); nothing is (0, 0)."""
    first = words[0] if words else ""
    if first in TENS:
        second = words[1] if len(words) > 1 else ""
        unit = SMALL.get(second, ORDINALS.get(second, 0))
        return (TENS[first] + unit, 2) if 0 < unit < 10 else (TENS[first], 1)
    value = SMALL.get(first, ORDINALS.get(first))
    return (0, 0) if value is None else (value, 1)


def _behind_and(words: Sequence[str], at: int) -> int:
    return at + 1 if at < len(words) and words[at] == "and" else at


def _suffix(number: int) -> str:
    if number % 100 in (11, 12, 13):
        return "th"
    return {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")

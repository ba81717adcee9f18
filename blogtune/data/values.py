"""A row's values: text, or why it is none."""

import math
import unicodedata
from collections.abc import Mapping
from decimal import Decimal
from typing import Literal, get_args

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

NAME_CHARACTERS = 40
# Letters and signs to Unicode that show nothing: Hangul fillers and the empty braille pattern.
BLANK = frozenset("\u115f\u1160\u3164\uffa0\u2800")
# Control and format characters, separators, and marks that stand on no letter.
INVISIBLE = frozenset(("Cc", "Cf", "Zs", "Zl", "Zp", "Mn", "Me"))

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


def text_of(value: object, name: str) -> str:
    """The text without outer white space, its line ends as \\n; raise BadRowError for none."""
    if value is None:
        raise BadRowError("missing_field", f"no {name}")
    if not isinstance(value, str):
        raise BadRowError("wrong_type", f"{name} is {kind_of(value)}, not text")
    if not is_visible(value):
        raise BadRowError("empty_text", f"{name} is empty")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON can spell half a surrogate pair, UTF-8 cannot
        raise BadRowError("encoding", f"{name} holds half a surrogate pair") from error
    return value.strip().replace("\r\n", "\n").replace("\r", "\n")


def name_of(value: object, key: str) -> str | None:
    """What names a post: text, or a number as text; None where it says nothing."""
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return _number(value, key)
    if value is None or (isinstance(value, str) and not is_visible(value)):
        return None
    return text_of(value, key)


def without_missing(row: Mapping[str, object]) -> Mapping[str, object]:
    """NaN, by which pandas marks what is missing, is None."""
    return {key: None if _is_nan(value) else value for key, value in row.items()}


def is_visible(text: str) -> bool:
    """Whether a reader would see anything of it."""
    return any(unicodedata.category(each) not in INVISIBLE and each not in BLANK for each in text)


def kind_of(value: object) -> str:
    return _KINDS.get(type(value).__name__, f"a {type(value).__name__}")


def shown(name: str) -> str:
    """A name of the data for a message, in quotes where its ends would not be seen."""
    start = name[:NAME_CHARACTERS]
    plain = start == start.strip() and start.isprintable() and ", " not in start
    return start if plain else repr(start)


def _number(value: float | Decimal, key: str) -> str:
    """12.0 is 12: pandas makes floats of a column of integers where one is missing."""
    if not math.isfinite(value):
        raise BadRowError("wrong_type", f"{key} is an infinite number, not text")
    try:
        return str(int(value) if value == int(value) else value)
    except ValueError as error:
        raise BadRowError("wrong_type", f"{key} is a number of too many digits") from error


def _is_nan(value: object) -> bool:
    return isinstance(value, float | Decimal) and math.isnan(value)

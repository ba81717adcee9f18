"""Dates and times as they are compared: 3 May and May 3rd are one date, 7:30 and 7.30 pm one time.

A time is compared on the twelve-hour face, because texts leave open which half of the day is meant.
"""

import re
from collections.abc import Sequence

_LANGUAGES = (
    "january february march april may june july august september october november december",
    "januar februar märz april mai juni juli august september oktober november dezember",
    "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
    "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
    "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro",
    "jan feb mar apr may jun jul aug sep oct nov dec",
)
MONTHS = {name: number for names in _LANGUAGES for number, name in enumerate(names.split(), 1)}
_MONTH = "|".join(sorted(MONTHS, key=len, reverse=True))
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th|\.|º)?"
_YEAR = r"(?: ,? \s (?:de\s)? (?P<year>\d{4})\b )?"
_DATES = tuple(
    re.compile(pattern, re.VERBOSE)
    for pattern in (
        r"(?P<year>\d{4}) - (?P<month>\d{2}) - (?P<day>\d{2}) (?!\d)",
        r"(?: (?P<year>\d{4}) 年 )? (?P<month>\d{1,2}) 月 (?P<day>\d{1,2}) [日号]",
        rf"{_DAY} \s (?: (?:of|de) \s )? (?P<month>{_MONTH})\b {_YEAR}",
        rf"(?P<month>{_MONTH}) \s {_DAY} (?![\d:]) \b {_YEAR}",
    )
)
_TIME = re.compile(
    r"""(?P<hour>\d{1,2})
    (?: :(?P<minute>\d\d) (?!\d) (?:\s*[ap]\.?m\b)? | (?:\.(?P<dotted>\d\d))? \s*[ap]\.?m\b
      | \s(?:o'clock|uhr)\b )""",
    re.VERBOSE,
)
_FRACTIONS = {"half": "30", "quarter": "15"}
_FACE = 12 * 60


def read_date(text: str, at: int) -> tuple[str, int]:
    """The date that begins there in casefolded text, as "2024-05-03" or "-05-03", and its end."""
    for pattern in _DATES:
        found = pattern.match(text, at)
        if found:
            month = MONTHS.get(found["month"]) or int(found["month"])
            if 1 <= month <= 12 and 1 <= int(found["day"]) <= 31:
                return f"{found['year'] or ''}-{month:02}-{int(found['day']):02}", found.end()
    return "", at


def read_time(text: str, at: int) -> tuple[str, int]:
    """The time that begins there in casefolded text, as "7:30", and its end."""
    found = _TIME.match(text, at)
    minutes = int(found["minute"] or found["dotted"] or 0) if found else 60
    if not found or int(found["hour"]) > 24 or minutes > 59:
        return "", at
    return _on_the_face(int(found["hour"]) * 60 + minutes), found.end()


def spoken_time(words: Sequence[str]) -> tuple[str, int]:
    """The time with which the words begin, numbers among them as digits, and how many say it.

    ("5:20", 3) for 20 past 5, ("6:45", 3) for quarter to 7, ("7:00", 2) for 7 o'clock. "Six to
    eight" is none: it says from when to when.
    """
    said = [_FRACTIONS.get(word, word) for word in words[:3]]
    if len(said) == 3 and said[0].isdigit() and said[2].isdigit():
        minutes, hour = int(said[0]), int(said[2])
        if minutes < 60 and hour <= 12:
            if said[1] == "past":
                return _on_the_face(hour * 60 + minutes), 3
            if said[1] == "to" and words[0] == "quarter":
                return _on_the_face(hour * 60 - minutes), 3
    if len(said) > 1 and said[0].isdigit() and said[1] == "o'clock" and int(said[0]) <= 12:
        return _on_the_face(int(said[0]) * 60), 2
    return "", 0


def _on_the_face(minutes: int) -> str:
    hours, rest = divmod(minutes % _FACE, 60)
    return f"{hours or 12}:{rest:02}"

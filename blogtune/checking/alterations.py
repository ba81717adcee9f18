"""A reference answer made worse, or no worse, in a known way.

Each takes a text and returns another, or None where it cannot be altered so. `reordered` and
`padded` leave the content whole; `halved`, `negated` and `renumbered` spoil it.
"""

import re
import unicodedata

from blogtune.common.languages import is_english
from blogtune.common.texts import UNSPACED, is_unspaced, sentences

BEFORE = "That is a good question, and one that many people have when they begin with the subject."
BEHIND = (
    "There would of course be more to say about it, and much depends on the case at hand. "
    "I hope that this helps you on. Do not hesitate to ask if anything is still unclear."
)

_AUXILIARIES = "is|are|was|were|has|have|had|does|do|did|can|could|will|would|should|must|may|might"
# What says yes or no to a sentence, as far as one can tell without parsing it.
_VERB = re.compile(
    rf"""\b (?: (?P<odd> cannot | can't | won't | never )
            | (?P<verb> {_AUXILIARIES} ) (?P<no> \s+not | n't )? ) \b""",
    re.VERBOSE,
)
_POSITIVE = {"cannot": "can", "can't": "can", "won't": "will", "never": "always"}
_YES_OR_NO = re.compile(r"(Yes|No)\b(?=[,.;:])")
# A number by itself: not the "2" of "SmolLM2", "q4_K_M" or "gpt-2", nor a part of "0.12.11".
# A letter of a script without spaces may stand beside it. 1,234.5 as well as 1.234,5; any script's
# digits, with Arabic's own separators.
_LETTER = rf"[^\W{UNSPACED}]"
_NUMBER = re.compile(
    rf"""(?<![.-]) (?<!{_LETTER})
    (?: \d{{1,3}} (?: \.\d{{3}} )+ (?: ,\d+ )? | \d[\d,\u066c\uff0c]* (?: [.\u066b\uff0e]\d+ )? )
    (?! {_LETTER} | \.\d )""",
    re.VERBOSE,
)


def reordered(text: str) -> str | None:
    """Turn the order of the sentences round in each line, so that lists and code stay whole."""
    turned = "\n".join(" ".join(reversed(sentences(line))) for line in text.split("\n"))
    return turned if turned.split() != text.split() else None


def padded(text: str) -> str:
    """Put sentences around it that say nothing."""
    return f"{BEFORE} {text} {BEHIND}"


def halved(text: str) -> str | None:
    """Keep the first half of the words, or of the letters where no spaces part the words."""
    if is_unspaced(text):
        return text[: len(text) // 2].strip() or None
    words = text.split()
    return " ".join(words[: len(words) // 2]) or None


def negated(text: str) -> str | None:
    """Turn what each sentence says into its opposite, in English; None of other languages.

    The first auxiliary verb gets a "not" or loses it; a sentence without one is called wrong.
    """
    if not is_english(text):
        return None
    whole = sentences(text)
    turned = [_opposite(sentence) for sentence in whole]
    if not any(turned):
        return None
    pairs = zip(whole, turned, strict=True)
    return " ".join(new or f"This is wrong: {sentence}" for sentence, new in pairs)


def renumbered(text: str) -> str | None:
    """Change every number that is written in digits; equal ones stay equal."""
    changed = _NUMBER.sub(lambda found: _other_number(found[0]), text)
    return changed if changed != text else None


def _opposite(sentence: str) -> str | None:
    """The sentence with Yes, No and its first auxiliary verb turned round; None without any."""
    start = _YES_OR_NO.match(sentence)
    lead = ("No" if start[1] == "Yes" else "Yes") if start else ""
    rest = _VERB.sub(_turned, sentence[len(start[1]) if start else 0 :], count=1)
    return lead + rest if lead + rest != sentence else None


def _turned(verb: re.Match[str]) -> str:
    if verb["odd"]:
        return _POSITIVE[verb["odd"]]
    return verb["verb"] if verb["no"] else f"{verb['verb']} not"


def _other_number(number: str) -> str:
    """Another first digit that is not 0: 8 becomes 3, 0.05 becomes 0.09, 0 becomes 4."""
    digits = [unicodedata.digit(character, 0) for character in number]
    place = next((at for at, digit in enumerate(digits) if digit), 0)
    # Ten digits stand in a row, whatever the script.
    other = chr(ord(number[place]) - digits[place] + (digits[place] + 3) % 9 + 1)
    return f"{number[:place]}{other}{number[place + 1 :]}"

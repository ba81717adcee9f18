"""What several parts need to know of a text: how it is compared, and where its sentences end."""

import re
import unicodedata
from collections.abc import Iterator

# "1. " numbers the item of a list and "e.g. a" goes on: neither ends a sentence. Ideographic
# full stops (second line of `end`) need no space behind them.
_SENTENCE_END = re.compile(
    r"""^[^\S\n]*\d+[.)]\s
    | (?P<end> [.!?\u2026]+ ["'\u201d\u2019\u00bb)\]]* (?= \s | \Z ) (?! \s+[a-z] )
             | [\u3002\uff01\uff1f]+ | \n | \Z )""",
    re.MULTILINE | re.VERBOSE,
)


def folded(text: str) -> str:
    """Return the text as it is compared: NFC, casefolded, each white space one space."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def sentence_ends(text: str) -> Iterator[int]:
    """Yield where a sentence ends: behind its full stop or the like, a line break, or the text."""
    return (match.end() for match in _SENTENCE_END.finditer(text) if match["end"] is not None)


def sentences(text: str) -> list[str]:
    """Return the sentences without the white space around them; none is empty."""
    found: list[str] = []
    start = 0
    for end in sentence_ends(text):
        found.append(text[start:end].strip())
        start = end
    return [sentence for sentence in found if sentence]

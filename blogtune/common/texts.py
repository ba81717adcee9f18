"""What several parts need to know of a text: how it is compared, its words and its sentences."""

import re
import unicodedata
from collections.abc import Iterator

# Scripts that put no space between words, as ranges for a character class: Thai, Lao, Myanmar,
# Khmer, the iteration mark, kana, Han, half-width kana.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005\u3007\u3041-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
# Vowel signs and the like belong to the letter before them; \\w leaves them out. None stands
# elsewhere, and a look at every code point takes a tenth of a second of each start.
_MARKS = "".join(
    chr(code)
    for code in (*range(0x300, 0x20000), *range(0xE0100, 0xE01F0))
    if unicodedata.category(chr(code)) in ("Mn", "Mc")
)
_WORD = re.compile(rf"[{UNSPACED}]+|(?:(?![{UNSPACED}])[\w{_MARKS}])+")
_UNSPACED = re.compile(rf"[{UNSPACED}]")

# "1. " numbers the item of a list: no end of a sentence. Ideographic full stops (third line of
# `end`) need no space behind them.
_SENTENCE_END = re.compile(
    r"""^[^\S\n]*\d+[.)]\s
    | (?P<end> [.!?\u2026\u061f\u06d4\u0964]+ ["'\u201d\u2019\u00bb\u201c)\]]* (?= \s | \Z )
             | [\u3002\uff01\uff1f]+ [\u201d\u2019\u300d\u300f\uff09]* | \n | \Z )""",
    re.MULTILINE | re.VERBOSE,
)
# Their full stops end no sentence unless the line ends there. English, German, Portuguese.
_ABBREVIATION = re.compile(
    r"""\b (?: [ei]\.\s?[ge]\. | [Dd]r\. | Prof\. | M[rs]\. | Mrs\. | vs\. | cf\.
           | [zZ]\.\s?B\. | [dD]\.\s?h\. | [uU]\.\s?a\. | [oO]\.\s?\u00e4\. | [iI]\.\s?d\.\s?R\.
           | bzw\. | [vV]gl\. | [cC]a\. | Nr\.(?=\s?\d) | S\.(?=\s?\d)
           | [pP]\.\s?ex\. | Sra?\. | Dra\. )""",
    re.VERBOSE,
)


def folded(text: str) -> str:
    """Return the text as it is compared: NFC, casefolded, each white space one space."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def words(text: str) -> list[str]:
    """Return the folded words, in order; of a script without spaces each two neighbouring letters.

    Overlapping bigrams are how Lucene's CJKAnalyzer indexes Chinese and Japanese: about as good for
    search as a dictionary's words (Nie et al. 2000, "On the use of words and n-grams for Chinese
    information retrieval").
    """
    found: list[str] = []
    for word in _WORD.findall(folded(text)):
        if len(word) > 1 and _UNSPACED.match(word):
            found += (word[at : at + 2] for at in range(len(word) - 1))
        else:
            found.append(word)
    return found


def is_unspaced(text: str) -> bool:
    """Tell whether most letters are of a script that puts no space between words."""
    return 2 * len(_UNSPACED.findall(text)) > sum(map(str.isalpha, text))


def sentence_ends(text: str) -> Iterator[int]:
    """Yield where a sentence ends: behind its full stop or the like, a line break, or the text.

    A full stop of an abbreviation, or before a small letter, ends none.
    """
    abbreviated = [found.span() for found in _ABBREVIATION.finditer(text)]
    for match in _SENTENCE_END.finditer(text):
        if match["end"] is None:
            continue
        rest = text[match.end() : match.end() + 1].isspace() and text[match.end() :].lstrip()
        if match["end"].startswith("."):
            inside = any(start < match.end() <= end for start, end in abbreviated)
            if rest and (rest[0].islower() or inside):
                continue
        elif rest and rest[0].islower() and match["end"][0] in "!?\u2026":
            continue
        yield match.end()


def sentences(text: str) -> list[str]:
    """Return the sentences without the white space around them; none is empty."""
    found: list[str] = []
    start = 0
    for end in sentence_ends(text):
        found.append(text[start:end].strip())
        start = end
    return [sentence for sentence in found if sentence]

"""The one way to the terminal: what others wrote shows its control characters and acts on nothing.

Models, servers, file names, tables and licenses are others' text. An escape sequence in it could
clear the screen, and a bidi mark could turn a name around: both are shown as "\\x1b" and "\\u202e".
A contract test holds that nothing is printed in another way.
"""

import os
import re
import sys
import unicodedata

import click

# What is invisible and yet part of words: joiners, a soft hyphen, the number signs of Arabic.
_OF_WORDS = re.compile("[\u00ad\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\u200c\u200d]")
# Controls, format characters, lone surrogates, separators of lines and paragraphs.
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
_PASSWORD = re.compile(r"(?<=://)[^/?#\s]*@")


def visible(text: str) -> str:
    """Return the text with each hidden character as its escape, and no password in an address.

    Line breaks and tabs stay.
    """
    return "".join(map(_shown, without_password(text)))


def in_one_line(text: str) -> str:
    """Return the visible text, each white space in it one space."""
    return visible(" ".join(text.split()))


def without_password(text: str) -> str:
    """Return the text with `***` for the user and password of each address."""
    return _PASSWORD.sub("***@", text)


def echo(text: str, *, err: bool = False, color: str | None = None, end: str = "\n") -> None:
    """Print the text, made visible; where nobody reads any more (`... | head`) nothing."""
    stream = sys.stderr if err else sys.stdout
    shown = visible(text)
    # A terminal that has not all letters shows the escape of the others.
    encoding = stream.encoding or "utf-8"
    shown = shown.encode(encoding, "backslashreplace").decode(encoding)
    try:
        click.secho(f"{shown}{end}", err=err, fg=color, nl=False)
    except BrokenPipeError:
        # The rest goes nowhere, also what is left to be written when Python ends; the work goes on.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _shown(character: str) -> str:
    if character in "\n\t" or unicodedata.category(character) not in _HIDDEN:
        return character
    if _OF_WORDS.match(character):
        return character
    return character.encode("unicode_escape").decode()

"""What strangers wrote reaches the terminal as text and nothing else."""

import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from blogtune.common.command import readable_errors
from blogtune.common.errors import UserError
from blogtune.common.output import echo, in_one_line, visible, without_password
from blogtune.common.progress import progress, say

ROOT = Path(__file__).parents[2]
HOSTILE = {
    "colour": ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
    "clear the screen": ("\x1b[2J", r"\x1b[2J"),
    "cursor home": ("\x1b[H", r"\x1b[H"),
    "cursor up": ("\x1b[5A", r"\x1b[5A"),
    "erase the line": ("ok\x1b[2K", r"ok\x1b[2K"),
    "window title": ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
    "link": ("\x1b]8;;http://evil/\x1b\\here", "\\x1b]8;;http://evil/\\x1b\\here"),
    "clipboard": ("\x1b]52;c;cm0=\x07", r"\x1b]52;c;cm0=\x07"),
    "device control": ("\x1bPq#0\x1b\\", "\\x1bPq#0\\x1b\\"),
    "alternate screen": ("\x1b[?1049h", r"\x1b[?1049h"),
    "reset": ("\x1bc", r"\x1bc"),
    "8-bit escape": ("\x9b31m", r"\x9b31m"),
    "8-bit string": ("\x9d0;t\x9c", r"\x9d0;t\x9c"),
    "carriage return": ("false\rtrue", r"false\rtrue"),
    "backspace": ("evil\x08\x08\x08\x08good", r"evil\x08\x08\x08\x08good"),
    "bell": ("\x07", r"\x07"),
    "zero": ("a\x00b", r"a\x00b"),
    "vertical tab": ("a\x0bb", r"a\x0bb"),
    "form feed": ("a\x0cb", r"a\x0cb"),
    "shift out": ("a\x0eb", r"a\x0eb"),
    "delete": ("a\x7fb", r"a\x7fb"),
    "next line": ("a\x85b", r"a\x85b"),
    "right-to-left override": ("gpj\u202eexe", r"gpj\u202eexe"),
    "left-to-right override": ("\u202dabc", r"\u202dabc"),
    "embedding": ("\u202babc\u202c", r"\u202babc\u202c"),
    "isolate": ("\u2067abc\u2069", r"\u2067abc\u2069"),
    "right-to-left mark": ("a\u200fb", r"a\u200fb"),
    "Arabic letter mark": ("a\u061cb", r"a\u061cb"),
    "zero-width space": ("ad\u200bmin", r"ad\u200bmin"),
    "byte order mark": ("\ufeffkey", r"\ufeffkey"),
    "word joiner": ("a\u2060b", r"a\u2060b"),
    "tag letters": ("a\U000e0041b", r"a\U000e0041b"),
    "interlinear annotation": ("a\ufff9b", r"a\ufff9b"),
    "line separator": ("a\u2028b", r"a\u2028b"),
    "paragraph separator": ("a\u2029b", r"a\u2029b"),
    "a file name that is no UTF-8": ("caf\udce9", r"caf\udce9"),
}
each = pytest.mark.parametrize(("text", "shown"), HOSTILE.values(), ids=list(HOSTILE))
ORDINARY = {
    "Persian with a joiner": "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "an emoji of several": "\U0001f469\u200d\U0001f4bb",
    "accents": "Gr\xf6\xdfe, na\xefve, e\u0301",
    "Chinese": "\u77e9\u9635\u7684\u79e9",
    "Arabic": "\u0627\u0644\u0633\u0644\u0627\u0645",
    "lines and tabs": "a\n\tb",
}


@each
def test_what_acts_on_a_terminal_is_shown_as_its_escape(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize("text", ORDINARY.values(), ids=list(ORDINARY))
def test_what_people_write_stays_as_it_is(text: str) -> None:
    assert visible(text) == text


@given(st.text(st.characters(exclude_categories=())))
def test_no_text_at_all_leaves_a_control_character_or_breaks_the_output(text: str) -> None:
    shown = in_one_line(text)
    shown.encode()
    kept = "\u200c\u200d\xad\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2"
    hidden = {c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert hidden <= set(kept)


@each
def test_in_an_error_in_what_is_said_and_in_a_bars_name_it_is_shown(
    text: str, shown: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit), readable_errors():
        raise UserError(text, where=f"{text}.csv", remedy=f"see {text}")
    say(text)
    progress(desc=text, unit="rows", total=1).close()
    echo(text)
    out, err = capfd.readouterr()
    assert out == f"{shown}\n"
    assert shown in err.splitlines()
    assert (out + err).replace("\n", "").isprintable()


def test_an_error_is_one_line_whatever_it_says() -> None:
    error = UserError("first\nerror: second\r\nthird\u2028fourth", where="a\nb")
    assert str(error) == "a b: first error: second third fourth"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:secret@host:1/x", "http://***@host:1/x"),
        ("see https://me@host, or http://a:b@c", "see https://***@host, or http://***@c"),
        ("http://me:se@cret@host", "http://***@host"),
        ("https://medium.com/@me/post", "https://medium.com/@me/post"),
        ("me@example.org", "me@example.org"),
    ],
)
def test_no_password_of_an_address_is_shown(text: str, shown: str) -> None:
    assert without_password(text) == visible(text) == shown
    assert str(UserError(text)) == shown


def test_a_traceback_shows_neither_a_password_nor_an_escape() -> None:
    @click.command()
    def main() -> None:
        with readable_errors(debug=True):
            raise UserError("\x1b[2J at http://me:secret@host")

    said = CliRunner().invoke(main, []).stderr
    assert "Traceback" in said
    assert "secret@" not in said.replace('"\\x1b[2J at http://me:secret@host"', "")
    assert "\x1b" not in said


READ_BY_NOBODY = """
import sys
from blogtune.common.command import readable_errors
from blogtune.common.output import echo
with readable_errors():
    for n in range(100_000):
        echo(f"line {n}", err=sys.argv[1] == "err")
    open("done", "w").close()
"""


@pytest.mark.parametrize("stream", ["out", "err"])
def test_a_reader_that_goes_away_ends_nothing_and_is_told_nothing(
    tmp_path: Path, stream: str
) -> None:
    """`make show | head`: it ended in "error: Broken pipe"."""
    read, write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", READ_BY_NOBODY, stream],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=write if stream == "out" else subprocess.PIPE,
        stderr=write if stream == "err" else subprocess.PIPE,
    )
    os.close(write)
    assert os.read(read, 6) == b"line 0"
    os.close(read)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out or b"", err or b"") == (0, b"", b"")
    assert (tmp_path / "done").exists()


def test_a_terminal_without_the_letters_gets_their_escapes(tmp_path: Path) -> None:
    script = "from blogtune.common.output import echo; echo('Gr\\xf6\\xdfe \\u77e9')"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"Gr\\xf6\\xdfe \\u77e9\n"

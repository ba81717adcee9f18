"""`make chat` and `make ask Q="..."`: base and fine-tuned model answer side by side."""

import sys

import click

from blogtune.chatting.session import ask, load, systems
from blogtune.common.command import readable_errors
from blogtune.common.errors import UserError
from blogtune.common.output import echo
from blogtune.project.settings import read_settings

QUIT = ("/quit", "/exit")


@click.command()
@click.option("--once", is_flag=True, help="Answer the question in the variable Q, and end.")
@click.option("--question", envvar="Q", default="", hidden=True)
@click.option("--models", envvar="MODELS", default="base finetuned", show_default=True)
def main(*, once: bool, question: str, models: str) -> None:
    """Answer questions as stage answer does, each as if nothing was said before it."""
    with readable_errors():
        settings = read_settings()
        if once and not question.strip():
            remedy = 'make ask Q="How high is the hut?"'
            raise UserError("no question", where="Q", remedy=remedy)
        loaded = load(systems(models), settings.runtime)
        if once:
            ask(loaded, question, settings.answer)
            return
        echo(f"{' and '.join(loaded)} answer; each question stands alone, and an answer that")
        echo("sounds right may be wrong. Ctrl-C stops an answer, Ctrl-D or /quit ends.")
        while (line := _next_question()) is not None:
            try:
                ask(loaded, line, settings.answer)
            except UserError as error:
                echo(f"error: {error}", color="red", err=True)
            except KeyboardInterrupt:
                echo("(stopped)", err=True)


def _next_question() -> str | None:
    """The next line with something in it; None where there is none, or the person wants to end."""
    while True:
        try:
            line = input("\n> " if sys.stdin.isatty() else "").strip()
        except (EOFError, KeyboardInterrupt):
            return None
        if line in QUIT:
            return None
        if line:
            if not sys.stdin.isatty():
                echo(f"\n> {line}")
            return line


if __name__ == "__main__":
    main()

"""The figures as people read them: the closing table, the same as Markdown, and the examples."""

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from blogtune.comparing.examples import Change

WIDTH = 100
HEADER = ("model", "mean", "good", "poor", "beyond", "difference")
MARKDOWN_HEADER = (
    *("model", "mean similarity", "good", "poor", "beyond the question"),
    *("difference to base", "difference beyond the question"),
)
NOTHING = "-"
Metrics = Mapping[str, Any]


def closing_table(comparison: Metrics) -> str:
    """Return metrics/comparison.json as plain text of at most 100 columns, verdicts below."""
    rows = [HEADER, *(_row(name, model)[: len(HEADER)] for name, model in _models(comparison))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_line(row, widths) for row in rows]
    rule = "-" * max(map(len, lines))
    text = [_note(comparison), *_verdicts(comparison)]
    return "\n".join([lines[0], rule, *lines[1:], "", *map(_wrapped, text)])


def markdown_table(comparison: Metrics) -> str:
    """Return metrics/comparison.json as a Markdown table, note and verdicts below."""
    aligned = ("---", *("---:" for _ in MARKDOWN_HEADER[1:]))
    rows = [MARKDOWN_HEADER, aligned, *(_row(*named) for named in _models(comparison))]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return "\n\n".join([table, _note(comparison), *_verdicts(comparison)])


def show_examples(examples: Iterable[Change]) -> str:
    """Return the examples as plain text; nothing in it can drive the terminal."""
    return "\n\n".join(_example(example) for example in examples)


def plain(text: str) -> str:
    """Return the text with line breaks, spaces and what can be seen; the rest spelled out.

    Escape sequences, direction marks and other invisible characters of a model's answer become
    "\\x1b" and the like, other white space becomes a space.
    """
    return "".join(map(_visible, text))


def _visible(character: str) -> str:
    if character.isprintable() or character == "\n":
        return character
    if character.isspace():
        return " "
    return character.encode("unicode_escape").decode()


def _models(comparison: Metrics) -> list[tuple[str, Metrics]]:
    return [(name, model) for name, model in comparison.items() if isinstance(model, Mapping)]


def _row(name: str, model: Metrics) -> tuple[str, ...]:
    return (
        name.replace("_", " "),
        *(_share(model, "mean"), _percent(model, "good"), _percent(model, "poor")),
        *(_share(model, "beyond_question"), _interval(model, "difference")),
        _interval(model, "beyond_question_difference"),
    )


def _share(model: Metrics, key: str) -> str:
    return f"{model[key]:.3f}" if key in model else NOTHING


def _percent(model: Metrics, key: str) -> str:
    return f"{model[key]:.0%}" if key in model else NOTHING


def _interval(model: Metrics, key: str) -> str:
    figures = model.get(key, {})
    if "low" not in figures:
        return f"{figures['mean']:+.3f}" if "mean" in figures else NOTHING
    return f"{figures['mean']:+.3f} [{figures['low']:+.3f}, {figures['high']:+.3f}]"


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    """Names to the left, figures to the right."""
    first, *others = zip(row, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)])


def _wrapped(text: str) -> str:
    """Wrap at WIDTH, but never inside an interval."""
    whole = re.sub(r"\[.*?\]", lambda interval: interval[0].replace(" ", "\xa0"), text)
    return textwrap.fill(whole, WIDTH, subsequent_indent="  ").replace("\xa0", " ")


def _note(comparison: Metrics) -> str:
    """What the figures rest on."""
    unscored = [
        f"{model['unscored']} of {name}" for name, model in _models(comparison) if model["unscored"]
    ]
    return "; ".join(
        [
            f"questions: {comparison['questions']}",
            f"posts: {comparison['posts']}",
            f"near-duplicates in training: {comparison['near_duplicates']}",
            *([f"without a score: {', '.join(unscored)}"] if unscored else []),
            f"differences to base with {comparison['confidence']:.0%} intervals",
        ]
    )


def _verdicts(comparison: Metrics) -> list[str]:
    return [model["verdict"] for _, model in _models(comparison) if "verdict" in model]


def _example(example: Change) -> str:
    scores = f"{example.base_similarity:.3f} to {example.finetuned_similarity:.3f}"
    parts = {
        "question": example.question,
        "reference": example.reference,
        "base": example.base,
        "fine-tuned": example.finetuned,
    }
    head = f"{example.kind} change: {example.change:+.3f} ({scores}), {plain(example.id)}"
    return "\n".join([head, *(_paragraph(name, text) for name, text in parts.items())])


def _paragraph(name: str, text: str) -> str:
    """A text under its name, wrapped line by line."""
    lines = [
        wrapped
        for line in (plain(text) or "(empty)").split("\n")
        for wrapped in textwrap.wrap(line, WIDTH - 4, break_on_hyphens=False) or [""]
    ]
    return "\n".join([f"  {name}:", *(f"    {line}".rstrip() for line in lines)])

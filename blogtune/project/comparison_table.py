"""The figures as people read them: the closing table, the same as Markdown, and the examples."""

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from blogtune.comparing.examples import Change
from blogtune.probing.results import said
from blogtune.project import layout
from blogtune.project.layout import NOTHING, WIDTH, Row, plain_table, wrapped

HEADER = ("model", "mean", "second", "good", "poor", "partial", "facts", "difference")
MARKDOWN_HEADER = (
    *("model", "mean similarity", "second judge's", "good", "poor", "partial similarity"),
    *("facts right", "difference to base", "difference in partial similarity"),
    "difference in facts right",
)
Metrics = Mapping[str, Any]


def closing_table(comparison: Metrics, knowledge: Metrics | None = None) -> str:
    """Return metrics/comparison.json as plain text of at most 100 columns, verdicts below.

    Last stands what metrics/knowledge.json says, or that there is none.
    """
    table = plain_table(_rows(HEADER, comparison))
    return "\n".join([table, "", *map(wrapped, [*_notes(comparison), said(knowledge)])])


def markdown_table(comparison: Metrics, knowledge: Metrics | None = None) -> str:
    """Return the same as a Markdown table, with the same lines below."""
    return "\n\n".join([*markdown_parts(comparison), said(knowledge)])


def markdown_parts(comparison: Metrics) -> list[str]:
    """Return the table, then each note and verdict on metrics/comparison.json."""
    return [layout.markdown_table(_rows(MARKDOWN_HEADER, comparison)), *_notes(comparison)]


def side_by_side(comparisons: Mapping[str, Metrics]) -> str:
    """Return several comparisons of the same models as one Markdown table, notes below.

    The keys say how they differ; each gets the mean and the two differences to the base.
    """
    titles = ("similarity", "difference to base", "difference in partial similarity")
    header = ["model", *(f"{name}: {title}" for name in comparisons for title in titles)]
    models = {name: dict(_models(comparison)) for name, comparison in comparisons.items()}
    rows = [
        [
            model.replace("_", " "),
            *(cell for those in models.values() for cell in _three(those[model])),
        ]
        for model in next(iter(models.values()))
    ]
    notes = [
        f"{name}: {note}" for name, comparison in comparisons.items() for note in _notes(comparison)
    ]
    return "\n\n".join([layout.markdown_table([header, *rows]), *notes])


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
    """The models by name; what else has figures of its own is the second judge."""
    return [
        (name, model)
        for name, model in comparison.items()
        if isinstance(model, Mapping) and name != "second"
    ]


def _rows(header: Row, comparison: Metrics) -> list[Row]:
    """The header and a row for each model, without a column that has nothing to say."""
    second = comparison.get("second", {})
    models = _models(comparison)
    rows = [header, *(_row(name, model, second.get(name, {})) for name, model in models)]
    facts = any("facts_right" in model for _, model in models)
    kept = [
        place
        for place, title in enumerate(header)
        if (second or "second" not in title) and (facts or "facts" not in title)
    ]
    return [[row[place] for place in kept] for row in rows]


def _row(name: str, model: Metrics, second: Metrics) -> Row:
    return (
        *(name.replace("_", " "), _share(model, "mean"), _share(second, "mean")),
        *(_percent(model, "good"), _percent(model, "poor"), _share(model, "partial_similarity")),
        _percent(model.get("facts_right", {}), "mean"),
        *(_interval(model, "difference"), _interval(model, "partial_similarity_difference")),
        _interval(model, "facts_right_difference"),
    )


def _three(model: Metrics) -> Row:
    return (
        _share(model, "mean"),
        _interval(model, "difference"),
        _interval(model, "partial_similarity_difference"),
    )


def _share(model: Metrics, key: str) -> str:
    return f"{model[key]:.3f}" if key in model else NOTHING


def _percent(model: Metrics, key: str) -> str:
    return f"{model[key]:.0%}" if key in model else NOTHING


def _interval(model: Metrics, key: str, sign: str = "+") -> str:
    figures = {end: f"{value:{sign}.3f}" for end, value in model.get(key, {}).items()}
    if "low" not in figures:
        return figures.get("mean", NOTHING)
    return f"{figures['mean']} [{figures['low']}, {figures['high']}]"


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


def _notes(comparison: Metrics) -> list[str]:
    """What the figures rest on, the second judge's word, and the verdicts."""
    verdicts = [model["verdict"] for _, model in _models(comparison) if "verdict" in model]
    return [_note(comparison), *_second_note(comparison), *verdicts]


def _second_note(comparison: Metrics) -> list[str]:
    if "second" not in comparison:
        return []
    second = comparison["second"]
    agreement = second.get("agreement", {})
    told = [
        f"second judge (the first decides): {second['method']}",
        f"difference of finetuned {_interval(second['finetuned'], 'difference')}",
        f"of fused {_interval(second['fused'], 'difference')}",
        f"rank correlation with the first {_interval(agreement, 'spearman')}",
        f"both prefer the same model {_interval(agreement, 'same_preference', sign='')}",
    ]
    return ["; ".join(told)]


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

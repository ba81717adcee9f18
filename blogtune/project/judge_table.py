"""The judge's test as people read it, for a terminal and for Markdown.

answer        label      n            similarity    AUC               drop or gain
----------------------------------------------------------------------------------
paraphrase    right     70  0.683 [0.65, 0.71]        -                          -
same post     wrong    100  0.375 [0.34, 0.41]    0.940                          -
half          spoiled  100  0.857 [0.84, 0.87]        -  drop 0.143 [0.128, 0.158]
"""

from collections.abc import Iterator

from blogtune.checking.figures import RIGHT, SPOILED, WRONG, Fitness, Kind, Mean
from blogtune.checking.limits import MOST_SPELLED, MOST_UNKNOWN
from blogtune.project.layout import NOTHING, Row, markdown_table, plain_table, wrapped

HEADER = ("answer", "label", "n", "similarity", "AUC", "drop or gain", "facts right")
ORDER: tuple[Kind, ...] = ("identity", *RIGHT, *SPOILED, *WRONG, "instruction")
LABELS: dict[Kind, str] = {
    **dict.fromkeys(("identity", *RIGHT), "right"),
    **dict.fromkeys(SPOILED, "spoiled"),
    **dict.fromkeys((*WRONG, "instruction"), "wrong"),
}


def plain_judge_table(fitness: Fitness) -> str:
    """Return the table as plain text, with what it rests on and what follows from it below."""
    notes = [wrapped(note) for note in _notes(fitness)]
    return "\n".join([plain_table(_table(fitness)), "", *notes])


def markdown_judge_table(fitness: Fitness) -> str:
    """Return the same as Markdown."""
    return "\n\n".join(markdown_judge_parts(fitness))


def markdown_judge_parts(fitness: Fitness) -> list[str]:
    """Return the same apart: the table, then each note."""
    return [markdown_table(_table(fitness)), *_notes(fitness)]


def _table(fitness: Fitness) -> list[Row]:
    """The header and the rows, without the facts' column where no reference has any."""
    rows = [HEADER, *_rows(fitness)]
    return rows if fitness.facts else [row[:-1] for row in rows]


def _rows(fitness: Fitness) -> Iterator[Row]:
    auc: dict[Kind, float] = {**fitness.auc_against}
    shares = fitness.facts.right if fitness.facts else {}
    changes: dict[Kind, str] = {
        **{kind: f"drop {_interval(mean)}" for kind, mean in fitness.drop.items()},
        **{kind: f"gain {_interval(mean)}" for kind, mean in fitness.gain.items()},
    }
    for kind in ORDER:
        if kind in fitness.similarity:
            mean = fitness.similarity[kind]
            yield (
                *(kind.replace("_", " "), LABELS[kind], str(mean.n), _interval(mean)),
                *(f"{auc[kind]:.3f}" if kind in auc else NOTHING, changes.get(kind, NOTHING)),
                f"{shares[kind].mean:.0%}" if kind in shares else NOTHING,
            )


def _interval(mean: Mean) -> str:
    if mean.low is None or mean.high is None:
        return f"{mean.mean:.3f}"
    return f"{mean.mean:.3f} [{mean.low:.3f}, {mean.high:.3f}]"


def _notes(fitness: Fitness) -> Iterator[str]:
    figures = [
        f"judge: {fitness.method}",
        f"questions: {fitness.questions}",
        f"posts: {fitness.posts}",
        f"probes without a score: {fitness.unscored:.1%}",
    ]
    if fitness.auc is not None:
        figures.append(f"AUC of {fitness.right} against all wrong answers: {fitness.auc:.3f}")
    if fitness.retest_agreement is not None:
        figures.append(f"same score when asked again: {fitness.retest_agreement:.0%}")
    if fitness.facts and fitness.facts.auc is not None:
        figures.append(f"AUC by facts against another value: {fitness.facts.auc:.3f}")
    if fitness.unmatched_paraphrases:
        figures.append(f"paraphrases that match no question: {fitness.unmatched_paraphrases}")
    if fitness.unknown_tokens is not None and fitness.spelled_tokens is not None:
        figures.append(
            f"of the references' tokens {fitness.unknown_tokens:.1%} are unknown to it (at most "
            f"{MOST_UNKNOWN:.0%}) and {fitness.spelled_tokens:.1%} read as single letters (at most "
            f"{MOST_SPELLED:.0%})"
        )
    yield "; ".join(figures)
    if fitness.strangers():
        yield fitness.strangers()
    yield fitness.said()

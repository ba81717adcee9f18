"""What the judge's test found, as it stands in metrics/judge.json.

{"fit": true, "reasons": "", "blind_spots": "echo, negation, numbers", "untested": "",
 "method": "cosine", "right": "paraphrase", "questions": 100, "posts": 70, "paraphrases": 70,
 "unmatched_paraphrases": 0, "probes": 1088, "unscored": 0.0, "retest_agreement": 1.0,
 "auc": 0.92, "auc_against": {"same_post": 0.94, "other_post": 1.0, ...},
 "similarity": {"paraphrase": {"n": 70, "mean": 0.68, "low": 0.66, "high": 0.71}, ...},
 "drop": {"half": {"n": 100, "mean": 0.14, ...}, ...}, "gain": {"instruction": {...}},
 "facts": {"auc": 0.98, "right": {"paraphrase": {"n": 70, "mean": 0.95, ...}, ...},
           "drop": {"numbers": {"n": 41, "mean": 0.98, ...}, ...}}}
"""

from typing import Any, Literal, get_args

from blogtune.common.records import Record

Right = Literal["paraphrase", "reordered", "reworded", "padding"]
Wrong = Literal["same_post", "other_post", "refusal", "echo"]
Spoiled = Literal["half", "negation", "numbers", "other_value"]
Kind = Right | Wrong | Spoiled | Literal["identity", "instruction"]
RIGHT: tuple[Right, ...] = get_args(Right)
WRONG: tuple[Wrong, ...] = get_args(Wrong)
SPOILED: tuple[Spoiled, ...] = get_args(Spoiled)
# With fewer the verdict says how many there were.
ENOUGH_PARAPHRASES = 20


class Mean(Record):
    """A mean over `n` probes, without an interval where the posts are too few for one."""

    n: int
    mean: float
    low: float | None = None
    high: float | None = None


class FactsFigures(Record):
    """What facts right, which asks no judge, sees of the same answers.

    `right` is the share of each kind that it calls right, `drop` identity minus the kind, `auc` how
    often a right answer has the higher F1 than one with another value, a tie counting half. Where
    it is not `fit` for these data, the comparison has no figures of it.
    """

    fit: bool
    auc: float | None = None
    right: dict[Kind, Mean]
    drop: dict[Spoiled, Mean]


class Figures(Record):
    """How the judge scored labelled answers. A figure that nothing was there for is None.

    `right` is the kind of right answer that the areas under the curve rest on, `drop` is identity
    minus the kind, `gain` the instruction minus the same answer without it, paired by question.
    `unscored_reason` is the most frequent one. `unknown_tokens` and `spelled_tokens` are shares of
    the references' tokens that an embedding judge has no word piece for, and that are single
    letters of a word.
    """

    method: str
    right: Right
    questions: int
    posts: int
    paraphrases: int
    unmatched_paraphrases: int
    probes: int
    unscored: float
    unscored_reason: str | None = None
    retest_agreement: float | None = None
    auc: float | None = None
    auc_against: dict[Wrong, float]
    similarity: dict[Kind, Mean]
    drop: dict[Spoiled, Mean]
    gain: dict[Literal["instruction"], Mean]
    unknown_tokens: float | None = None
    spelled_tokens: float | None = None
    facts: FactsFigures | None = None


class Fitness(Figures):
    """Is the judge fit to decide, and if not, why; which kinds of wrong answer does it not see?

    `untested` are the kinds that this data gave no probes of. Each text is empty where there is
    nothing to say.
    """

    fit: bool
    reasons: str
    blind_spots: str
    untested: str

    def metrics(self) -> dict[str, Any]:
        """All of it, what was found first, but what has no value: DVC drops that in silence."""
        values = self.model_dump(exclude_none=True)
        found = {key: values[key] for key in ("fit", "reasons", "blind_spots", "untested")}
        return found | values

    def said(self) -> str:
        """What the verdict says, such as "judge passed its test; known blind spots: numbers"."""
        if not self.fit:
            return f"the judge failed its test ({self.reasons})"
        parts = [f"judge passed {self._test()}"]
        parts += [f"known blind spots: {self.blind_spots}"] if self.blind_spots else []
        parts += [f"not tested with: {self.untested}"] if self.untested else []
        return "; ".join(parts)

    def strangers(self) -> str:
        """That the paraphrases are another blog's, where none of them matches a question."""
        if self.paraphrases or not self.unmatched_paraphrases:
            return ""
        return (
            f"none of the {self.unmatched_paraphrases} paraphrases belongs to a question of these "
            "data: write some, and name their file in judge.check.paraphrases "
            "(docs/how-to/own-data.md)"
        )

    def _test(self) -> str:
        if self.right == "reworded":
            return "its test with the data's own other wordings, without paraphrases"
        if self.right != "paraphrase":
            return "an easy test without paraphrases"
        if self.paraphrases < ENOUGH_PARAPHRASES:
            return f"its test with only {self.paraphrases} paraphrases"
        return "its test"

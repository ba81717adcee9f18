"""From what a language model says to a similarity in [0, 1], or to the reason why there is none."""

import json
import math
from collections.abc import Mapping

from blogtune.judging.prompt import DIGITS, Scale
from blogtune.judging.protocol import Verdict

UNREADABLE = Verdict(None, reason="no readable score")
OUT_OF_RANGE = Verdict(None, reason="score out of range")
DIGITS_MISSING = Verdict(None, reason="a digit's probability is missing")


def from_probabilities(weights: Mapping[str, float]) -> Verdict:
    """The mean score of a distribution over the digits 1 to 5, which need not add up to 1."""
    if any(digit not in weights for digit in DIGITS):
        return DIGITS_MISSING
    total = math.fsum(weights[digit] for digit in DIGITS)
    if not (math.isfinite(total) and total > 0.0):
        return DIGITS_MISSING
    mean = math.fsum(int(digit) * weights[digit] for digit in DIGITS) / total
    return Verdict(min(max((mean - 1.0) / 4.0, 0.0), 1.0))


def from_text(text: str, scale: Scale) -> Verdict:
    """The score of a reply that is the JSON asked for, and nothing besides."""
    try:
        reply = json.loads(text)
    except (ValueError, RecursionError):
        return UNREADABLE
    score = reply.get("score") if isinstance(reply, dict) else None
    # True is an int in Python.
    if isinstance(score, bool) or not isinstance(score, int | float):
        return UNREADABLE
    if scale == "unit":
        return Verdict(float(score)) if 0.0 <= score <= 1.0 else OUT_OF_RANGE
    if not (isinstance(score, int) and str(score) in DIGITS):
        return OUT_OF_RANGE
    return Verdict((score - 1) / 4)

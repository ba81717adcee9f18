"""64-bit keys of what is compared exactly: pairs, questions and posts.

What was said before a question belongs to it: "Why?" in two conversations is two questions.
"""

from blogtune.common.records import Pair
from blogtune.common.texts import folded
from blogtune.data.split import seeded_key


def content_key(pair: Pair, seed: int) -> int:
    return seeded_key(seed, "pair", folded(pair.question), folded(pair.answer), *_before(pair))


def question_key(pair: Pair) -> int:
    return seeded_key(0, "question", folded(pair.question), *_before(pair))


def post_key(post: str, seed: int) -> int:
    return seeded_key(seed, "post", post)


def _before(pair: Pair) -> list[str]:
    return [text for turn in pair.context for text in (turn.role, folded(turn.content))]

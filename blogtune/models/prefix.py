"""What several prompts begin with in common, which is read once for all of them."""

from collections.abc import Sequence
from itertools import takewhile


def common_beginning(prompts: Sequence[list[int]]) -> list[int]:
    """What all prompts begin with, without the last token of any: that one is left to be read."""
    columns = zip(*(prompt[:-1] for prompt in prompts), strict=False)
    return [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]

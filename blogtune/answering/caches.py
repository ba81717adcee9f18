"""What the caches of several answers take: arithmetic alone, so that it can be told beforehand."""

# Tokens by which mlx-lm's caches grow.
GROWTH = 256
# Of the caches' new size, what is held while they grow, as measured.
GROWING = 4 / 3
# Answers begin together, so many tokens of their questions at once.
READ_TOKENS = 2048


def cache_bytes(step: int, count: int, longest: int, more: int) -> int:
    """What the caches of `count` answers take at most, `more` tokens behind prompts of `longest`.

    Those that begin are copied to the others; and while caches grow, a part of the old ones is
    there beside the new.
    """
    steps = -(-(longest + more) // GROWTH)
    beginning = min(count, max(1, READ_TOKENS // longest))
    return int(step * max(count + beginning, GROWING * count * steps))

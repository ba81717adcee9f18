"""Arrays in parts so small that what is computed of one stays in the processor's cache."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
PART = 32_768


def parts(count: int, size: int = 1) -> Iterator[slice]:
    """Slices over `count` things that have `size` numbers each."""
    step = max(1, PART // size)
    return (slice(start, start + step) for start in range(0, count, step))

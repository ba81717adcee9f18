"""Cross-entropy over a vocabulary too large for all rows' logits at once, in chunks of rows.

The gradient at the hidden rows is taken chunk by chunk, on the way forward, so that no more than
CHUNK_ROWS x vocabulary logits are ever there: Liger-Kernel's fused linear cross-entropy (Hsu et al.
2024, arXiv 2410.10989).
"""

import math
from collections.abc import Callable
from itertools import pairwise

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from mlx import nn

from blogtune.models.gradients import detach, scalar_with_grad

Integers = npt.NDArray[np.int32]
# 88 MB of logits for a vocabulary of 49,152. With fewer rows the output layer's weights are read
# more often.
CHUNK_ROWS = 448


def chunked_cross_entropy(
    hidden: mx.array, targets: Integers, project: Callable[[mx.array], mx.array]
) -> mx.array:
    """Cross-entropy in nats of `project(hidden)` against `targets`, summed over the rows.

    hidden: (rows, width); targets: (rows,); project: from hidden rows to their logits, (rows,
    vocabulary). Differentiable in `hidden`; what `project` is made of is taken as frozen.
    """
    loss = 0.0
    gradients: list[mx.array] = []
    for rows in _chunks(len(targets)):
        labels = mx.array(targets[rows])

        def chunk_loss(hidden: mx.array, labels: mx.array = labels) -> mx.array:
            return nn.losses.cross_entropy(project(hidden), labels, reduction="sum")

        value, gradient = mx.value_and_grad(chunk_loss)(mx.stop_gradient(hidden[rows]))
        loss += float(value)
        # The array itself would keep the chunk's logits.
        gradients.append(detach(gradient))
    return scalar_with_grad(loss, hidden, mx.concatenate(gradients))


def _chunks(rows: int) -> list[slice]:
    """Slices of like size, of CHUNK_ROWS at most."""
    ends = np.linspace(0, rows, math.ceil(rows / CHUNK_ROWS) + 1).round().astype(int).tolist()
    return [slice(start, end) for start, end in pairwise(ends)]

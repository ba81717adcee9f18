"""What the processes that share a stage's work tell one another."""

from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_map_with_path


def all_sum(values: Any, group: mx.distributed.Group) -> Any:
    """The sum over all processes of each array in a tree; all are sent as one."""
    if group.size() == 1:
        return values
    named: Any = tree_flatten(values)
    arrays: dict[str, mx.array] = dict(sorted(named))
    several = mx.concatenate([array.reshape(-1) for array in arrays.values()], stream=mx.cpu)
    summed = mx.distributed.all_sum(several, group=group, stream=mx.cpu)
    ends = np.cumsum([array.size for array in arrays.values()])[:-1].tolist()
    parts = dict(zip(arrays, mx.split(summed, ends, stream=mx.cpu), strict=True))

    def everyones(name: str | None, array: mx.array) -> mx.array:
        return parts[name or ""].reshape(array.shape).astype(array.dtype)

    return tree_map_with_path(everyones, values)


def broadcast(data: bytes, group: mx.distributed.Group) -> bytes:
    """The bytes that the first process brought; what the others bring does not count."""
    if group.size() == 1:
        return data
    mine = np.frombuffer(data if group.rank() == 0 else b"", np.uint8)
    length = int(all_sum(mx.array(len(mine)), group))
    padded = np.zeros(length, np.int32)
    padded[: len(mine)] = mine
    return np.asarray(all_sum(mx.array(padded), group)).astype(np.uint8).tobytes()

"""The learning rate of each iteration."""

import math

from blogtune.training.params import TrainParams


def learning_rate(params: TrainParams, iteration: int) -> float:
    """The rate of `iteration` (from 1): linear warmup, then constant or half a cosine down to 0.

    Cosine decay is that of SGDR (Loshchilov and Hutter 2017, arXiv 1608.03983) without restarts.
    """
    if iteration <= params.warmup_iterations:
        return params.learning_rate * iteration / params.warmup_iterations
    if params.schedule == "constant":
        return params.learning_rate
    done = iteration - 1 - params.warmup_iterations
    span = params.iterations - params.warmup_iterations
    return params.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done / span))

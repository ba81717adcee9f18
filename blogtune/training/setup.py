"""What is trained, and on what."""

import math
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from blogtune.common.progress import say
from blogtune.models.head import Head
from blogtune.training.examples import Example
from blogtune.training.params import TrainParams


@dataclass(frozen=True)
class Setup:
    """What is trained, and on what: the same in all processes of `group`."""

    network: Any
    head: Head
    params: TrainParams
    group: mx.distributed.Group
    examples: list[Example]
    validation: list[Example]

    @property
    def everything(self) -> list[Example]:
        return [*self.examples, *self.validation]

    @property
    def adapted(self) -> range:
        """The places of the adapted blocks."""
        blocks = len(self.network.layers)
        return range(blocks - self.params.lora.layers, blocks)

    def shortest_and_longest(self) -> list[Example]:
        """One of each for every process."""
        ordered, each = sorted(self.everything, key=lambda e: e.tokens), self.group.size()
        return [*ordered[:each], *ordered[max(each, len(ordered) - each) :]]

    def short_and_middle(self) -> list[Example]:
        """Two of unlike lengths, and not long."""
        ordered = sorted(self.everything, key=lambda example: example.tokens)
        return [ordered[0], ordered[len(ordered) // 2]]

    def longest(self) -> list[Example]:
        """As many as a process has in a batch."""
        size = math.ceil(self.params.batch_pairs / self.group.size())
        return sorted(self.everything, key=lambda example: -example.tokens)[:size]

    def say(self, text: str) -> None:
        if self.group.rank() == 0:
            say(text)

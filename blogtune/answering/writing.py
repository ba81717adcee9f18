"""An answer while it is written."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Writing:
    """An answer as far as it is written, without a stop token."""

    prompt: list[int]
    limit: int
    tokens: list[int] = field(default_factory=list)
    stopped: bool = False

    @property
    def text(self) -> list[int]:
        """What the model has read when it goes on."""
        return [*self.prompt, *self.tokens]

    @property
    def left(self) -> int:
        """How many tokens may follow."""
        return 0 if self.stopped else self.limit - len(self.tokens)

    def add(self, tokens: Sequence[int], *, stopped: bool) -> int:
        """How much of the limit that takes; the end takes what is left of it."""
        before = self.left
        self.tokens += tokens
        self.stopped = stopped
        return before - self.left

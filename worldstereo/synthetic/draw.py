"""Random choices that are the same on every machine.

Owns the stream that worlds are drawn from: only 53-bit uniform numbers of numpy's PCG64 are used,
whose sequence does not depend on numpy's version or the processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Draw:
    """Draws numbers and choices, one after the other.

    Args:
        entropy: non-negative integers that name the stream.
    """

    def __init__(self, *entropy: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64(list(entropy)))

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * float(self._generator.random())

    def integer(self, low: int, high: int) -> int:
        """One of low, ..., high."""
        return low + int((high - low + 1) * float(self._generator.random()))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return float(self._generator.random()) < probability

    def choice(self, options: Sequence[T]) -> T:
        """One of the options."""
        return options[self.integer(0, len(options) - 1)]

    def shuffled(self, options: Sequence[T]) -> list[T]:
        """All options in a random order."""
        left = list(options)
        return [left.pop(self.integer(0, len(left) - 1)) for _ in range(len(left))]

"""A run that ends by the clock rather than after so many steps."""

import math
import time
from collections.abc import Callable

import numpy as np

_CONSTANT = 0.8
"""The share of the time that the learning rate stays as it is."""


class TimeLimit:
    """The minutes that a run has, from when this is made.

    Args:
        minutes: 0 for no limit.
        timed: the learning rate falls at the end of them.
        clock: seconds, for tests.
    """

    def __init__(self, minutes: float, *, timed: bool, clock: Callable[[], float] = time.monotonic):
        self.minutes, self.timed = minutes, timed
        self._clock, self._began = clock, clock()

    def over(self) -> bool:
        """Whether the time is up."""
        return self.minutes > 0 and self._share() >= 1

    def rate_scale(self) -> np.float32:
        """What the learning rate is multiplied by now: 1, then along half a cosine to 0 at the end of the time."""
        if not self.timed:
            return np.float32(1)
        fallen = max(0.0, min(1.0, (self._share() - _CONSTANT) / (1 - _CONSTANT)))
        return np.float32((1 + math.cos(math.pi * fallen)) / 2)

    def _share(self) -> float:
        return (self._clock() - self._began) / (60 * self.minutes)

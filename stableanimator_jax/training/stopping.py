"""Stopping at a good moment: Ctrl-C, or the SIGTERM of a job manager that wants the machine back."""

import signal
import sys
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils

from stableanimator_jax.interrupts import check_interrupted


class StopAsked(Exception):
    """Long work between two steps is broken off."""


class Stopping:
    """Within the block a first signal asks to stop after the step under way; another one stops at once.

    With several processes SIGTERM to one of them stops all after the same step (JAX's own notice of preemption);
    Ctrl-C stops a process at once.
    """

    def __init__(self) -> None:
        self._asked = False
        self._alone = jax.process_count() == 1
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stopping":
        if self._alone:
            try:
                self._before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
                for number in self._before:
                    signal.signal(number, self._ask)
            except ValueError:  # not in the main thread
                self._before = {}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def asked(self, step: int) -> bool:
        """Whether to stop now, after `step` steps; the same on every process. To be called after every step."""
        if self._alone:
            return self._asked
        return multihost_utils.reached_preemption_sync_point(step)

    def check(self) -> None:
        """For long work that nothing is lost of. Raises `StopAsked` within it."""
        check_interrupted()
        if self._asked:
            raise StopAsked

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        print("\nstopping after this step; once more stops at once", file=sys.stderr)
        self._restore()  # a second signal is for whoever listened before

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

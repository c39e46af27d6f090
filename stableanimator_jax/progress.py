"""Progress on the terminal, and how long each part of a run took."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from tqdm import tqdm

from stableanimator_jax.interrupts import check_interrupted

Progress = Callable[[int, int], None]
Onlooker = Callable[[str, int, int, str], None]
"""Called with what is being done, how much of it is done, of how much in all, and a note such as "step 3 of 25"."""

_onlooker: ContextVar[Onlooker | None] = ContextVar("onlooker", default=None)


@contextmanager
def looked_on(onlooker: Onlooker) -> Iterator[None]:
    """Within the block, in its thread, all `ProgressBars` also tell `onlooker` how they stand."""
    token = _onlooker.set(onlooker)
    try:
        yield
    finally:
        _onlooker.reset(token)


class ProgressBars:
    """Bars on stderr, one after another: `with ProgressBars() as bars: bars.begin("denoising", "call")`.

    On a terminal a bar is redrawn many times a second; in a log file it is a line now and then. None is where not
    `shown`.
    """

    def __init__(self, *, shown: bool = True):
        self._shown = shown
        self._bar: tqdm | None = None
        self._step = self._note = self._label = ""
        self._stands = (0, 0)

    def __enter__(self) -> "ProgressBars":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def begin(self, label: str, unit: str) -> Progress:
        """Show a bar in place of the last one; its length is not known yet.

        Returns:
            A callback of (done, total) that moves the bar.
        """
        self._close()
        self._step = self._note = ""
        self._label, self._stands = label, (0, 0)
        interval = 0.1 if sys.stderr.isatty() else 10.0
        bar = self._bar = tqdm(desc=label, unit=unit, dynamic_ncols=True, mininterval=interval, disable=not self._shown)

        def progress(done: int, total: int) -> None:
            check_interrupted()
            bar.total = total
            bar.update(done - bar.n)
            self._stands = done, total
            self._tell()

        self._tell()
        return progress

    def step(self, number: int, steps: int) -> None:
        """Show, before any note, which step the bar is at, counted from 1; steps need not be of one length."""
        self._step = f"step {number} of {steps}"
        self._write_postfix(refresh=sys.stderr.isatty())

    def note(self, text: str) -> None:
        """Show `text` at the end of the bar from now on."""
        check_interrupted()
        self._note = text
        self._write_postfix(refresh=sys.stderr.isatty())

    def _write_postfix(self, *, refresh: bool) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(self._postfix, refresh=refresh)
        self._tell()

    @property
    def _postfix(self) -> str:
        return ", ".join(filter(None, (self._step, self._note)))

    def _tell(self) -> None:
        if (onlooker := _onlooker.get()) is not None:
            onlooker(self._label, *self._stands, self._postfix)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()


@dataclass
class Stopwatch:
    """Seconds by name, each from the lap before to its own."""

    laps: dict[str, float] = field(default_factory=dict)
    _start: float = field(default_factory=time.perf_counter)

    def lap(self, name: str) -> None:
        """End the lap `name` now."""
        self.laps[name] = round(self.total() - sum(self.laps.values()), 3)

    def total(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start

"""What a person sees while a model trains: where the run is, how the loss falls, how fast it goes."""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import jax
from tqdm import tqdm

from stableanimator_jax.interrupts import check_interrupted

_SMOOTHING = 0.98  # of the loss that is shown: about the last 50 updates


class _Stretch(NamedTuple):
    """What was done from one update to the next."""

    seconds: float
    steps: int
    frames: int
    flops: float | None


class TrainProgress:
    """A bar on stderr: `with TrainProgress(steps) as progress: progress.update(step, loss=…, learning_rate=…, …)`.

    Process 0 shows it; the others only count. On a terminal it is redrawn many times a second; in a log file it is
    a line now and then.
    """

    def __init__(
        self,
        total: int | None,
        *,
        done: int = 0,
        peak: float | None = None,
        window: int = 50,
        clock: Callable[[], float] = time.perf_counter,
    ):
        """
        Args:
            total: steps of the whole run; None where the time decides.
            done: steps done already, by the run that this one resumes.
            peak: floating-point operations a second that all devices together could do (`flops.peak_flops`), if known.
            window: updates that speeds are averaged over.
            clock: seconds, for tests.
        """
        self._peak = peak
        self._clock = clock
        self._paused = 0.0  # seconds of all pauses that are over
        self._pause_began: float | None = None
        self._last: tuple[float, int] | None = None  # seconds without pauses, and the step, of the last update
        self._recent: deque[_Stretch] = deque(maxlen=window)
        self._loss_sum = self._loss_weight = 0.0
        self._text = ""
        # The rate and its unit are our own: tqdm's counts pauses and compilation. Its time left counts them rightly.
        known = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
        self._bar = tqdm(
            desc="training",
            total=total,
            initial=done,
            disable=jax.process_index() != 0,
            dynamic_ncols=True,
            mininterval=0.1 if sys.stderr.isatty() else 10.0,
            bar_format=known if total is not None else "{desc}: {n_fmt} [{elapsed}{postfix}]",
        )

    def __enter__(self) -> "TrainProgress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def update(
        self,
        step: int,
        *,
        loss: float,
        learning_rate: float,
        frames: int,
        flops: float | None = None,
        at: float | None = None,
    ) -> dict[str, float]:
        """Show that `step` steps are done.

        Args:
            step: steps done since the run began, before it was resumed too.
            loss: of the last step.
            learning_rate: of the last step.
            frames: video frames trained on since the last update, over all devices.
            flops: floating-point operations that this needed (`flops.matmul_flops`), if known.
            at: when the step was done, by `when`; by default now.

        Returns:
            What is shown, for the log: `loss_smoothed`, and from the second update on `steps_per_second`,
            `frames_per_second` and, where they are known, `tflops` and `share_of_peak`. The time up to the first
            update is in none of them: it is mostly compilation.
        """
        check_interrupted()
        self._loss_sum = _SMOOTHING * self._loss_sum + (1 - _SMOOTHING) * loss
        self._loss_weight = _SMOOTHING * self._loss_weight + (1 - _SMOOTHING)
        shown = {
            "loss_smoothed": self._loss_sum / self._loss_weight,
            **self._speeds(step, frames, flops, self._now() if at is None else at),
        }
        self._text = _in_words(shown, learning_rate)
        self._bar.set_postfix_str(self._text, refresh=False)
        self._bar.update(step - self._bar.n)
        return shown

    def when(self, result: jax.Array) -> float:
        """Wait for a step's result; the seconds, without pauses, at which it was there. For a thread of its own.

        Looked at in the loop that hands out steps it would be late by a step, or not, as the next one is being handed
        out or a checkpoint made.
        """
        result.block_until_ready()
        return self._now()

    @contextmanager
    def paused(self, doing: str) -> Iterator[None]:
        """Leave the time of this block, in which nothing is trained, out of the speeds; not to be nested.

        `doing` is shown meanwhile, as "saving", "validating" or "compiling".
        """
        self._pause_began = start = self._clock()
        self._bar.set_postfix_str(doing, refresh=True)
        try:
            yield
        finally:
            self._paused, self._pause_began = self._paused + self._clock() - start, None
            self._bar.set_postfix_str(self._text, refresh=sys.stderr.isatty())

    def _now(self) -> float:
        """Seconds by a clock that stands still in pauses."""
        began = self._pause_began
        return (self._clock() if began is None else began) - self._paused

    def _speeds(self, step: int, frames: int, flops: float | None, now: float) -> dict[str, float]:
        if self._last is not None:
            seconds, before = self._last
            self._recent.append(_Stretch(now - seconds, step - before, frames, flops))
        self._last = now, step
        seconds = sum(stretch.seconds for stretch in self._recent)
        if seconds <= 0:
            return {}
        speeds = {
            "steps_per_second": sum(stretch.steps for stretch in self._recent) / seconds,
            "frames_per_second": sum(stretch.frames for stretch in self._recent) / seconds,
        }
        known = [stretch.flops for stretch in self._recent if stretch.flops is not None]
        if len(known) == len(self._recent):
            speeds["tflops"] = sum(known) / seconds / 1e12
            if self._peak is not None:
                speeds["share_of_peak"] = sum(known) / seconds / self._peak
        return speeds


def _in_words(shown: dict[str, float], learning_rate: float) -> str:
    parts = [f"loss {shown['loss_smoothed']:.4g}", f"lr {learning_rate:.2g}"]
    if "steps_per_second" in shown:
        parts += [f"{_short(shown['steps_per_second'])} steps/s", f"{_short(shown['frames_per_second'])} frames/s"]
    if "tflops" in shown:
        share = f" ({shown['share_of_peak']:.1%} of peak)" if "share_of_peak" in shown else ""
        parts.append(f"{_short(shown['tflops'])} TFLOP/s{share}")
    return ", ".join(parts)


def _short(number: float) -> str:
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"

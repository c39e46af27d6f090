"""Frame rates: the fraction that decimals stand for, and the rate that frames come at by their times."""

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import count

import numpy as np

LOWEST_FPS, HIGHEST_FPS = 0.01, 1000
"""What a video may be read or written at."""

_WHOLE = tuple(Fraction(rate) for rate in (24, 25, 30, 48, 50, 60, 120))
_NTSC = tuple(Fraction(1000 * rate, 1001) for rate in (24, 30, 48, 60, 120))

_DECIMALS = 2e-4  # of a rate: 23.98 is 24000/1001, but 29.99 not 30000/1001
_ABOUT = 1e-3  # half of what lies between 30000/1001 and 30 is less: the nearer one is taken


def exact_rate(fps: float) -> Fraction:
    """The rate that is meant by a number of frames a second: 29.97 is 30000/1001. One that is not near any standard
    is what it says, to a thousandth of its denominator."""
    return _standard(fps, _DECIMALS) or Fraction(fps).limit_denominator(1000)


def measured_rate(times: Sequence[float], tick: float) -> float | None:
    """Frames a second by the median distance between frames: how they come wherever nothing is missing or stands still.

    The standard or the simplest rate is taken that the times allow, rounded as they are.

    Args:
        times: of frames, in seconds, in any order.
        tick: what times are rounded to.

    Returns:
        the rate, or None where there are no two different times.
    """
    gaps = np.diff(np.sort(np.asarray(times, np.float64)))
    gaps = gaps[gaps > 0]
    if not len(gaps):
        return None
    # Times are rounded, and cameras waver: those around the median together tell more than itself.
    usual = gaps[np.abs(gaps / np.median(gaps) - 1) < 0.5]
    rate, tolerance = float(1 / usual.mean()), max(_ABOUT, float(tick / usual.sum()))
    # Below 1 / whole nothing is near; without that start, hours between frames would take as many tries as seconds.
    least = max(1, math.floor(1 / (rate * (1 + tolerance))))
    simple = (Fraction(round(rate * whole), whole) for whole in count(least))
    return float(_standard(rate, tolerance) or next(f for f in simple if abs(f - rate) <= tolerance * rate))


def _standard(fps: float, tolerance: float) -> Fraction | None:
    nearest = min((*_WHOLE, *_NTSC), key=lambda rate: abs(rate - fps))
    return nearest if abs(nearest - fps) <= tolerance * fps else None

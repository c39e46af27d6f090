from fractions import Fraction

import numpy as np
import pytest

from stableanimator_jax.data.frame_rate import exact_rate, measured_rate
from tests.data.clips import clip, read, write

NTSC = {23.976: 24, 23.98: 24, 29.97: 30, 30000 / 1001: 30, 47.952: 48, 59.94: 60, 119.88: 120}


@pytest.mark.parametrize("fps", NTSC)
def test_decimals_of_ntsc_rates(fps):
    assert exact_rate(fps) == Fraction(NTSC[fps] * 1000, 1001)


@pytest.mark.parametrize("fps", [Fraction(1, 100), 7, 8.5, 12.5, 24, 25, 29, 29.9, 30, 31, 60, 1000])
def test_other_rates_are_what_they_say(fps):
    assert exact_rate(float(fps)) == Fraction(fps).limit_denominator(1000)


@pytest.mark.parametrize(("fps", "fraction"), [(29.97, Fraction(30000, 1001)), (23.976, Fraction(24000, 1001))])
def test_they_are_written(tmp_path, fps, fraction):
    info, _ = read(write(tmp_path / "a.mp4", clip(5), fps=fps))
    assert info.fps == float(fraction)


@pytest.mark.parametrize("fps", [7, 7.5, 8, 12, 24000 / 1001, 24, 25, 30000 / 1001, 30, 60, 0.05])
@pytest.mark.parametrize("tick", [0.001, 1 / 90000])
def test_measured_of_rounded_times(fps, tick):
    times = np.round(np.arange(100) / fps / tick) * tick
    assert measured_rate(times[::-1].tolist(), tick) == pytest.approx(fps, rel=1e-9)


def test_measured_where_frames_are_missing_or_stand_still():
    times = np.arange(60) / 25
    times[20:] += 3
    times[40:] += 0.4
    assert measured_rate([0.0, *times], 0.001) == 25


def test_measured_of_broken_times():
    """Centuries between frames: refused where frames are read, not searched for here until somebody stops it."""
    assert measured_rate([0.0, 1e12], 0.001) == pytest.approx(1e-12, rel=2e-3)


def test_nothing_to_measure():
    assert measured_rate([], 0.001) is None
    assert measured_rate([1.0, 1.0], 0.001) is None

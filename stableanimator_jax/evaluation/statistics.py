"""How far a figure can be trusted: intervals over videos, which are independent, never over frames or clips."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from jaxtyping import Float, Float64
from scipy import stats

HEADLINE_CLIPS = 2048
"""Independent clips from which on a Fréchet distance of videos is a headline."""
FEW_CLIPS = 500
"""Below it, not even its extrapolation is worth giving."""
_LEAST_DRAWN = 5
_MOST_QUANTILE = 0.9995  # of Student's distribution: no deviation is taken for larger


class Interval(NamedTuple):
    """Of confidence."""

    low: float
    high: float


class Verdict(NamedTuple):
    """Whether a figure may be a headline, and why not."""

    headline: bool
    reason: str


def mean_interval(
    values: Float[np.ndarray, "n"],
    weights: Float[np.ndarray, "n"],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval | None:
    """The studentised bootstrap's interval of a weighted mean (Efron 1981); None of fewer than 2 videos.

    Videos are drawn with replacement, and each draw's deviation is taken in its own standard errors: of few videos, and
    of scores that are skewed, it covers where the plain percentiles are too narrow. Of fewer than 5 videos the interval
    is Student's, as draws of those are too often one video only.

    Args:
        values: one of each video.
        weights: how much each counts, such as its frames.
        level: of confidence.
        resamples: draws.
        seed: of the draws.
    """
    values, weights = np.asarray(values, np.float64), np.asarray(weights, np.float64)
    count = len(values)
    if count < 2:
        return None
    mean, error = _mean_and_error(values, weights)
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    if count < _LEAST_DRAWN:
        low, high = stats.t.ppf(tails, count - 1)
    else:
        drawn = np.random.default_rng(seed).integers(0, count, (resamples, count))
        means, errors = _mean_and_error(values[drawn], weights[drawn])
        known = errors > 1e-9 * error
        deviations = np.where(known, (means - mean) / np.where(known, errors, 1), np.copysign(np.inf, means - mean))
        low, high = np.quantile(deviations, tails, method="inverted_cdf")
        # A score far from all others leaves draws without it, whose standard errors are next to nothing.
        most = stats.t.ppf(_MOST_QUANTILE, count - 1)
        low, high = max(low, -most), min(high, most)
    if not error:
        return Interval(float(mean), float(mean))
    return Interval(float(mean - high * error), float(mean - low * error))


def _mean_and_error(
    values: Float64[np.ndarray, "*r n"], weights: Float64[np.ndarray, "*r n"]
) -> tuple[Float64[np.ndarray, "*r"], Float64[np.ndarray, "*r"]]:
    """A weighted mean, and its standard error."""
    count, total = values.shape[-1], weights.sum(axis=-1)
    means = (values * weights).sum(axis=-1) / total
    squares = np.square(weights * (values - means[..., None])).sum(axis=-1)
    return means, np.sqrt(squares * count / (count - 1)) / total


class Jackknife(NamedTuple):
    """What leaving out one group of videos after the other says of a figure."""

    bias: float
    """By how much the figure is too large, to the first order of 1 / n."""
    interval: Interval
    """Of the figure less its bias."""


def jackknife(value: float, left_out: Sequence[float], *, level: float = 0.95) -> Jackknife | None:
    """The jackknife over groups of about the same size: it needs no videos drawn twice, which would make a
    covariance too small and a Fréchet distance far too large. None of fewer than 3 groups.

    Args:
        value: the figure of all videos.
        left_out: the figure without each of the groups.
        level: of confidence, by Student's distribution.
    """
    groups = len(left_out)
    if groups < 3:
        return None
    rest = np.asarray(left_out, np.float64)
    bias = (groups - 1) * (float(rest.mean()) - value)
    error = math.sqrt((groups - 1) / groups * float(np.square(rest - rest.mean()).sum()))
    half = float(stats.t.ppf((1 + level) / 2, groups - 1)) * error
    return Jackknife(bias, Interval(value - bias - half, value - bias + half))


@dataclass(frozen=True, eq=False)
class VideoMeans:
    """Sums over videos of what tells how many independent clips there are; they add up as `Sums` do."""

    videos: int
    squared: float
    """The sum over videos of n^2, with n the clips of one."""
    first: Float64[np.ndarray, "d"]
    """The sum of n^2 times the mean of the video's features."""
    second: float
    """The sum of n^2 times the squared length of that mean."""

    @classmethod
    def of(cls, features: Float[np.ndarray, "n d"]) -> Self:
        """Of one video."""
        total = np.asarray(features, np.float64).sum(axis=0)
        return cls(1, float(len(features) ** 2), len(features) * total, float(total @ total))

    def __add__(self, other: Self) -> Self:
        return type(self)(
            self.videos + other.videos,
            self.squared + other.squared,
            self.first + other.first,
            self.second + other.second,
        )

    def effective_number(self, clips: int, mean: Float64[np.ndarray, "d"], spread: float) -> float:
        """How many independent clips the mean of all is worth: of n videos whose clips are alike, about n.

        Args:
            clips: of all videos.
            mean: of all clips' features.
            spread: the trace of their covariance.

        Returns:
            at least 1 and at most the number of clips.
        """
        if self.videos < 2 or spread <= 0:
            return float(min(self.videos, clips))
        between = self.second - 2 * float(self.first @ mean) + self.squared * float(mean @ mean)
        variance = max(between, 0) / clips**2 * self.videos / (self.videos - 1)
        return float(np.clip(spread / variance, 1, clips)) if variance > 0 else float(clips)


def fvd_verdict(effective: float) -> Verdict:
    """Whether the Fréchet distance of so many independent clips may be a headline."""
    number = f"{effective:.0f} independent clips"
    if effective >= HEADLINE_CLIPS:
        return Verdict(True, f"{number}, at least {HEADLINE_CLIPS}")
    if effective >= FEW_CLIPS:
        return Verdict(
            False, f"{number} of the {HEADLINE_CLIPS} that a headline needs: read it with KVD and the extrapolation"
        )
    return Verdict(
        False, f"only {number} of the {HEADLINE_CLIPS} that a headline needs: use KVD and the paired measures"
    )

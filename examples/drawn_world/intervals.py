"""Confidence intervals by bootstrap over pairs (Efron 1979), which are drawn with replacement again and again.

The same draws serve every condition. So the difference of two conditions is known better than either: a pair that is
difficult is difficult for both.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from stableanimator_jax.evaluation.frechet import Sums
from stableanimator_jax.evaluation.frechet import frechet as distance

LEVEL = 0.95
COMPONENTS = 16  # of features that a Fréchet distance looks at: far fewer than pairs, or it would measure their number
_SEED = 29

Verdict = Literal["higher", "lower", "open"]


@dataclass(frozen=True)
class Estimate:
    """A number, and what it is of resampled pairs."""

    value: float
    resampled: Float[np.ndarray, "r"]

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % confidence interval."""
        low, high = np.quantile(self.resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return float(low), float(high)

    def __sub__(self, other: "Estimate") -> "Estimate":
        """The paired difference: both must be of the same draws."""
        return Estimate(self.value - other.value, self.resampled - other.resampled)

    @property
    def verdict(self) -> Verdict:
        """Of a difference: whether its interval is above zero, below it, or leaves it open."""
        low, high = self.interval
        return "higher" if low > 0 else "lower" if high < 0 else "open"

    def overlaps(self, other: "Estimate") -> bool:
        """Whether the two intervals have anything in common."""
        (low, high), (other_low, other_high) = self.interval, other.interval
        return low <= other_high and other_low <= high


def draw_pairs(pairs: int, resamples: int) -> Int[np.ndarray, "r n"]:
    """Which pairs each resample has: always the same."""
    return np.random.default_rng(_SEED).integers(0, pairs, (resamples, pairs))


def mean(values: Float[np.ndarray, "n"], drawn: Int[np.ndarray, "r n"]) -> Estimate:
    """The mean over pairs."""
    return Estimate(float(values.mean()), values[drawn].mean(axis=1))


def frechet(
    true: Float[np.ndarray, "n f d"], made: Float[np.ndarray, "n f d"], drawn: Int[np.ndarray, "r n"]
) -> Estimate:
    """The Fréchet distance of all frames' features of all pairs, in the principal components of the true ones.

    With pairs twice in it and others not at all, a resample is further from everything than the whole: its distances
    are too large, all by about the same. They are moved back to where their mean is that of all pairs.
    """
    centre = true.mean(axis=(0, 1), dtype=np.float64)  # or digits would be lost in the second moments
    axes = np.linalg.svd((true - centre).reshape(-1, true.shape[-1]), full_matrices=False)[2][:COMPONENTS]
    sides = [_Moments((features - centre) @ axes.T) for features in (true, made)]

    def of(counts: Int[np.ndarray, "n"]) -> float:
        return distance(*(side.sums(counts) for side in sides))

    value = of(np.ones(len(true), int))
    resampled = np.array([of(np.bincount(row, minlength=len(true))) for row in drawn])
    return Estimate(value, resampled - resampled.mean() + value)


class _Moments:
    """Sums over each pair's frames, out of which any resample's mean and covariance come without its features."""

    def __init__(self, features: Float[np.ndarray, "n f d"]):
        self.frames = features.shape[1]
        self.totals = features.sum(axis=1)
        self.outers = np.einsum("nfd,nfe->nde", features, features)

    def sums(self, counts: Int[np.ndarray, "n"]) -> Sums:
        """With each pair so often."""
        total = np.tensordot(counts, self.totals, 1)
        return Sums(self.frames * int(counts.sum()), total, np.tensordot(counts, self.outers, 1))

"""How far apart two sets of features are: Fréchet's distance of Gaussians from sums, and the kernel distance."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Float, Float64, Int

from stableanimator_jax.errors import InputError


@dataclass(frozen=True, eq=False)
class Sums:
    """What mean and covariance are made from, in float64. Sums of parts add up to those of the whole."""

    count: int
    total: Float64[np.ndarray, "d"]
    outer: Float64[np.ndarray, "d d"]
    """The sum of the outer products of features with themselves."""

    @classmethod
    def of(cls, features: Float[np.ndarray, "n d"]) -> Self:
        """Raises `InputError` where values are not finite."""
        x = np.asarray(features, np.float64)
        if not np.isfinite(x).all():
            raise InputError("there are features that are not finite: the network or its weights are damaged")
        return cls(len(x), x.sum(axis=0), x.T @ x)

    def __add__(self, other: Self) -> Self:
        return type(self)(self.count + other.count, self.total + other.total, self.outer + other.outer)

    def __sub__(self, other: Self) -> Self:
        return type(self)(self.count - other.count, self.total - other.total, self.outer - other.outer)

    def mean(self) -> Float64[np.ndarray, "d"]:
        return self.total / self.count

    def covariance(self, ddof: int = 1) -> Float64[np.ndarray, "d d"]:
        """Divided by the number of features less `ddof`. Raises `InputError` where there are too few."""
        if self.count <= ddof:
            raise InputError(f"a covariance needs more than {ddof} clips or frames, got {self.count}")
        mean = self.mean()
        return (self.outer - self.count * np.outer(mean, mean)) / (self.count - ddof)


def frechet(a: Sums, b: Sums, *, ddof: int = 1) -> float:
    """The squared Fréchet distance of two Gaussians (Dowson and Landau 1982), as FID and FVD have it.

    The trace of the root of AB is that of the root of RBR with R the root of A, which is symmetric: its eigenvalues are
    real and come out right where A is singular too, as it is with fewer samples than features.
    """
    covariance_a, covariance_b = a.covariance(ddof), b.covariance(ddof)
    values, vectors = np.linalg.eigh(covariance_a)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    between = np.linalg.eigvalsh(root @ covariance_b @ root)
    trace = np.trace(covariance_a) + np.trace(covariance_b) - 2 * np.sqrt(np.maximum(between, 0)).sum()
    return float(np.square(a.mean() - b.mean()).sum() + trace)


def kernel_distance(
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, "m d"],
    *,
    videos_x: Int[np.ndarray, "n"] | None = None,
    videos_y: Int[np.ndarray, "m"] | None = None,
) -> float:
    """The squared maximum mean discrepancy by the kernel (x.y / d + 1)^3, unbiased (Binkowski et al. 2018).

    Args:
        x: features of one kind.
        y: those of the other.
        videos_x: which video each is of. Clips of one video are alike, so that pairs of them, and pairs of a generated
            clip and one of its own truth, would bias the means: they are left out. By default each clip is alone.
        videos_y: the same of `y`; given with `videos_x` or not at all.

    Raises:
        InputError: fewer than two clips, or videos, of a kind.
    """
    if videos_x is None or videos_y is None:
        videos_x, videos_y = np.arange(len(x)), len(x) + np.arange(len(y))
    return KernelSums.of(x, y, videos_x, videos_y, groups=1).distance()


@dataclass(frozen=True, eq=False)
class KernelSums:
    """Kernels between groups of clips, each pair of clips of two videos once, out of which any groups can be left."""

    totals: Float64[np.ndarray, "3 g g"]
    """Within the clips of one kind, within those of the other, and between them."""
    counts: Float64[np.ndarray, "3 g g"]

    @classmethod
    def of(
        cls,
        x: Float[np.ndarray, "n d"],
        y: Float[np.ndarray, "m d"],
        videos_x: Int[np.ndarray, "n"],
        videos_y: Int[np.ndarray, "m"],
        groups: int,
    ) -> Self:
        """A video's group is the remainder of its number by `groups`."""
        sides = ((x.astype(np.float64), videos_x), (y.astype(np.float64), videos_y))
        pairs = ((sides[0], sides[0]), (sides[1], sides[1]), sides)
        totals, counts = zip(*(_kernels(*a, *b, groups) for a, b in pairs), strict=True)
        return cls(np.stack(totals), np.stack(counts))

    def distance(self, without: int | None = None) -> float:
        """Of all clips, or without those of one group. Raises `InputError` where fewer than two videos are left."""
        kept = np.arange(self.totals.shape[-1]) != (-1 if without is None else without)
        totals, counts = (sums[:, kept][:, :, kept].sum(axis=(1, 2)) for sums in (self.totals, self.counts))
        if not counts.all():
            raise InputError("a kernel distance needs clips of two videos at least")
        return float(totals / counts @ np.array([1, 1, -2]))


def _kernels(
    a: np.ndarray, videos_a: np.ndarray, b: np.ndarray, videos_b: np.ndarray, groups: int
) -> tuple[Float64[np.ndarray, "g g"], Float64[np.ndarray, "g g"]]:
    totals, counts = np.zeros((2, groups, groups))
    belongs_a, belongs_b = (
        np.equal.outer(v % groups, np.arange(groups)).astype(np.float64) for v in (videos_a, videos_b)
    )
    for start in range(0, len(a), 512):  # the whole matrix of many clips would be large
        part = slice(start, start + 512)
        other = (videos_a[part, None] != videos_b).astype(np.float64)
        inner = a[part] @ b.T / b.shape[1] + 1
        totals += belongs_a[part].T @ (inner * inner * inner * other) @ belongs_b
        counts += belongs_a[part].T @ other @ belongs_b
    return totals, counts


def extrapolated(sizes: Sequence[float], distances: Sequence[float]) -> float:
    """The distance at an infinite number of samples: where the line through distances over 1 / size begins.

    Fréchet's distance of n samples is too large by about 1 / n (Chong and Forsyth 2020).
    """
    slope_and_start = np.polyfit(1 / np.asarray(sizes, np.float64), np.asarray(distances, np.float64), 1)
    return float(slope_and_start[1])

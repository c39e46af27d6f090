"""Distances of distributions: of Gaussians that are known exactly, by scipy's root, and by their definition."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from stableanimator_jax.errors import InputError
from stableanimator_jax.evaluation.frechet import Sums, extrapolated, frechet, kernel_distance


def exactly(mean, covariance, count=300):
    """Samples whose mean and covariance (ddof 1) are these to the last digits."""
    dim = len(mean)
    x = np.random.default_rng(count).normal(size=(count, dim))
    x -= x.mean(axis=0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T
    return x @ np.linalg.cholesky(covariance).T + mean


def random_covariance(dim, seed):
    x = np.random.default_rng(seed).normal(size=(dim, dim))
    return x @ x.T + 0.1 * np.eye(dim)


def test_two_known_gaussians():
    """Covariances that commute: the distance is that of means and of deviations."""
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
    deviations = np.array([[3, 1, 0.5, 2, 0.1, 1], [1, 1, 2, 5, 0.2, 0.01]])
    means = np.array([[1, 2, 3, 4, 5, 60], [1, 0, 3, 4, -2, 61]], float)
    a, b = (Sums.of(exactly(m, turn * d**2 @ turn.T)) for m, d in zip(means, deviations, strict=True))
    expected = np.square(means[0] - means[1]).sum() + np.square(deviations[0] - deviations[1]).sum()
    assert frechet(a, b) == pytest.approx(expected, abs=1e-6)
    assert frechet(a, a) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_as_by_scipys_root(seed):
    covariances = [random_covariance(20, 2 * seed + i) for i in (0, 1)]
    means = np.random.default_rng(seed).normal(size=(2, 20))
    a, b = (Sums.of(exactly(m, c)) for m, c in zip(means, covariances, strict=True))
    root = sqrtm(covariances[0] @ covariances[1]).real
    expected = np.square(means[0] - means[1]).sum() + np.trace(sum(covariances) - 2 * root)
    assert frechet(a, b) == pytest.approx(expected, rel=1e-8)


def test_fewer_samples_than_features():
    """Both covariances are singular; the trace of the root is then the nuclear norm of the samples' product."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(9, 40)), rng.normal(size=(12, 40)) * 2 + 1
    parts = [(s - s.mean(axis=0)) / np.sqrt(len(s) - 1) for s in (x, y)]
    root = np.linalg.norm(parts[0] @ parts[1].T, "nuc")
    expected = np.square(x.mean(0) - y.mean(0)).sum() + sum(np.square(p).sum() for p in parts) - 2 * root
    assert frechet(Sums.of(x), Sums.of(y)) == pytest.approx(expected, rel=1e-7)


def test_ddof_is_what_is_asked_for():
    x = np.random.default_rng(4).normal(size=(30, 5))
    for ddof in (0, 1):
        np.testing.assert_allclose(Sums.of(x).covariance(ddof), np.cov(x.T, ddof=ddof))


def test_sums_of_parts_are_those_of_the_whole():
    x = np.random.default_rng(5).normal(size=(50, 8)).astype(np.float32)
    whole, parts = Sums.of(x), Sums.of(x[:13]) + Sums.of(x[13:20]) + Sums.of(x[20:])
    assert parts.count == 50
    np.testing.assert_allclose(parts.covariance(), whole.covariance(), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose((whole - Sums.of(x[:13])).covariance(), np.cov(x[13:].astype(float).T), atol=1e-13)


def test_features_that_are_not_finite_are_refused():
    with pytest.raises(InputError, match="not finite"):
        Sums.of(np.array([[1.0, np.nan]]))
    with pytest.raises(InputError, match="more than 1 clips or frames, got 1"):
        Sums.of(np.ones((1, 3))).covariance()


def test_kernel_distance_by_its_definition():
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(7, 3)), rng.normal(size=(5, 3)) + 0.5

    def k(a, b):
        return (a @ b / 3 + 1) ** 3

    within = [np.mean([k(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j]) for s in (x, y)]
    expected = sum(within) - 2 * np.mean([k(a, b) for a in x for b in y])
    assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-12)


def test_kernel_distance_leaves_out_clips_of_one_video():
    """Every video's clips are all the same, so that repeating them says nothing new."""
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=(700, 4)), rng.normal(size=(700, 4)) + 0.1
    videos = np.arange(700)
    once = kernel_distance(x, y, videos_x=videos, videos_y=videos)
    twice = (np.repeat(v, 2, axis=0) for v in (x, y))
    assert kernel_distance(*twice, videos_x=videos.repeat(2), videos_y=videos.repeat(2)) == pytest.approx(once)
    with pytest.raises(InputError, match="two videos"):
        kernel_distance(x[:3], y[:3], videos_x=np.zeros(3, int), videos_y=np.zeros(3, int))


def test_kernel_distance_has_no_bias():
    rng = np.random.default_rng(8)
    found = [kernel_distance(*rng.normal(size=(2, 10, 4))) for _ in range(300)]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(300)


def test_extrapolation_finds_where_the_line_begins():
    sizes = [500, 800, 1000]
    assert extrapolated(sizes, [140 + 3e4 / n for n in sizes]) == pytest.approx(140)

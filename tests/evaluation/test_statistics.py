"""Intervals that hold what they promise, on simulated results whose truth is known."""

import numpy as np
import pytest

from stableanimator_jax.evaluation.frechet import Sums, frechet
from stableanimator_jax.evaluation.statistics import VideoMeans, fvd_verdict, jackknife, mean_interval

CASES = 200


@pytest.mark.parametrize("videos", [10, 40])
def test_intervals_of_means_cover(videos):
    """Videos differ, and frames within one are alike: 95 % intervals over videos hold the true mean."""
    rng = np.random.default_rng(100 + videos)
    hits = 0
    for case in range(CASES):
        scores = 0.8 + 0.1 * rng.normal(size=videos) + 0.05 * rng.normal(size=(16, videos)).mean(axis=0)
        low, high = mean_interval(scores, np.ones(videos), resamples=1000, seed=case)
        hits += low <= 0.8 <= high
    assert hits >= 0.93 * CASES


def test_intervals_of_skewed_scores_and_unequal_weights_cover():
    """The weighted mean of independent lengths and scores."""
    rng = np.random.default_rng(5)
    hits = 0
    for case in range(CASES):
        scores, frames = rng.beta(8, 2, 60), rng.integers(16, 64, 60)
        low, high = mean_interval(scores, frames, resamples=1000, seed=case)
        hits += low <= 0.8 <= high
    assert hits >= 0.93 * CASES


def test_intervals_of_frechet_distances_cover():
    """Clips of one video are alike. By groups of videos, the bias is taken off and the true distance covered."""
    rng = np.random.default_rng(11)
    expected, hits, biases = 4 * 0.5**2, 0, []
    for _ in range(CASES):
        sides = []
        for shift in (0.0, 0.5):
            videos = rng.normal(size=(60, 1, 4)) * np.sqrt(0.7) + rng.normal(size=(60, 4, 4)) * np.sqrt(0.3)
            sides.append([Sums.of((videos[g::10] + shift).reshape(-1, 4)) for g in range(10)])
        whole = [sum(side[1:], side[0]) for side in sides]
        value = frechet(*whole)
        found = jackknife(value, [frechet(whole[0] - sides[0][g], whole[1] - sides[1][g]) for g in range(10)])
        biases.append((value - expected, found.bias))
        hits += found.interval.low <= expected <= found.interval.high
    assert hits >= 0.93 * CASES
    true_bias, told = np.mean(biases, axis=0)
    assert told == pytest.approx(true_bias, rel=0.25)


def test_jackknife_of_a_mean_is_students():
    values = np.random.default_rng(1).normal(size=12)
    found = jackknife(values.mean(), [np.delete(values, i).mean() for i in range(12)])
    half = 2.200985 * values.std(ddof=1) / np.sqrt(12)
    assert found.bias == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(found.interval, [values.mean() - half, values.mean() + half], rtol=1e-6)


def test_too_few_videos_have_no_interval():
    assert mean_interval(np.ones(1), np.ones(1)) is None
    assert mean_interval(np.full(9, 0.5), np.ones(9)) == (0.5, 0.5)
    student = mean_interval(np.array([1.0, 2.0, 3.0]), np.ones(3))
    assert student == pytest.approx((2 - 4.302653 / np.sqrt(3), 2 + 4.302653 / np.sqrt(3)), rel=1e-6)
    assert jackknife(1.0, [1.0, 2.0]) is None


def test_effective_number_of_clips_that_are_alike_is_that_of_videos():
    rng = np.random.default_rng(2)

    def effective(features):
        means = [VideoMeans.of(video) for video in features]
        flat = features.reshape(-1, features.shape[-1])
        return sum(means[1:], means[0]).effective_number(len(flat), flat.mean(axis=0), np.trace(np.cov(flat.T)))

    alike = np.repeat(rng.normal(size=(10, 1, 50)), 20, axis=1)
    independent = rng.normal(size=(100, 20, 50))
    assert effective(alike) == pytest.approx(10, rel=0.1)
    assert effective(independent) == pytest.approx(2000, rel=0.1)


def test_headline_only_of_enough_clips():
    assert fvd_verdict(2048).headline
    some, few = fvd_verdict(500), fvd_verdict(499)
    assert not some.headline
    assert "extrapolation" in some.reason
    assert not few.headline
    assert "only 499 independent clips of the 2048 that a headline needs: use KVD" in few.reason


def test_one_score_far_from_all_others_leaves_an_interval_that_says_something():
    scores = np.r_[np.linspace(0.01, 0.02, 19), 5.0]
    interval = mean_interval(scores, np.ones(20))
    assert interval is not None
    error = scores.std(ddof=1) / np.sqrt(20)
    assert scores.mean() - 4 * error < interval.low < 0.1
    assert 0.3 < interval.high < scores.mean() + 4 * error

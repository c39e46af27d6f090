"""Alignment by a similarity, and bone by bone, on people whose motion in the reference's body is known."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks._moving_people import CHILD, HEAD_AND_SHOULDERS, Pair, moving_pair, showing, turned_round, with_wild
from stableanimator_jax.data.keypoints import Keypoints
from stableanimator_jax.perception import alignment as linear
from stableanimator_jax.perception import similarity
from stableanimator_jax.perception.similarity import align, weighted_similarity

UPPER = [*range(8), 8, 11, *range(14, 18), *range(24, 134)]
BOTH = pytest.mark.parametrize("limbs", [False, True])


def errors(pair: Pair, points: np.ndarray, rows=slice(None)) -> np.ndarray:
    """Of keypoints in every frame, as shares of the reference's height."""
    return np.linalg.norm(points - pair.truth, axis=-1)[:, rows] / pair.height


@BOTH
@pytest.mark.parametrize(
    ("scale", "roll", "offset", "size", "reference_size"),
    [
        (0.4, 30.0, 0.5 - 0.2j, (1280, 720), (512, 512)),
        (2.5, -30.0, -0.4 + 0.1j, (640, 480), (576, 1024)),
        (1.0, 0.0, 0.0j, (512, 512), (512, 512)),
        (1.7, 12.0, 0.3j, (576, 1024), (1024, 576)),
    ],
)
def test_known_similarity(limbs, scale, roll, offset, size, reference_size):
    """A person who goes to and fro, swaying and waving, by a rolled camera: every keypoint within 1 % of the height."""
    pair = moving_pair(kind="glide", scale=scale, roll=roll, offset=offset, size=size, reference_size=reference_size)
    result = align(pair.driving, pair.reference, limbs=limbs)
    assert errors(pair, result.keypoints.points).max() < 0.01
    assert result.scale == pytest.approx(scale, rel=0.005)
    assert result.roll == pytest.approx(roll, abs=0.2)
    x, y = result.offset
    back = pair.driving.points[0, 1] @ [1, 1j] * result.scale * np.exp(1j * np.radians(result.roll)) + x + 1j * y
    np.testing.assert_allclose(back, pair.truth[0, 1] @ [1, 1j], atol=0.01 * pair.height)
    assert (result.keypoints.width, result.keypoints.height, result.keypoints.fps) == (*reference_size, 25)
    assert result.keypoints.points.dtype == np.float32
    assert result.share == 1
    assert result.residual < 0.005
    assert result.poor is None


@BOTH
@pytest.mark.parametrize("of", ["driving", "reference"])
@pytest.mark.parametrize("rows", [UPPER, HEAD_AND_SHOULDERS], ids=["down to the hips", "head and shoulders"])
def test_partial_bodies(limbs, of, rows):
    pair = moving_pair(kind="glide", roll=10.0, noise=0.002)
    pair = replace(pair, **{of: showing(getattr(pair, of), rows)})
    result = align(pair.driving, pair.reference, limbs=limbs)
    assert errors(pair, result.keypoints.points, [row for row in rows if row < 18]).mean() < 0.02


@BOTH
def test_joints_may_be_seen_in_different_frames(limbs):
    """A person who walks into the picture, legs last; a frame without them stays without."""
    pair = moving_pair(kind="glide", roll=10.0)
    scores = pair.driving.scores.copy()
    scores[:20, 8:14] = 0.1
    scores[20] = 0
    scores[30:, 0] = 0.1
    points = np.where(scores[..., None] < 0.3, 0, pair.driving.points).astype(np.float32)
    result = align(replace(pair.driving, points=points, scores=scores), pair.reference, limbs=limbs)
    seen = scores >= 0.3
    assert errors(pair, result.keypoints.points)[seen].max() < 0.01
    assert not result.keypoints.points[20].any()
    np.testing.assert_array_equal(result.keypoints.scores, scores)


@BOTH
def test_wild_joints_move_little(limbs):
    pair = moving_pair(kind="glide", roll=10.0)
    wild = with_wild(pair.driving, 0.1)
    kept = (wild.points == pair.driving.points).all(axis=-1)
    assert 0.05 < 1 - kept.mean() < 0.15
    off = errors(pair, align(wild, pair.reference, limbs=limbs).keypoints.points)[:, :18][kept[:, :18]]
    assert off.mean() < 0.01
    far = errors(pair, linear.align(wild, pair.reference).keypoints.points)[:, :18][kept[:, :18]]
    assert far.mean() > 0.1

    points = pair.reference.points.copy()
    points[0, 10] += (400, -300)
    result = align(pair.driving, replace(pair.reference, points=points))
    assert errors(pair, result.keypoints.points).mean() < 0.01
    assert "joints are off by" in result.poor


@BOTH
@pytest.mark.parametrize("rows", [list(range(134)), HEAD_AND_SHOULDERS], ids=["whole", "head and shoulders"])
def test_who_turns_their_back(limbs, rows):
    pair = turned_round(moving_pair(kind="glide", roll=10.0))
    result = align(pair.driving, showing(pair.reference, rows), limbs=limbs)
    assert errors(pair, result.keypoints.points)[:, :18].max() < 0.01
    assert result.poor is None or "only" in result.poor


def test_other_proportions():
    """A child driven by an adult: bones get the child's lengths, in the adult's directions."""
    pair = moving_pair(kind="glide", sizes=CHILD, noise=0.003)
    placed = {limbs: align(pair.driving, pair.reference, limbs=limbs).keypoints.points for limbs in (False, True)}
    assert errors(pair, placed[True], slice(0, 18)).mean() < 0.01
    assert errors(pair, placed[True]).mean() < 0.03  # with the face, hands and feet
    assert errors(pair, placed[False], slice(0, 18)).mean() > 0.02
    for walking in ("walk", "crouch"):
        pair = moving_pair(kind=walking, sizes=CHILD, noise=0.003)
        assert errors(pair, align(pair.driving, pair.reference, limbs=True).keypoints.points).mean() < 0.03


def test_bones_have_the_references_lengths():
    pair = moving_pair(kind="walk", sizes=CHILD)
    found = align(pair.driving, pair.reference, limbs=True).keypoints.points
    alike = align(pair.driving, pair.reference).keypoints.points
    for a, b in ((1, 8), (8, 9), (12, 13), (2, 3), (6, 7), (1, 0), (0, 14)):
        bones, own = found[:, b] - found[:, a], alike[:, b] - alike[:, a]
        wanted = np.linalg.norm(pair.reference.points[0, b] - pair.reference.points[0, a])
        np.testing.assert_allclose(np.median(np.linalg.norm(bones, axis=-1)), wanted, rtol=0.01)
        cosine = (bones * own).sum(-1) / np.linalg.norm(bones, axis=-1) / np.linalg.norm(own, axis=-1)
        assert cosine.min() > 0.99999
    ankles = found[:, [10, 13]].mean(axis=1) - alike[:, [10, 13]].mean(axis=1)
    np.testing.assert_allclose(ankles, np.broadcast_to(ankles[0], ankles.shape), atol=0.01)


def test_bones_that_are_not_seen_keep_their_size():
    pair = moving_pair(kind="glide", sizes=CHILD)
    reference = showing(pair.reference, [*range(3), 5, 8, 11, *range(14, 18)])  # no arms, no legs
    found, alike = (align(pair.driving, reference, limbs=limbs).keypoints.points for limbs in (True, False))
    for a, b in ((2, 3), (6, 7), (8, 9), (12, 13)):
        np.testing.assert_allclose(found[:, b] - found[:, a], alike[:, b] - alike[:, a], atol=1e-3)


def test_closed_form_is_umeyamas():
    """Against singular values, as the paper has it, and its stationarity under weights."""
    random = np.random.default_rng(5)
    points, targets = random.normal(size=(2, 9, 2))
    weights = random.uniform(0.1, 1, 9)
    a, b = weighted_similarity(points @ [1, 1j], targets @ [1, 1j], weights)
    share = weights / weights.sum()
    mean, target_mean = share @ points, share @ targets
    covariance = (targets - target_mean).T @ (share[:, None] * (points - mean))
    u, d, v = np.linalg.svd(covariance)
    sign = np.array([1, np.sign(np.linalg.det(u) * np.linalg.det(v))])
    rotation = u * sign @ v
    scale = (d * sign).sum() / (share @ ((points - mean) ** 2).sum(axis=1))
    np.testing.assert_allclose([a.real, a.imag], scale * rotation[:, 0], rtol=1e-12)
    np.testing.assert_allclose([b.real, b.imag], target_mean - scale * rotation @ mean, rtol=1e-12)


@BOTH
@pytest.mark.parametrize(
    "case", ["two joints", "one joint", "one place", "reference at one place", "upside down", "profile"]
)
def test_nothing_to_fit(case, limbs):
    """Nobody is turned, and the published fit stands in."""
    pair = moving_pair(kind="arms", frames=12)
    driving, reference, rows = pair.driving, pair.reference, linear.JOINTS
    if case in ("two joints", "one joint"):
        rows = [8, 9] if case == "two joints" else [8]
        driving = showing(driving, rows)
    if case == "one place":
        driving = replace(driving, points=0.001 * driving.points + 300)
    if case == "reference at one place":
        reference = replace(reference, points=0.001 * reference.points + 300)
    if case == "upside down":
        driving = replace(driving, points=np.array([1280, 720], np.float32) - driving.points)
    if case == "profile":  # of head and shoulders, whose widths say nothing
        rows = [row for row in HEAD_AND_SHOULDERS if row < 18]
        neck = driving.points[:, 1:2]
        driving = replace(driving, points=(neck + (driving.points - neck) * [0.3, 1]).astype(np.float32))
        reference = showing(reference, rows)
    result = align(driving, reference, limbs=limbs)
    plain = linear.align(driving, reference)
    np.testing.assert_array_equal(result.keypoints.points, plain.keypoints.points)
    assert f"roll is not fitted to the reference: the {len(rows)} joints that both show are fewer than 3" in result.poor
    assert "aligned by their heights" in result.poor
    assert plain.poor is None or result.poor.endswith(f"and {plain.poor}")
    assert "\n" not in result.poor
    assert result.roll == 0
    moved = driving.points * result.scale + result.offset
    np.testing.assert_allclose(moved, plain.keypoints.points, atol=0.02)


def test_no_common_joint():
    pair = moving_pair(kind="arms", frames=3)
    driving, reference = showing(pair.driving, list(range(6))), showing(pair.reference, list(range(8, 14)))
    result = align(driving, reference, limbs=True)
    assert (result.residual, result.share) == (None, 0)
    assert "no joint" in result.poor
    np.testing.assert_allclose(
        result.keypoints.points, (driving.points - [640, 360]) * (512 / 720) + [256, 256], atol=1e-2
    )
    nobody = replace(driving, points=0 * driving.points, scores=0 * driving.scores)
    assert not align(nobody, pair.reference).keypoints.points.any()
    none = replace(driving, points=driving.points[:0], scores=driving.scores[:0])
    assert align(none, pair.reference, limbs=True).keypoints.points.shape == (0, 134, 2)
    with pytest.raises(ValueError, match="one frame, not 3"):
        align(driving, driving)


@BOTH
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([0.0, 1e-6, 1.0, 1e3]), hidden=st.floats(0, 1))
def test_never_nan(limbs, seed, spread, hidden):
    """Whatever the points and scores, and however few of them: finite numbers, and nobody turned far."""
    random = np.random.default_rng(seed)

    def some(frames: int, width: int, height: int) -> Keypoints:
        points = random.normal((width / 2, height / 2), spread, (frames, 134, 2)).astype(np.float32)
        scores = random.uniform(-0.1, 1.1, (frames, 134)) * (random.uniform(size=(frames, 134)) >= hidden)
        return Keypoints(points, scores.astype(np.float32), width, height, None)

    result = align(some(3, 640, 360), some(1, 576, 1024), limbs=limbs)
    assert np.isfinite(result.keypoints.points).all()
    assert np.isfinite([result.scale, result.roll, *result.offset, result.share]).all()
    assert result.scale > 0
    assert abs(result.roll) <= 45
    assert result.residual is None or np.isfinite(result.residual)


def test_the_middle_is_not_drawn_away():
    points = np.array([0, 1, 1j, 1 + 1j, 1e6])
    assert abs(similarity.middle(points, np.ones(5), 1e-6) - (0.5 + 0.5j)) < 1


@pytest.mark.long
def test_the_benchmark_runs():
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "benchmarks.alignment"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "| pair | linear | similarity | limbs |" in done.stdout

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stableanimator_jax.data.keypoints import Keypoints
from stableanimator_jax.perception.alignment import align

FITTED = [0, 1, 2, 5, *range(8, 18)]
FREE = [3, 4, 6, 7]  # elbows and wrists

# A standing person 1 high in OpenPose's order, the middle of the neck's foot at x = 0.
BODY = np.array([
    (0, 0.1), (0, 0.2), (-0.1, 0.2), (-0.15, 0.35), (-0.16, 0.5), (0.1, 0.2), (0.15, 0.35), (0.16, 0.5),
    (-0.06, 0.52), (-0.07, 0.75), (-0.07, 1), (0.06, 0.52), (0.07, 0.75), (0.07, 1),
    (-0.02, 0.08), (0.02, 0.08), (-0.05, 0.09), (0.05, 0.09),
])  # fmt: skip


def standing(height: float, x: float, top: float):
    """A whole body in pixels [134, 2]."""
    rest = np.random.default_rng(0).uniform((-0.2, 0), (0.2, 1), (116, 2))
    return np.concatenate([BODY, rest]) * height + (x, top)


def of(points, width: int, height: int, scores=None, fps: float | None = None):
    points = np.asarray(points, np.float32).reshape(-1, 134, 2)
    scores = np.full(points.shape[:2], 0.9, np.float32) if scores is None else np.asarray(scores, np.float32)
    return Keypoints(points, scores.reshape(points.shape[:2]), width, height, fps)


@pytest.mark.parametrize(
    ("driving_size", "reference_size"),
    [((1280, 720), (512, 512)), ((576, 1024), (512, 512)), ((640, 480), (576, 1024)), ((512, 512), (512, 512))],
)
def test_known_scale_and_offset(driving_size, reference_size):
    """Aspects differ; arms move and the person walks: joints land within 1 % of the reference's height."""
    height, x, top = 0.6 * driving_size[1], 0.3 * driving_size[0], 0.2 * driving_size[1]
    person = standing(height, x, top)
    swing = np.sin(np.arange(12))[:, None, None] * np.array([0.1, -0.2]) * height
    frames = np.repeat(person[None], 12, axis=0)
    frames[:, FREE] += swing
    there = standing(0.8 * reference_size[1], 0.55 * reference_size[0], 0.12 * reference_size[1])
    result = align(of(frames, *driving_size, fps=25), of(there, *reference_size))
    tolerance = 0.01 * 0.8 * reference_size[1]
    moved = np.repeat(there[None], 12, axis=0)
    moved[:, FREE] += swing * 0.8 * reference_size[1] / height  # as much to the side as up: nobody is stretched
    np.testing.assert_allclose(result.keypoints.points, moved, atol=tolerance / 10)
    assert (result.keypoints.width, result.keypoints.height, result.keypoints.fps) == (*reference_size, 25)
    assert result.keypoints.points.dtype == np.float32
    assert result.residual < 1e-6
    assert result.share == 1
    assert result.poor is None


def test_published_formula():
    """The fit as it is written down, in normalised coordinates, with joints of its own error in every frame."""
    rng = np.random.default_rng(3)
    driving = of(standing(300, 400, 100) + rng.normal(0, 9, (7, 134, 2)), 800, 500)
    reference = of(standing(700, 280, 150) + rng.normal(0, 9, (134, 2)), 576, 1024)
    result = align(driving, reference)
    y = driving.points[:, FITTED, 1].ravel() / 500
    x = driving.points[:, FITTED, 0].ravel() / 800
    target = np.tile(reference.points[0, FITTED], (7, 1)) / [576, 1024]
    a_y, b_y = np.polyfit(y, target[:, 1], 1)
    a_x = a_y / ((500 / 800) / (1024 / 576))
    b_x = np.mean(target[:, 0] - a_x * x)
    np.testing.assert_allclose([*result.scale, *result.offset], [a_x, a_y, b_x, b_y], rtol=1e-5)
    wanted = (driving.points / [800, 500] * [a_x, a_y] + [b_x, b_y]) * [576, 1024]
    np.testing.assert_allclose(result.keypoints.points, wanted, atol=1e-2)
    height = np.ptp(reference.points[0, :18, 1]) / 1024
    np.testing.assert_allclose(result.residual, np.std(a_y * y + b_y - target[:, 1]) / height, rtol=1e-4)


def test_only_what_both_show():
    """A reference down to the hips, frames without the person, hidden joints with wild points: none of it matters."""
    person, there = standing(300, 400, 100), standing(900, 260, 40)
    frames, scores = np.repeat(person[None], 6, axis=0), np.full((6, 134), 0.9)
    frames[1], scores[1] = 0, 0
    frames[2, 0], scores[2, 0] = (5000, 5000), 0.29
    reference_scores = np.full(134, 0.9)
    reference_scores[[9, 10, 12, 13]] = 0.1
    cut = there.copy()
    cut[[9, 10, 12, 13]] = 0
    result = align(of(frames, 800, 500, scores), of(cut, 512, 512, reference_scores))
    seen = np.ones((6, 134), bool)
    seen[1], seen[2, 0] = False, False
    np.testing.assert_allclose(result.keypoints.points[seen], np.repeat(there[None], 6, axis=0)[seen], atol=0.1)
    assert not result.keypoints.points[1].any()
    np.testing.assert_array_equal(result.keypoints.scores, scores.astype(np.float32))
    assert result.share == pytest.approx((5 * 10 - 1) / (5 * 14))
    assert result.poor is None


def test_poor_fits_say_so_with_numbers():
    person, there = standing(300, 400, 100), standing(400, 260, 40)
    bent = person.copy()
    bent[[10, 13], 1] -= 150  # half their height: sitting on the heels
    result = align(of(bent, 800, 500), of(there, 512, 512))
    assert result.residual > 0.05
    assert f"off by {result.residual:.1%} of the reference person's height (more than 5%)" in result.poor
    assert "\n" not in result.poor

    scores = np.full(134, 0.9)
    scores[[8, 9, 10, 11, 12, 13, 16, 17]] = 0.1
    result = align(of(person, 800, 500, scores), of(there, 512, 512))
    assert result.residual < 0.01
    assert result.share == pytest.approx(6 / 14)
    assert "only 43% of the joints are seen in both (fewer than 50%)" in result.poor


def test_a_lifted_knee_is_no_poor_fit():
    frames = np.repeat(standing(300, 400, 100)[None], 10, axis=0)
    frames[::3, 10, 1] -= 60
    assert align(of(frames, 800, 500), of(standing(400, 260, 40), 512, 512)).poor is None


def test_no_common_joint():
    """A head and a pair of legs: the images' middles are laid on each other, and nobody is stretched."""
    head, legs = np.zeros(134), np.zeros(134)
    head[:6], legs[8:14] = 0.9, 0.9
    driving = of(standing(300, 400, 100), 800, 500, head)
    result = align(driving, of(standing(400, 260, 40), 512, 512, legs))
    assert (result.residual, result.share) == (None, 0)
    assert "no joint" in result.poor
    expected = (driving.points - [400, 250]) * (512 / 500) + [256, 256]
    np.testing.assert_allclose(result.keypoints.points, expected, atol=1e-2)


def flat(points):
    """All at one height but for a pixel or two, from which a size of sorts could be worked out."""
    points = points.copy()
    points[FITTED, 1] += 0.995 * (points[FITTED, 1].mean() - points[FITTED, 1])
    return points


@pytest.mark.parametrize("case", ["driving", "reference", "both", "upside down", "one joint"])
def test_no_size_to_fit(case):
    """The means of the joints are laid on each other, at the same share of the height."""
    person, there, scores = standing(300, 400, 100), standing(400, 260, 40), np.full(134, 0.9)
    if case in ("driving", "both"):
        person = flat(person)
    if case in ("reference", "both"):
        there = flat(there)
    if case == "upside down":
        person[:, 1] = 500 - person[:, 1]
    if case == "one joint":
        scores[[j for j in FITTED if j != 8]] = 0
    result = align(of(person, 800, 500, scores), of(there, 512, 512))
    assert result.scale[1] == 1
    assert "size is not fitted" in result.poor
    used = [8] if case == "one joint" else FITTED
    moved = result.keypoints.points[0]
    np.testing.assert_allclose(moved[used].mean(axis=0), there[used].mean(axis=0), atol=1e-2)
    np.testing.assert_allclose(np.ptp(moved, axis=0), np.ptp(person, axis=0) * 512 / 500, rtol=1e-4)


def test_nobody():
    nobody = of(np.zeros((3, 134, 2)), 800, 500, np.zeros((3, 134)))
    result = align(nobody, of(standing(400, 260, 40), 512, 512))
    assert not result.keypoints.points.any()
    assert "no joint" in result.poor
    result = align(
        of(standing(300, 400, 100), 800, 500),
        dataclasses.replace(nobody, points=nobody.points[:1], scores=nobody.scores[:1]),
    )
    assert np.isfinite(result.keypoints.points).all()
    assert "no joint" in result.poor
    none = of(np.zeros((0, 134, 2)), 800, 500, np.zeros((0, 134)))
    assert align(none, of(standing(400, 260, 40), 512, 512)).keypoints.points.shape == (0, 134, 2)


def test_reference_of_several_frames():
    many = of(np.zeros((2, 134, 2)), 800, 500)
    with pytest.raises(ValueError, match="one frame, not 2"):
        align(many, many)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([0.0, 1e-6, 1.0, 1e3]), hidden=st.floats(0, 1))
def test_never_nan(seed, spread, hidden):
    """Whatever the points and scores, and however few of them: finite numbers, and never upside down."""
    rng = np.random.default_rng(seed)

    def some(frames, width, height):
        points = rng.normal((width / 2, height / 2), spread, (frames, 134, 2))
        scores = rng.uniform(-0.1, 1.1, (frames, 134)) * (rng.uniform(size=(frames, 134)) >= hidden)
        return of(points, width, height, scores)

    result = align(some(3, 640, 360), some(1, 576, 1024))
    assert np.isfinite(result.keypoints.points).all()
    assert np.isfinite([*result.scale, *result.offset, result.share]).all()
    assert min(result.scale) > 0
    assert result.residual is None or np.isfinite(result.residual)

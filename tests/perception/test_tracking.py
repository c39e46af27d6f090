import numpy as np
import pytest

from stableanimator_jax.perception.dwpose import People
from stableanimator_jax.perception.tracking import follow

NOBODY = People(np.zeros((0, 4), np.float32), np.zeros((0, 134, 2), np.float32), np.zeros((0, 134), np.float32))


def person(left: float, top: float = 100, *, width: float = 60, height: float = 200, score: float = 0.8, mark=0.0):
    """Someone whose keypoints are all over the box; `mark` is added to them, to tell people apart."""
    shares = np.stack([np.linspace(0, 1, 134), np.linspace(1, 0, 134)], axis=1)
    keypoints = np.array([left, top]) + shares * [width, height] + mark
    box = [left, top, left + width, top + height]
    return np.array(box, np.float32), keypoints.astype(np.float32), np.full(134, score, np.float32)


def people(*persons):
    return People(*map(np.stack, zip(*persons, strict=True))) if persons else NOBODY


def assert_is(track, frame: int, someone):
    np.testing.assert_allclose(track.points[frame], someone[1], atol=1e-3)
    np.testing.assert_allclose(track.scores[frame], someone[2])


def test_one_person_all_along():
    persons = [person(10 + 5 * i) for i in range(20)]
    track = follow([people(p) for p in persons])
    for i, p in enumerate(persons):
        assert_is(track, i, p)
    assert track.found.all()
    assert not track.interpolated.any()
    assert track.gaps == []
    assert not track.others.any()
    assert (track.points.dtype, track.scores.dtype) == (np.float32, np.float32)


def test_the_largest_at_first_then_the_same():
    """Another comes nearer and is larger and surer later; the order of the people changes."""
    followed = [person(100 + 4 * i) for i in range(12)]
    frames = []
    for i, p in enumerate(followed):
        other = person(400 - 10 * i, 50 - 4 * i, width=50 + 8 * i, height=150 + 30 * i, mark=3)
        frames.append(people(other, p) if i % 2 else people(p, other))
    track = follow(frames)
    for i, p in enumerate(followed):
        assert_is(track, i, p)
    np.testing.assert_array_equal(track.others, np.ones(12))


def test_starts_with_the_first_frame_that_has_anybody():
    track = follow([NOBODY] * 3 + [people(person(300, width=20), person(30))] * 2)
    np.testing.assert_array_equal(track.found, [0, 0, 0, 1, 1])
    assert track.gaps == [(0, 2)]
    assert not track.scores[:3].any()
    assert not track.points[:3].any()
    assert_is(track, 3, person(30))


@pytest.mark.parametrize(("missing", "filled"), [(1, True), (8, True), (9, False)])
def test_gaps(missing, filled):
    """Up to 8 frames are linearly filled with the smaller score; more are left empty and said."""
    before, after = person(100, score=0.9), person(118, score=0.6)
    track = follow([people(before)] * 2 + [NOBODY] * missing + [people(after)] * 2)
    inside = slice(2, 2 + missing)
    assert not track.found[inside].any()
    assert track.found.sum() == 4
    assert track.interpolated[inside].all() == filled
    assert not track.interpolated[[0, 1, -2, -1]].any()
    if filled:
        assert track.gaps == []
        for i in range(missing):
            assert_is(track, 2 + i, person(100 + 18 * (i + 1) / (missing + 1), score=0.6))
    else:
        assert track.gaps == [(2, 10)]
        assert not track.scores[inside].any()
        assert not track.points[inside].any()


def test_max_gap_is_a_setting():
    frames = [people(person(100)), NOBODY, NOBODY, people(person(106))]
    assert follow(frames, max_gap=2).interpolated.sum() == 2
    assert follow(frames, max_gap=1).gaps == [(1, 2)]
    assert follow(frames, max_gap=0).gaps == [(1, 2)]


def test_somebody_else_is_not_taken_for_them():
    """While they are away for a moment, another person elsewhere is only counted."""
    here, other = person(100), person(400, height=300, mark=3)
    track = follow([people(here)] + [people(here, other)] + [people(other)] * 5 + [people(other, here)] * 2)
    np.testing.assert_array_equal(track.found, [1, 1, 0, 0, 0, 0, 0, 1, 1])
    assert track.interpolated.sum() == 5
    assert_is(track, 4, here)
    np.testing.assert_array_equal(track.others, [0, 1, 1, 1, 1, 1, 1, 1, 1])


def test_a_neighbour_who_overlaps_a_little_is_not_taken_for_them():
    here, neighbour = person(100), person(148, mark=3)  # a fifth of the width: 0.11 of the union
    track = follow([people(here, neighbour)] + [people(neighbour)] * 3 + [people(here, neighbour)])
    np.testing.assert_array_equal(track.found, [1, 0, 0, 0, 1])
    assert_is(track, 2, here)


@pytest.mark.parametrize(("away", "back"), [(4, True), (5, False)])
def test_patience(away, back):
    here, other = person(100), person(400, mark=3)
    track = follow([people(here)] + [people(other)] * away + [people(here, other)] * 2, patience=4)
    assert_is(track, away + 1, here if back else other)


def test_somebody_else_takes_over_in_the_end():
    """Whoever is gone for more than `patience` frames is gone: the largest there is followed, from when they came."""
    here, small, large = person(100), person(300, height=100, mark=1), person(500, height=300, mark=2)
    frames = [people(here)] * 3 + [NOBODY] * 2 + [people(small, large)] * 12
    track = follow(frames, patience=4)
    np.testing.assert_array_equal(track.found, [1] * 3 + [0] * 2 + [1] * 12)
    assert not track.interpolated.any()  # nobody turns into somebody else
    assert track.gaps == [(3, 4)]
    assert_is(track, 2, here)
    assert_is(track, 5, large)
    assert_is(track, 16, large)
    impatient = follow(frames, patience=20)
    assert impatient.gaps == [(3, 16)]


def test_a_scene_cut_leaves_no_hole():
    track = follow([people(person(100))] * 10 + [people(person(400 + 3 * i, mark=2)) for i in range(20)])
    assert track.found.all()
    assert_is(track, 9, person(100))
    assert_is(track, 10, person(400, mark=2))


def test_following_backwards_stops_at_the_last_person():
    """Somebody who was there beside the followed person is not theirs before they left."""
    here, other = person(100), person(400, mark=3)
    track = follow([people(here, other)] * 4 + [people(other)] * 12)
    assert_is(track, 3, here)
    assert_is(track, 4, other)
    assert track.found.all()
    np.testing.assert_array_equal(track.others, [1] * 4 + [0] * 12)


def test_coming_and_going():
    """One person walks through, leaves for long, comes back elsewhere, and leaves."""
    away = [NOBODY] * 15
    first, second = [person(10 * i) for i in range(10)], [person(600 - 10 * i) for i in range(10)]
    frames = [*away, *[people(p) for p in first], *away, *[people(p) for p in second], *away]
    track = follow(frames)
    assert track.gaps == [(0, 14), (25, 39), (50, 64)]
    for i in range(10):
        assert_is(track, 15 + i, first[i])
        assert_is(track, 40 + i, second[i])
    assert track.found.sum() == 20


@pytest.mark.parametrize("frames", [0, 1, 30])
def test_nobody_ever(frames):
    track = follow([NOBODY] * frames)
    assert track.points.shape == (frames, 134, 2)
    assert track.scores.shape == (frames, 134)
    assert not track.found.any()
    assert not track.scores.any()
    assert track.gaps == ([(0, frames - 1)] if frames else [])
    assert track.others.shape == (frames,)

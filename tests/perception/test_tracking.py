import numpy as np
import pytest

from stableanimator_jax.perception.people import People
from stableanimator_jax.perception.tracking import Track
from stableanimator_jax.perception.tracking import follow as follow_at

NOBODY = People(np.zeros((0, 4), np.float32), np.zeros((0, 134, 2), np.float32), np.zeros((0, 134), np.float32))


def follow(frames, fps=24.0, **settings) -> Track:
    return follow_at(frames, fps=fps, **settings)


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
    assert follow(frames, max_gap=2 / 24).interpolated.sum() == 2
    assert follow(frames, max_gap=1 / 24).gaps == [(1, 2)]
    assert follow(frames, max_gap=0).gaps == [(1, 2)]


@pytest.mark.parametrize(("fps", "most"), [(60, 20), (24, 8), (12, 4), (8, 2), (2, 1)])
def test_gaps_are_as_long_in_seconds_at_any_rate(fps, most):
    for missing in (most, most + 1):
        track = follow([people(person(100)), *[NOBODY] * missing, people(person(104))], fps=fps)
        assert track.interpolated.sum() == (missing if missing == most else 0)


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


@pytest.mark.parametrize("step", [-70, 60, 90, 240])
@pytest.mark.parametrize("fps", [8, 12, 24])
def test_the_only_person_is_followed_however_fast(step, fps):
    """By a box's width a frame and more, to and fro."""
    persons = [person(1000 + step * min(i % 8, 8 - i % 8)) for i in range(20)]
    track = follow([people(p) for p in persons], fps=fps)
    assert track.found.all()
    assert (track.scenes, track.gaps) == ([], [])
    assert not track.others.any()
    for i, p in enumerate(persons):
        assert_is(track, i, p)


@pytest.mark.parametrize("step", [-60, 60, 75])
@pytest.mark.parametrize("fps", [8, 12, 24])
def test_somebody_fast_is_followed_past_a_bystander(step, fps):
    """From the first step on, by distance and size; boxes do not overlap from frame to frame."""
    bystander = person(330, 120, height=170, mark=5)
    persons = [person(330 + step * (i - 3)) for i in range(8)]
    track = follow([people(bystander, p) if i % 2 else people(p, bystander) for i, p in enumerate(persons)], fps=fps)
    for i, p in enumerate(persons):
        assert_is(track, i, p)


def crossing(fps: float, seconds: float = 4) -> tuple[list, list]:
    """A large person walks to the right and back, one half as large the other way; they meet twice."""
    times = np.arange(0, seconds, 1 / fps)
    walk = np.abs((times + 1) % 4 - 2) / 2  # from 0.5 up to 1 and down
    return [person(700 * w, mark=0.1) for w in walk], [person(700 * (1 - w), 120, height=180, mark=5) for w in walk]


@pytest.mark.parametrize("fps", [6, 8, 12, 15, 24, 30, 60])
def test_the_same_person_at_every_frame_rate(fps):
    """Two who walk at twice their height a second and pass each other."""
    large, small = crossing(fps)
    frames = [people(b, a) if i % 3 else people(a, b) for i, (a, b) in enumerate(zip(large, small, strict=True))]
    track = follow(frames, fps=fps)
    for i, p in enumerate(large):
        assert_is(track, i, p)


@pytest.mark.parametrize("fps", [8, 12, 24])
def test_who_leaves_is_not_replaced_by_who_stays(fps):
    """Nor backwards: what was theirs stays theirs. When they come back to where they left, it is them again."""
    other = person(20, height=150, mark=3)
    walk = [person(500 + 20 * i) for i in range(6)]
    away = 3 * fps
    frames = [*[people(other, p) for p in walk], *[people(other)] * away, *[people(p, other) for p in walk[::-1]]]
    track = follow(frames, fps=fps)
    np.testing.assert_array_equal(track.found, [1] * 6 + [0] * away + [1] * 6)
    assert track.gaps == [(6, 5 + away)]
    assert not track.scores[6:-6].any()
    assert track.scenes == []
    assert (track.others == 1).all()
    for i, p in enumerate(walk):
        assert_is(track, i, p)
        assert_is(track, len(frames) - 1 - i, p)


def test_who_comes_later_is_not_them():
    """Nor is somebody who stays unseen for a moment while the person leaves."""
    here, other, late = person(100), person(400, mark=3), person(700, mark=6)
    away = [people(), people(other), people(), people(other), people(other, late), people(late), people(late)]
    track = follow([people(here, other)] * 3 + away)
    np.testing.assert_array_equal(track.found, [1, 1, 1, 0, 0, 0, 0, 0, 0, 0])


def test_a_new_person_beside_a_moment_of_occlusion():
    """The bystander keeps their own box, though by giving it up everybody would have one."""
    here, bystander, new = person(100), person(190, mark=3), person(280, mark=6)
    track = follow([people(here, bystander)] * 3 + [people(bystander, new)] * 3 + [people(here, bystander, new)])
    np.testing.assert_array_equal(track.found, [1, 1, 1, 0, 0, 0, 1])
    assert_is(track, 4, here)


def test_who_is_chosen():
    frames = [people(person(300, height=300), person(100, mark=1), person(500, mark=2))] * 3
    for choose, mark in ((lambda boxes: int(np.argmin(boxes[:, 0])), 1), (lambda boxes: len(boxes) - 1, 2)):
        track = follow(frames, choose=choose)
        assert_is(track, 2, person(100 + 400 * (mark - 1), mark=mark))


def test_a_new_scene_with_several():
    """Nobody who was known is there: the person is chosen anew, and that is told."""
    here, small, large = person(100), person(700, height=100, mark=1), person(900, height=300, mark=2)
    frames = [people(here)] * 3 + [NOBODY] * 2 + [people(small, large)] * 12
    track = follow(frames)
    np.testing.assert_array_equal(track.found, [1] * 3 + [0] * 2 + [1] * 12)
    assert not track.interpolated.any()  # nobody turns into somebody else
    assert (track.gaps, track.scenes) == ([(3, 4)], [5])
    assert_is(track, 2, here)
    assert_is(track, 5, large)
    assert_is(track, 16, large)


def test_a_scene_cut_leaves_no_hole():
    frames = [people(person(100))] * 10 + [people(person(400 + 3 * i, 50, height=500, mark=2)) for i in range(20)]
    for cuts in ((), (10,)):
        track = follow(frames, cuts=cuts)
        assert track.found.all()
        assert track.scenes == list(cuts)
        assert_is(track, 9, person(100))
        assert_is(track, 10, person(400, 50, height=500, mark=2))


def test_a_scene_cut_forgets_the_others():
    """The person stands nearly where a bystander was; without the cut it would be the bystander. Nothing is filled."""
    here, other, then = person(100), person(400, mark=3), person(434, mark=6)
    frames = [people(here, other)] * 3 + [NOBODY] + [people(then)] * 5
    assert follow(frames).found.sum() == 3
    for cut in (3, 4):
        track = follow(frames, cuts=[cut])
        np.testing.assert_array_equal(track.found, [1, 1, 1, 0, 1, 1, 1, 1, 1])
        assert (track.scenes, track.gaps) == ([4], [(3, 3)])
        assert_is(track, 4, then)


def test_a_flash_is_no_scene_cut():
    """Somebody is still at their place."""
    here, other = person(100), person(400, height=300, mark=3)
    track = follow([people(here)] + [people(here, other)] * 2 + [people(other)] * 3, cuts=[1, 2, 3])
    np.testing.assert_array_equal(track.found, [1, 1, 1, 0, 0, 0])
    assert track.scenes == []


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

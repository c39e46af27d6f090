import dataclasses

import cv2
import numpy as np
import pytest

from stableanimator_jax.errors import InputError
from stableanimator_jax.perception.tracking import Track
from stableanimator_jax.preparation import filters
from stableanimator_jax.preparation.filters import FilterConfig, Measures, frame_sharpness, judge, measure, people_mask

GOOD = Measures(person=1.0, face=1.0, others=0.0, motion=0.1, sharpness=100.0, background=1.0)


def track(frames=10, *, missing=0, others=0, sway=0.0, height=100.0):
    points = np.zeros((frames, 134, 2), np.float32)
    points[:, :18, 1] = np.linspace(0, height, 18)
    points[:, :18, 0] = sway * np.where(np.arange(frames) % 2, 1, -1)[:, None]
    scores = np.ones((frames, 134), np.float32)
    found = np.arange(frames) >= missing
    scores[~found] = 0
    return Track(points, scores, found, np.zeros(frames, bool), [], np.where(np.arange(frames) < others, 1, 0), [])


def measured(**changes):
    frames = 10
    given = {
        "track": track(),
        "faces": np.ones(frames, np.int64),
        "sharpness": np.full(frames, 50.0),
        "smalls": np.full((frames, 64, 64, 3), 90, np.uint8),
        "people": np.zeros((frames, 64, 64), bool),
    }
    return measure(**{**given, **changes})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"person": 0.89}, filters.NO_PERSON),
        ({"face": 0.49}, filters.NO_FACE),
        ({"others": 0.11}, filters.SEVERAL_PEOPLE),
        ({"motion": 0.009}, filters.LITTLE_MOTION),
        ({"sharpness": 14.9}, filters.BLURRED),
        ({"background": 8.1}, filters.MOVING_BACKGROUND),
    ],
)
def test_each_limit_has_its_reason(change, reason):
    assert judge(GOOD, FilterConfig()) == []
    assert judge(dataclasses.replace(GOOD, **change), FilterConfig()) == [reason]


def test_several_reasons_are_all_told_and_what_was_not_measured_is_not_judged():
    bad = dataclasses.replace(GOOD, face=0.0, sharpness=0.0)
    assert judge(bad, FilterConfig()) == [filters.NO_FACE, filters.BLURRED]
    unknown = dataclasses.replace(GOOD, person=None, motion=None, background=None)
    assert judge(unknown, FilterConfig()) == []


def test_every_filter_can_be_turned_off():
    worst = Measures(person=0.0, face=0.0, others=1.0, motion=0.0, sharpness=0.0, background=255.0)
    off = FilterConfig(person=0, face=0, others=1, motion=0, sharpness=0, background=255)
    assert judge(worst, off) == []


@pytest.mark.parametrize("change", [{"face": 1.1}, {"sharpness": -1.0}, {"background": float("nan")}])
def test_limits_out_of_range_are_refused(change):
    with pytest.raises(InputError, match=f"filters.{next(iter(change))} must be from 0 to"):
        FilterConfig(**change)


def test_shares_of_frames():
    faces = np.array([1] * 6 + [0] * 3 + [2])
    result = measured(track=track(missing=2, others=3), faces=faces)
    assert result.person == pytest.approx(0.8)
    assert result.face == pytest.approx(0.7)
    assert result.others == pytest.approx(0.4)  # three frames with others and one with two faces


def test_motion_is_a_share_of_the_persons_height():
    assert measured(track=track(sway=5.0)).motion == pytest.approx(0.05)
    assert measured(track=track(sway=10.0, height=200.0)).motion == pytest.approx(0.05)
    assert measured(track=track()).motion == 0
    assert measured(track=track(missing=10)).motion == 0


def test_blur_lowers_sharpness():
    sharp = np.random.default_rng(0).integers(0, 255, (128, 128, 3)).astype(np.uint8)
    values = [frame_sharpness(sharp)] + [frame_sharpness(cv2.GaussianBlur(sharp, (0, 0), s)) for s in (1, 2, 4)]
    assert values == sorted(values, reverse=True)
    assert frame_sharpness(np.full((64, 64, 3), 9, np.uint8)) == 0


def test_the_background_is_what_is_outside_of_people():
    smalls = np.full((10, 64, 64, 3), 90, np.uint8)
    smalls[:, 20:40, 20:40] = np.arange(10, dtype=np.uint8)[:, None, None, None] * 20  # someone who changes
    people = np.zeros((10, 64, 64), bool)
    assert measured(smalls=smalls, people=people).background > 1
    people[:, 20:40, 20:40] = True
    assert measured(smalls=smalls, people=people).background == 0
    smalls[:7:2] += 30  # four of ten, and then six
    assert measured(smalls=smalls, people=people).background == 0
    smalls[7:9] += 30
    assert measured(smalls=smalls, people=people).background == pytest.approx(30)


def test_a_background_that_people_cover_is_not_judged():
    assert measured(people=np.ones((10, 64, 64), bool)).background is None
    assert measured(people=None, track=None).background is None
    assert measured(people=None, track=None).motion is None


def test_a_mask_of_people_grows_their_boxes_by_a_tenth():
    mask = people_mask(np.array([[100, 100, 200, 300]], np.float32), (640, 640))
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    assert (rows[0], rows[-1] + 1) == (8, 32)
    assert (columns[0], columns[-1] + 1) == (9, 21)
    assert not people_mask(np.zeros((0, 4), np.float32), (640, 640)).any()
    assert not people_mask(np.array([[-90, -90, -30, -30]], np.float32), (640, 640)).any()

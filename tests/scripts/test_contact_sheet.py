"""The contact sheet: which frames it shows, where, and that it keeps no others."""

import numpy as np
import pytest
from PIL import Image

from stableanimator_jax.scripts.sample.contact_sheet import ContactSheet, chosen_frames


@pytest.mark.parametrize("frames", [1, 2, 7, 8, 9, 15, 32, 1000])
def test_chosen_frames(frames):
    chosen = chosen_frames(frames)
    assert len(chosen) == min(frames, 8)
    assert (chosen[0], chosen[-1]) == (0, frames - 1)
    steps = np.diff(chosen)
    assert steps.size == 0 or (steps.min() > 0 and steps.max() - steps.min() <= 1)


def flat(colour: tuple[int, int, int], height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def make(frames: int, height: int = 64, width: int = 64, reference: tuple[int, int] = (100, 100)) -> ContactSheet:
    """Pose i is magenta with red 100 + i, frame i is blue 100 + i, the reference is green."""
    poses = np.stack([flat((100 + i, 0, 255), height, width) for i in range(frames)])
    sheet = ContactSheet(flat((0, 255, 0), *reference), poses, frames)
    for i in range(frames):
        sheet.add(flat((0, 0, 100 + i), height, width))
    return sheet


@pytest.mark.parametrize(("frames", "height", "width"), [(32, 64, 64), (5, 128, 64), (3, 64, 192), (1, 64, 64)])
def test_where_things_are(frames, height, width):
    sheet = make(frames, height, width)
    picture = np.asarray(sheet.image()).astype(int)
    scale = 256 / max(height, width)
    area = round(height * scale) * round(width * scale)

    def corner(colour: tuple[int, int, int]) -> tuple[int, int]:
        """Top left of a cell, which is whole."""
        rows, columns = np.nonzero((picture == colour).all(-1))
        assert len(rows) == area
        return int(rows.min()), int(columns.min())

    previous = (-1, -1)
    for k, i in enumerate(chosen_frames(frames)):
        (top, left), (below, same_left) = corner((100 + i, 0, 255)), corner((0, 0, 100 + i))
        assert left == same_left
        assert below > top + round(height * scale)  # the label fits between
        assert (top, left) > previous if k % 4 else top > previous[0]
        previous = (top, left)
    green = np.nonzero((picture == (0, 255, 0)).all(-1))
    first_left = corner((100, 0, 255))[1]
    assert green[1].max() < first_left
    ink = (picture.max(-1) < 90).sum()
    assert ink > 20 * len(chosen_frames(frames))  # labels


def test_a_reference_of_another_size_is_shown_whole():
    sheet = make(2, 64, 64, reference=(1000, 600))
    picture = np.asarray(sheet.image())
    rows, columns = np.nonzero((picture == (0, 255, 0)).all(-1))
    assert np.ptp(rows) + 1 == 256
    assert np.ptp(columns) + 1 == pytest.approx(256 * 0.6, abs=1)


def test_dark_poses_are_made_bright_and_frames_are_left_alone():
    pose = np.zeros((1, 64, 64, 3), np.uint8)
    pose[0, 10:20, 10:20] = (50, 0, 20)
    sheet = ContactSheet(flat((0, 255, 0), 64, 64), pose, 1)
    sheet.add(flat((50, 0, 20), 64, 64))
    picture = np.asarray(sheet.image())
    assert (picture == (255, 0, 102)).all(-1).sum() == 40 * 40
    assert (picture == (50, 0, 20)).all(-1).sum() == 256 * 256


def test_keeps_only_what_it_shows():
    sheet = make(100)
    assert sorted(sheet.frames) == chosen_frames(100)
    assert sheet.seen == 100
    chunk = np.zeros((4, 64, 64, 3), np.uint8)
    sheet = ContactSheet(chunk[0], np.zeros((4, 64, 64, 3), np.uint8), 4)
    sheet.add(chunk[0])
    assert not np.shares_memory(sheet.frames[0], chunk)  # a view would keep the whole chunk


def test_without_poses_frames_stand_alone():
    sheet = ContactSheet(flat((0, 255, 0), 64, 64), None, 2)
    for i in range(2):
        sheet.add(flat((0, 0, 100 + i), 64, 64))
    picture = np.asarray(sheet.image())
    assert picture.shape[0] < np.asarray(make(2).image()).shape[0]
    for i in range(2):
        assert (picture == (0, 0, 100 + i)).all(-1).sum() == 256 * 256


def test_save(tmp_path):
    sheet = make(3)
    sheet.save(tmp_path / "any.name")
    with Image.open(tmp_path / "any.name") as picture:
        assert picture.format == "PNG"
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(sheet.image()))

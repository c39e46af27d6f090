import numpy as np
import pytest

from stableanimator_jax.data.video import read_frames
from stableanimator_jax.errors import InputError
from stableanimator_jax.perception.preview import write_preview


def images(count, height, width, level):
    return [np.full((height, width, 3), level, np.uint8) for _ in range(count)]


def skeletons(count, height, width):
    """A white square that moves to the right by a tenth of the width a frame."""
    frames = images(count, height, width, 0)
    for i, frame in enumerate(frames):
        frame[height // 4 : height // 2, i * width // 10 : (i + 2) * width // 10] = 255
    return frames


def test_both_sides(tmp_path):
    """Driving frames wide and small, the reference upright and large."""
    driving, found = images(5, 60, 120, 90), skeletons(5, 60, 120)
    aligned = skeletons(5, 160, 100)
    write_preview(tmp_path / "a.mp4", iter(driving), iter(found), images(1, 160, 100, 200)[0], iter(aligned), 5.0)
    with read_frames(tmp_path / "a.mp4") as (info, frames):
        frames = [frame.astype(int) for frame in frames]
    assert (info.width, info.height, info.fps, len(frames)) == (320 + 100, 160, 5, 5)
    for i, frame in enumerate(frames):
        for part, level in ((frame[:, :320], 90), (frame[:, 320:], 200)):
            width = part.shape[1]
            assert abs(part[120, width // 2] - level).max() <= 4  # the picture
            assert (part[60, (i + 1) * width // 10] >= 245).all()  # the skeleton's middle, in its place
            assert abs(part[60, (i + 4) * width // 10] - level).max() <= 8


@pytest.mark.parametrize(
    ("frames", "found", "aligned", "words"),
    [(0, 0, 0, "no frames"), (3, 2, 3, "shorter"), (3, 3, 4, "longer")],
)
def test_numbers_must_agree(tmp_path, frames, found, aligned, words):
    with pytest.raises(ValueError, match=words):
        write_preview(
            tmp_path / "a.mp4",
            images(frames, 32, 32, 90),
            skeletons(found, 32, 32),
            images(1, 32, 32, 200)[0],
            skeletons(aligned, 32, 32),
            8.0,
        )
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match=r"the suffix \.txt"):
        write_preview(
            tmp_path / "a.txt",
            images(1, 32, 32, 0),
            skeletons(1, 32, 32),
            images(1, 32, 32, 0)[0],
            skeletons(1, 32, 32),
            8.0,
        )

"""The example that ships in the package, and the tool that makes it."""

import numpy as np
import pytest

from examples.drawn_world import make_example
from examples.drawn_world.clips import TEST_SEEDS, small_skeletons
from stableanimator_jax.data.face_track import load_face_boxes
from stableanimator_jax.data.images import fit, load_image
from stableanimator_jax.data.poses import load_poses
from stableanimator_jax.shipped import EXAMPLE


@pytest.fixture(scope="module")
def clip():
    return make_example.drawn()


def test_somebody_whom_the_model_never_saw():
    assert make_example.SEED >= TEST_SEEDS
    assert make_example.FRAMES <= make_example.REFERENCE < make_example.MOTION


def test_the_reference_made_small_is_a_picture_that_the_model_knows(clip):
    image = load_image(EXAMPLE / "reference.png")
    small = fit(image, 64, 64, "crop", filter="lanczos").astype(int)
    expected = clip.frames[make_example.REFERENCE].astype(int)
    assert np.abs(small - expected).mean() < 1.5  # it is made small by another filter
    assert np.abs(clip.frames[0].astype(int) - expected).mean() > 10


def test_poses(clip):
    frames = load_poses(EXAMPLE / "poses", 512, 512, "crop").frames
    assert frames.shape == (32, 512, 512, 3)
    moved = np.abs(np.diff(frames.astype(int), axis=0)).max(axis=-1) > 32
    assert moved.sum(axis=(1, 2)).min() > 100
    small = load_poses(EXAMPLE / "poses", 64, 64).frames.astype(int)
    # Another OpenCV may round a line's edge otherwise.
    assert np.abs(small - small_skeletons(clip)[:32]).max() <= 8


def test_faces_are_what_they_are_in_training(clip):
    boxes = load_face_boxes(EXAMPLE / "face_boxes.json", 32, reference_size=(256, 256))
    assert boxes.track is not None
    assert boxes.size is not None
    assert boxes.reference is not None
    track = boxes.track.fitted(boxes.size, 64, 64, "crop")
    assert track.valid.all()
    np.testing.assert_allclose(track.boxes, clip.faces.boxes[:32], atol=1)  # another NumPy may round otherwise
    assert (track.boxes == clip.faces.boxes[:32]).mean() > 0.98
    np.testing.assert_allclose(track.landmarks, clip.faces.landmarks[:32], atol=0.02)
    left, top, right, bottom = clip.faces.boxes[make_example.REFERENCE]
    np.testing.assert_array_equal(boxes.reference.box, [4 * left, 4 * top, 4 * right + 3, 4 * bottom + 3])


def test_small_and_of_known_source():
    files = [path for path in EXAMPLE.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 300_000
    assert "this project's licence" in (EXAMPLE / "SOURCE.md").read_text()


def test_the_tool_makes_what_ships(tmp_path):
    make_example.main(tmp_path)
    made, shipped = (load_poses(path / "poses", 512, 512, "crop").frames for path in (tmp_path, EXAMPLE))
    difference = np.abs(made.astype(int) - shipped).max(axis=-1)
    assert difference.max() <= 1  # another OpenCV may round a line's edge otherwise
    assert (difference > 0).mean() <= 1e-3
    pictures = (load_image(path / "reference.png").astype(int) for path in (tmp_path, EXAMPLE))
    np.testing.assert_allclose(*pictures, atol=8)
    made, shipped = (load_face_boxes(path / "face_boxes.json", 32) for path in (tmp_path, EXAMPLE))
    assert made.track is not None
    assert shipped.track is not None
    np.testing.assert_allclose(made.track.boxes, shipped.track.boxes, atol=8)
    np.testing.assert_allclose(made.track.landmarks, shipped.track.landmarks, atol=0.11)

"""The example that ships in the package, and the tool that makes it."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import skimage.data

import stableanimator_jax
from stableanimator_jax.data.face_track import load_face_boxes
from stableanimator_jax.data.images import load_image
from stableanimator_jax.data.poses import load_poses
from stableanimator_jax.perception.skeleton import BODY, FACE, HANDS

EXAMPLE = Path(stableanimator_jax.__path__[0]) / "assets" / "example"
TOOL = Path(__file__).parents[2] / "tools" / "make_example.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("make_example", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_reference():
    image = load_image(EXAMPLE / "reference.jpg")
    assert image.shape == (512, 512, 3)
    assert np.abs(image.astype(int) - skimage.data.astronaut()).mean() < 4


def test_poses():
    frames = load_poses(EXAMPLE / "poses", 512, 512, "crop").frames
    assert frames.shape == (32, 512, 512, 3)
    lit = (frames.max(axis=-1) > 32).sum(axis=(1, 2))
    assert lit.min() > 500  # somebody is in every frame
    moved = np.abs(np.diff(frames.astype(int), axis=0)).max(axis=-1) > 32
    assert moved.sum(axis=(1, 2)).min() > 100  # and moves


def test_small_and_of_known_source():
    files = [path for path in EXAMPLE.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 300_000
    assert "public domain" in (EXAMPLE / "SOURCE.md").read_text()


def test_the_tool_makes_what_ships(tool, tmp_path):
    tool.main(tmp_path)
    made, shipped = (load_poses(path / "poses", 512, 512, "crop").frames for path in (tmp_path, EXAMPLE))
    difference = np.abs(made.astype(int) - shipped).max(axis=-1)
    assert difference.max() <= 1  # another OpenCV may round a line's edge otherwise
    assert (difference > 0).mean() <= 1e-3
    np.testing.assert_allclose(
        load_image(tmp_path / "reference.jpg").astype(int), load_image(EXAMPLE / "reference.jpg"), atol=8
    )


def test_the_tool_makes_the_faces_that_ship(tool, tmp_path):
    tool.main(tmp_path)
    made, shipped = (load_face_boxes(path / "face_boxes.json", 32) for path in (tmp_path, EXAMPLE))
    assert made.track is not None
    assert shipped.track is not None
    assert made.size == shipped.size == (512, 512)
    assert shipped.track.valid.all()
    np.testing.assert_allclose(made.track.boxes, shipped.track.boxes, atol=1)  # another NumPy may round otherwise
    np.testing.assert_allclose(made.track.landmarks, shipped.track.landmarks, atol=0.11)
    for a, b in zip(made.reference, shipped.reference, strict=True):
        np.testing.assert_allclose(a, b, atol=1)


def test_faces_are_where_the_pictures_have_them():
    """In the poses the face's dots are grey; in the photo there is skin in the box, hair and backdrop around it."""
    faces = load_face_boxes(EXAMPLE / "face_boxes.json", 32, reference_size=(512, 512))
    assert faces.track is not None
    frames = load_poses(EXAMPLE / "poses", 512, 512, "crop").frames
    for frame, box in zip(frames, faces.track.boxes.astype(int), strict=True):
        left, top, right, bottom = box
        spread = frame.max(axis=-1).astype(int) - frame.min(axis=-1)
        rows, columns = np.nonzero((frame.min(axis=-1) > 40) & (spread < 10))  # joints and hands are colourful
        inside = (columns >= left - 1) & (columns <= right + 1) & (rows >= top - 1) & (rows <= bottom + 1)
        assert inside.mean() > 0.98
        # The faintest dots, which lie between pixels, are not counted.
        assert abs(columns[inside].min() - left) <= 6
        assert abs(columns[inside].max() - right) <= 6
        assert abs(rows[inside].max() - bottom) <= 6
    assert faces.reference is not None
    photo = load_image(EXAMPLE / "reference.jpg").astype(int)
    skin = (photo[..., 0] > 170) & (photo[..., 0] - photo[..., 2] > 40) & (photo[..., 1] > 110)
    left, top, right, bottom = faces.reference.box.astype(int)
    assert skin[top : bottom + 1, left : right + 1].mean() > 0.5
    around = skin[top - 20 : bottom + 1, left - 30 : right + 31].copy()
    around[20:, 30:-30] = False
    assert around.mean() < 0.15


def test_the_person_starts_where_the_photo_has_her(tool):
    """Read off the photo by hand, in pixels: eyes, the nose's tip, the mouth's corners, the chin, shoulders."""
    keypoints, _ = tool.person(0.0)
    face = keypoints[FACE]
    for point, expected in (
        (face[36:42].mean(axis=0), (201.5, 101.5)),
        (face[42:48].mean(axis=0), (247.5, 103.5)),
        (face[30], (223.5, 125)),
        (face[48], (206, 142.5)),
        (face[54], (243, 143.5)),
        (face[8], (223.5, 177.5)),
        (keypoints[2], (95, 258)),
        (keypoints[5], (330, 262)),
    ):
        assert np.linalg.norm(point - expected) < 5


def test_a_possible_body(tool):
    """Bones keep their lengths but for perspective, motion is smooth, and the loop closes."""
    people = np.stack([tool.person(i / 32)[0] for i in range(33)])
    np.testing.assert_allclose(people[32], people[0], atol=1e-6)
    speed = np.linalg.norm(np.diff(people, axis=0), axis=-1)  # [32, 134] pixels a frame
    assert speed[:, BODY].max() < 60
    assert np.linalg.norm(np.diff(people, 2, axis=0), axis=-1).max() < 65
    shoulders = np.linalg.norm(people[:, 2] - people[:, 5], axis=-1)
    assert np.ptp(shoulders) < 0.05 * shoulders.mean()
    left, right = (people[:, hand] for hand in HANDS)
    wrists = people[:, [7, 4]]
    np.testing.assert_allclose(np.stack([left[:, 0], right[:, 0]], axis=1), wrists)
    raised = people[12]
    assert raised[7, 1] < raised[5, 1]  # the left hand above the shoulder
    assert raised[HANDS[0], 1].max() < raised[6, 1]
    assert (raised[HANDS[0]] > 0).all()
    assert (raised[HANDS[0]] < 512).all()

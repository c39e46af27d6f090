"""Where faces are: files of boxes, masks, and what fitting frames to another size does to them."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from stableanimator_jax.data.face_track import (
    Face,
    FaceTrack,
    load_face_boxes,
    load_face_masks,
    save_face_boxes,
)
from stableanimator_jax.data.images import fit, fit_aspect
from stableanimator_jax.errors import InputError
from tests.data.clips import one_line

SIZE = (96, 64)
LANDMARKS = [[12, 14], [18.5, 14], [15, 17], [13, 20], [17, 20.25]]


def track_of(*boxes, landmarks=None):
    """One box a frame; None is a frame without a face."""
    valid = np.array([box is not None for box in boxes])
    array = np.array([box or (0, 0, 0, 0) for box in boxes], np.float32)
    return FaceTrack(array, None if landmarks is None else np.array(landmarks, np.float32), valid)


def assert_same(a: FaceTrack, b: FaceTrack):
    np.testing.assert_array_equal(a.valid, b.valid)
    np.testing.assert_array_equal(a.boxes, b.boxes)
    assert a.boxes.dtype == b.boxes.dtype == np.float32
    if a.landmarks is None or b.landmarks is None:
        assert a.landmarks is b.landmarks is None
    else:
        np.testing.assert_array_equal(a.landmarks, b.landmarks)
        assert a.landmarks.dtype == b.landmarks.dtype == np.float32


# Fitting


@st.composite
def boxes_in(draw, width, height):
    left, right = sorted(draw(st.tuples(*[st.integers(0, width - 1)] * 2)))
    top, bottom = sorted(draw(st.tuples(*[st.integers(0, height - 1)] * 2)))
    return left, top, right, bottom


@st.composite
def fittings(draw):
    """A box in a frame, another size for the frame, and how it is fitted."""
    size = draw(st.tuples(*[st.integers(1, 90)] * 2))
    target = draw(st.tuples(*[st.integers(1, 120)] * 2))
    return size, draw(boxes_in(*size)), target, draw(st.sampled_from(["crop", "pad"]))


def draw_box(size, box):
    image = np.zeros((size[1], size[0], 3), np.uint8)
    left, top, right, bottom = box
    image[top : bottom + 1, left : right + 1] = 255
    return image


@settings(max_examples=300, deadline=None)
@given(fittings())
def test_fitted_is_where_fit_brings_the_pixels(fitting):
    size, box, (width, height), mode = fitting
    image = draw_box(size, box)
    fitted = track_of(box).fitted(size, width, height, mode)
    left_over = fit_aspect(image, width, height, mode)[..., 0] > 0
    assert fitted.valid[0] == left_over.any()
    if not fitted.valid[0]:
        assert not fitted.boxes.any()
        return
    left, top, right, bottom = fitted.boxes[0]
    assert 0 <= left <= right < width
    assert 0 <= top <= bottom < height
    np.testing.assert_array_equal(fitted.boxes, np.round(fitted.boxes))
    # Bicubic filtering widens or darkens what is thinner, before or after.
    source = min(len(np.unique(axis)) for axis in np.nonzero(left_over))
    if source < 4 or min(right - left, bottom - top) < 2:
        return
    rows, columns = np.nonzero(fit(image, width, height, mode, filter="bicubic")[..., 0] >= 128)
    seen = [columns.min(), rows.min(), columns.max(), rows.max()]
    np.testing.assert_allclose(fitted.boxes[0], seen, atol=1)


@pytest.mark.parametrize(
    ("mode", "target", "expected"),
    [
        ("crop", (128, 128), [8, 20, 47, 39]),  # 16 columns are cut on each side, all doubled
        ("crop", (32, 32), [2, 5, 11, 9]),
        ("pad", (96, 96), [20, 26, 39, 35]),  # 16 rows are added above
        ("pad", (48, 48), [10, 13, 19, 17]),
        ("crop", (96, 64), [20, 10, 39, 19]),
    ],
)
def test_fitted_up_and_down(mode, target, expected):
    width, height = target
    landmarks = np.array([[[20, 10], [39, 10], [30, 15], [20, 19], [39, 19]]])
    fitted = track_of((20, 10, 39, 19), landmarks=landmarks).fitted(SIZE, width, height, mode)
    assert fitted.boxes[0].tolist() == expected
    assert fitted.landmarks is not None
    # Landmarks are at pixels' centres: the corner pixel's lies half a pixel inside of the box's edge.
    scale = width / (64 if mode == "crop" and width == height else 96)
    half = (scale - 1) / 2
    np.testing.assert_allclose(fitted.landmarks[0, 0], np.array(expected[:2]) + half)
    np.testing.assert_allclose(fitted.landmarks[0, 4], np.array(expected[2:]) - half)


@pytest.mark.parametrize("mode", ["crop", "pad"])
@pytest.mark.parametrize("target", [(144, 144), (40, 40), (70, 200), (96, 64)])
def test_fitted_landmarks_stay_at_the_middle_of_what_they_mark(mode, target):
    box = (42, 24, 52, 36)
    landmarks = np.tile([47.0, 30.0], (1, 5, 1))
    width, height = target
    fitted = track_of(box, landmarks=landmarks).fitted(SIZE, width, height, mode)
    light = fit(draw_box(SIZE, box), width, height, mode, filter="bicubic")[..., 0].astype(float)
    y, x = np.mgrid[:height, :width]
    assert fitted.landmarks is not None
    np.testing.assert_allclose(
        fitted.landmarks[0],
        np.tile([(light * x).sum() / light.sum(), (light * y).sum() / light.sum()], (5, 1)),
        atol=0.1,
    )


def test_a_face_cropped_away_becomes_invalid():
    landmarks = np.tile(LANDMARKS, (4, 1, 1))
    track = track_of((0, 0, 15, 20), (0, 0, 16, 20), None, (80, 5, 90, 9), landmarks=landmarks)
    fitted = track.fitted(SIZE, 64, 64, "crop")  # columns 16 to 79 are left
    assert fitted.valid.tolist() == [False, True, False, False]
    assert fitted.boxes.tolist() == [[0] * 4, [0, 0, 0, 20], [0] * 4, [0] * 4]
    assert fitted.landmarks is not None
    assert fitted.landmarks[1, 0].tolist() == [-4, 14]
    assert not fitted.landmarks[[0, 2, 3]].any()


def test_boxes_that_reach_outside_are_cut():
    fitted = track_of((-10, -5, 200, 70), (-9, 3, -1, 8)).fitted(SIZE, 96, 64, "crop")
    assert fitted.boxes[0].tolist() == [0, 0, 95, 63]
    assert fitted.valid.tolist() == [True, False]


# Files of boxes


@st.composite
def face_files(draw):
    width, height = size = draw(st.tuples(*[st.integers(1, 4000)] * 2))
    boxes = draw(st.lists(st.none() | boxes_in(width, height), min_size=1, max_size=6))
    points = st.floats(-5000, 5000, width=32)
    track = track_of(*boxes)
    if track.valid.any() and draw(st.booleans()):
        landmarks = draw(arrays(np.float32, (len(boxes), 5, 2), elements=points, unique=True))
        track = replace(track, landmarks=np.where(track.valid[:, None, None], landmarks, 0))
    reference = None
    if draw(st.booleans()):
        box = np.array(draw(boxes_in(700, 500)), np.float32)
        landmarks = draw(st.none() | arrays(np.float32, (5, 2), elements=points, unique=True))
        reference = Face(box, landmarks)
    return track, size, reference


@settings(max_examples=100, deadline=None)
@given(face_files())
def test_boxes_there_and_back(tmp_path_factory, file):
    track, size, reference = file
    path = tmp_path_factory.mktemp("faces") / "boxes.json"
    save_face_boxes(path, track=track, size=size, reference=reference)
    loaded = load_face_boxes(path, len(track.valid), reference_size=(700, 500))
    assert loaded.track is not None
    assert_same(loaded.track, track)
    assert loaded.size == size
    if reference is None:
        assert loaded.reference is None
    else:
        assert loaded.reference is not None
        np.testing.assert_array_equal(loaded.reference.box, reference.box)
        np.testing.assert_array_equal(loaded.reference.landmarks, reference.landmarks)


def test_reference_alone(tmp_path):
    box = np.array([1, 2, 30, 40], np.float32)
    save_face_boxes(tmp_path / "a.json", reference=Face(box))
    loaded = load_face_boxes(tmp_path / "a.json", 7)
    assert loaded.track is loaded.size is None
    assert loaded.reference is not None
    assert loaded.reference.box.tolist() == box.tolist()
    assert loaded.reference.landmarks is None


def test_nothing_to_write_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="neither"):
        save_face_boxes(tmp_path / "a.json")
    with pytest.raises(ValueError, match="size"):
        save_face_boxes(tmp_path / "a.json", track=track_of((0, 0, 1, 1)))
    with pytest.raises(InputError, match="cannot write"):
        save_face_boxes(tmp_path / "none" / "a.json", track=track_of((0, 0, 1, 1)), size=SIZE)
    assert not list(tmp_path.iterdir())


def write(path, **changes):
    """A good file of three frames, the middle one without a face, but for `changes`, where ... leaves one out."""
    data = {
        "width": 96,
        "height": 64,
        "frames": [
            {"box": [3, 4, 20, 30], "landmarks": LANDMARKS},
            None,
            {"box": [5, 6, 7, 8], "landmarks": LANDMARKS},
        ],
        "reference": {"box": [10, 20, 30, 40]},
    } | changes
    path.write_text(json.dumps({key: value for key, value in data.items() if value is not ...}))
    return path


def frames(box, **more):
    return [None, {"box": box, **more}, None]


def test_boxes_are_rounded_and_cut(tmp_path):
    path = write(tmp_path / "a.json", frames=frames([-3.6, 10.5, 95.6, 30.4]), reference={"box": [-5, 0, 50.2, 99]})
    loaded = load_face_boxes(path, 3, reference_size=(40, 90))
    assert loaded.track is not None
    assert loaded.track.boxes[1].tolist() == [0, 11, 95, 30]
    assert loaded.track.landmarks is None
    assert loaded.reference is not None
    assert loaded.reference.box.tolist() == [0, 0, 39, 89]


def test_one_pixel_is_a_box_and_no_face_at_all_no_error(tmp_path):
    track = load_face_boxes(write(tmp_path / "a.json", frames=frames([95, 63, 95, 63])), 3).track
    assert track is not None
    assert track.boxes[1].tolist() == [95, 63, 95, 63]
    track = load_face_boxes(write(tmp_path / "a.json", frames=[None] * 3), 3).track
    assert track is not None
    assert not track.valid.any()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"frames": [None] * 4}, r"has 4 frames, but the poses have 3$"),
        ({"frames": ..., "reference": ...}, 'neither "frames" nor "reference"'),
        ({"boxes": []}, r'unknown key "boxes"'),
        ({"frames": {}}, "frames: expected a list"),
        ({"width": 0}, "width must be a whole number of pixels, at least 1, not 0"),
        ({"height": 64.0}, r"height must be a whole number .* not 64\.0"),
        ({"width": True}, "not true"),
        ({"height": ...}, "height must be .* not null"),
        ({"frames": [None, 7, None]}, r"frame 1: expected an object with \"box\", not 7"),
        ({"frames": [None, [1, 2, 3, 4], None]}, r"frame 1: expected an object .* not a list of 4"),
        ({"frames": [None, {}, None]}, 'frame 1: there is no "box"'),
        ({"frames": frames([1, 2, 3, 4], score=1)}, 'frame 1: unknown key "score"'),
        ({"frames": frames([])}, "frame 1, box: expected 4 numbers, got 0"),
        ({"frames": frames([1, 2, 3])}, "frame 1, box: expected 4 numbers, got 3"),
        ({"frames": frames(None)}, "frame 1, box: expected 4 numbers, got null"),
        ({"frames": frames([1, 2, 3, "4"])}, "frame 1, box: .* not '4'"),
        ({"frames": frames([1, 2, 3, True])}, "frame 1, box: .* not true"),
        ({"frames": frames([1, 2, 3, float("nan")])}, "frame 1, box: .* not nan"),
        ({"frames": frames([1, 2, 3, float("inf")])}, "frame 1, box: .* not inf"),
        ({"frames": frames([1, 2, 3, 10**400])}, "frame 1, box: .* many digits"),
        ({"frames": frames([1, 2, [3], 4])}, "frame 1, box: .* not a list of 1"),
        ({"frames": frames([20, 2, 10, 4])}, r"frame 1: the box \[20, 2, 10, 4\] is inverted"),
        ({"frames": frames([2, 20, 4, 10])}, "frame 1: .* inverted"),
        ({"frames": frames([96, 2, 99, 4])}, r"frame 1: the box .* outside of the image of 96x64 pixels"),
        ({"frames": frames([2, 64, 4, 70])}, "frame 1: .* outside"),
        ({"frames": frames([-9, 2, -1, 4])}, "frame 1: .* outside"),
        ({"frames": frames([2, -9, 4, -1])}, "frame 1: .* outside"),
        ({"frames": frames([1, 2, 3, 4], landmarks=LANDMARKS[:4])}, "frame 1, landmarks: expected 5 lists of 2"),
        ({"frames": frames([1, 2, 3, 4], landmarks=[[1, 2, 3]] * 5)}, "frame 1, landmarks: .* got 3 in one of its"),
        ({"frames": frames([1, 2, 3, 4], landmarks=None)}, "frame 1, landmarks: .* got null"),
        ({"frames": frames([1, 2, 3, 4], landmarks=[[3, 3]] * 5)}, "frame 1: all five landmarks are the same point"),
        (
            {"frames": [None, {"box": [1, 2, 3, 4]}, {"box": [1, 2, 3, 4], "landmarks": LANDMARKS}]},
            "frame 2 has landmarks, but frame 1 has none",
        ),
        ({"reference": None}, r"reference: expected an object"),
        ({"reference": {"box": [30, 2, 10, 4]}}, "reference: the box .* inverted"),
        ({"reference": {"box": [-30, 2, -10, 4]}}, "reference: the box .* outside"),
        ({"reference": {"box": [50, 2, 60, 4]}}, "reference: the box .* outside of the image of 50x50"),
        ({"frames": ..., "reference": {"box": [1, 2, 3]}}, "reference, box: expected 4 numbers"),
    ],
)
def test_bad_boxes(tmp_path, changes, words):
    path = write(tmp_path / "a.json", **changes)
    with pytest.raises(InputError, match=words) as error:
        load_face_boxes(path, 3, reference_size=(50, 50))
    assert str(path) in one_line(error)


def test_bad_files(tmp_path):
    for name, data in {
        "empty.json": b"",
        "cut.json": b'{"width": 9',
        "latin.json": b'{"width": "\xe9"}',
        "deep.json": b"[" * 100_000,
        "list.json": b"[1, 2]",
    }.items():
        (tmp_path / name).write_bytes(data)
    for name, words in (
        ("missing.json", "face boxes .* does not exist"),
        (".", "is a directory"),
        ("empty.json", "is empty"),
        ("cut.json", "is not a JSON file"),
        ("latin.json", "is not a JSON file"),
        ("deep.json", "is not a JSON file"),
        ("list.json", "expected a JSON object"),
    ):
        with pytest.raises(InputError, match=words) as error:
            load_face_boxes(tmp_path / name, 3)
        assert str(tmp_path / name) in one_line(error)


# Masks


def save_masks(directory, *masks, first=0):
    directory.mkdir(exist_ok=True)
    for i, mask in enumerate(masks):
        Image.fromarray(mask).save(directory / f"frame_{first + i}.png")
    return directory


def mask_of(*boxes):
    return np.maximum.reduce([np.zeros((64, 96, 3), np.uint8), *(draw_box(SIZE, box) for box in boxes)])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.none() | boxes_in(*SIZE), min_size=1, max_size=4))
def test_masks_there_and_back(tmp_path_factory, boxes):
    assume((0, 0, 95, 63) not in boxes)
    masks = [mask_of(*([] if box is None else [box])) for box in boxes]
    directory = save_masks(tmp_path_factory.mktemp("masks"), *masks, first=9)  # 10 comes after 9
    track, size = load_face_masks(directory, len(boxes))
    assert size == SIZE
    assert_same(track, track_of(*boxes))


def test_the_largest_of_several_faces(tmp_path):
    masks = [mask_of((2, 2, 9, 9), (30, 20, 60, 50)), mask_of((2, 2, 40, 40), (60, 20, 70, 25), (80, 1, 84, 9))]
    track, _ = load_face_masks(save_masks(tmp_path, *masks), 2)
    assert track.boxes.tolist() == [[30, 20, 60, 50], [2, 2, 40, 40]]


def test_kinds_of_masks(tmp_path):
    """Grey, with two colours only, with soft edges, and with the face cut out of an opaque layer."""
    grey = mask_of((20, 10, 39, 29))[..., 0]
    soft = np.asarray(Image.fromarray(grey).resize((192, 128), Image.Resampling.BILINEAR).resize(SIZE))
    layer = np.stack([grey] * 4, axis=-1)  # transparent, which is black, but for the face
    save_masks(tmp_path, grey, soft, layer)
    Image.fromarray(grey).convert("1").save(tmp_path / "frame_3.png")
    track, _ = load_face_masks(tmp_path, 4)
    assert track.valid.all()
    np.testing.assert_array_equal(track.boxes, np.tile([20, 10, 39, 29], (4, 1)))


def test_white_all_over_is_no_face_found(tmp_path):
    white = np.full((64, 96, 3), 255, np.uint8)
    track, _ = load_face_masks(save_masks(tmp_path, white, mask_of((0, 0, 95, 62)), mask_of()), 3)
    assert track.valid.tolist() == [False, True, False]


def test_bad_masks(tmp_path):
    good = mask_of((2, 2, 9, 9))
    save_masks(tmp_path / "good", good, good)
    save_masks(tmp_path / "mixed", good, good[:, :90])
    save_masks(tmp_path / "dim", good, good // 255)
    save_masks(tmp_path / "gap", good)
    save_masks(tmp_path / "gap", good, first=2)
    save_masks(tmp_path / "damaged", good, good)
    (tmp_path / "damaged" / "frame_1.png").write_bytes(b"no image")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for name, count, words in (
        ("good", 3, r"good: there are 2, but the poses have 3 frames"),
        ("good", 1, r"there are 2, but the poses have 1"),
        ("mixed", 2, r"frame_1\.png is 90x64 pixels, but frame_0\.png is 96x64: mixed sizes"),
        ("dim", 2, r"frame_1\.png must be black with white \(255\) boxes, but its brightest is 1$"),
        ("gap", 2, r"missing frame_1\.png"),
        ("damaged", 2, r"frame_1\.png is not an image"),
        ("empty", 2, r"there is no frame_0\.png"),
        ("nowhere", 2, "cannot read face masks .*: No such file"),
        ("file", 2, "cannot read face masks .*: Not a directory"),
    ):
        with pytest.raises(InputError, match=words) as error:
            load_face_masks(tmp_path / name, count)
        assert f"{tmp_path / name}" in one_line(error)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"box": np.zeros(3)}, r"box must be \[4\] finite numbers, got \(3,\)"),
        ({"box": np.array([5, 0, 1, 4.0])}, r"left, top, right, bottom, got \[5.0, 0.0, 1.0, 4.0\]"),
        ({"box": np.array([0, 0, np.nan, 4])}, "box must be"),
        ({"box": np.zeros(4), "landmarks": np.zeros((68, 2))}, r"landmarks must be \[5, 2\] finite numbers"),
        ({"box": np.zeros(4), "embedding": np.zeros(256)}, r"embedding must be \[512\] finite numbers"),
    ],
)
@pytest.mark.mistyped
def test_a_face_of_wrong_numbers_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        Face(**given)


def test_landmarks_of_some_faces_only_are_refused():
    box = np.float32([1, 2, 30, 40])
    with pytest.raises(InputError, match=r"^frame 2 has landmarks, but frame 1 has none; give them for all"):
        FaceTrack.of([None, Face(box), Face(box, np.float32(LANDMARKS))])

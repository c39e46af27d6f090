import numpy as np
import onnx
import pytest

from stableanimator_jax.errors import InputError
from stableanimator_jax.perception.dwpose import DWPose
from tests.data.clips import one_line
from tests.perception.standin_poses import DOG, GROWN, SCORES, SECOND, UNSURE, draw_person, write_models

COCO = [
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
]  # fmt: skip
OPENPOSE = [
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye",
    "right_ear", "left_ear",
]  # fmt: skip


@pytest.fixture(scope="module")
def estimator(tmp_path_factory):
    return DWPose(*write_models(tmp_path_factory.mktemp("dwpose")))


def picture(height: int, width: int):
    return np.zeros((height, width, 3), np.uint8)


def openpose(coco):
    """Ours of COCO-WholeBody's rows, by the joints' names."""
    neck = (coco[5] + coco[6]) / 2
    body = [neck if name == "neck" else coco[COCO.index(name)] for name in OPENPOSE]
    return np.concatenate([body, coco[17:]])


def assert_found(people, i: int, coco, tolerance: float = 1.0):
    np.testing.assert_allclose(people.keypoints[i], openpose(coco), atol=tolerance)
    scores = openpose(SCORES)
    scores[1] = 1
    np.testing.assert_allclose(people.scores[i], scores, atol=0.01)


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((640, 640), (200, 100, 400, 600)),
        ((512, 512), (150, 60, 310, 460)),
        ((1024, 576), (100, 200, 420, 900)),
        ((360, 900), (500, 40, 640, 320)),
        ((300, 200), (20, 30, 100, 270)),
        ((720, 1280), (300, 300, 900, 560)),  # wider than the crop's aspect
    ],
)
def test_known_keypoints_come_back(estimator, size, box):
    image = picture(*size)
    coco = draw_person(image, box)
    (people,) = estimator.people([image])
    assert (people.boxes.shape, people.keypoints.shape, people.scores.shape) == ((1, 4), (1, 134, 2), (1, 134))
    assert {a.dtype for a in (people.boxes, people.keypoints, people.scores)} == {np.dtype(np.float32)}
    np.testing.assert_allclose(people.boxes[0], box, atol=2.5 * max(1, max(size) / 640))
    bin_side = 1.25 * max((box[2] - box[0]) / 576, (box[3] - box[1]) / 768)  # finer it cannot be
    assert_found(people, 0, coco, max(1.0, bin_side))


def test_only_persons_the_surest_first(estimator):
    image = picture(600, 800)
    second = draw_person(image, (40, 50, 180, 500), SECOND)
    first = draw_person(image, (240, 80, 380, 520))
    draw_person(image, (440, 80, 560, 520), DOG)
    draw_person(image, (600, 80, 700, 520), UNSURE)
    (people,) = estimator.people([image])
    assert len(people.boxes) == 2  # and not the second boxes around each, which overlap theirs
    assert_found(people, 0, first)
    assert_found(people, 1, second)


def test_reaching_outside_of_the_image(estimator):
    """A box that ends far outside of the image: the crop is black there, and coordinates are not shifted."""
    image = picture(500, 400)
    coco = draw_person(image, (20, 30, 220, 480), GROWN)
    (people,) = estimator.people([image])
    left, top, right, bottom = people.boxes[0]
    np.testing.assert_allclose([left, top, right, bottom], [-30, -82.5, 270, 592.5], atol=4)
    assert_found(people, 0, coco)


def test_partly_visible(estimator):
    """Of a person cut by the image's edge, what is visible is where it is."""
    image = picture(500, 400)
    coco = draw_person(image, (260, -100, 460, 400))
    (people,) = estimator.people([image])
    visible = (openpose(coco)[:, 0] < 396) & (openpose(coco)[:, 1] > 4)
    visible[1] = False  # the neck of shoulders that may be outside
    assert 40 < visible.sum() < 120
    np.testing.assert_allclose(people.keypoints[0][visible], openpose(coco)[visible], atol=1.0)


def test_nobody(estimator):
    people, none = estimator.people([picture(64, 64), picture(1, 2000)])
    assert (people.boxes.shape, people.keypoints.shape, people.scores.shape) == ((0, 4), (0, 134, 2), (0, 134))
    assert len(none.boxes) == 0
    assert estimator.people([]) == []


@pytest.mark.parametrize("batch", [1, "batch"])
def test_batches(tmp_path, batch):
    """More images than a batch, of more sizes than one, with nobody or somebody: each gets its own people."""
    estimator = DWPose(*write_models(tmp_path, batch=batch))
    images, expected = [], []
    for i in range(18):
        image = picture(320 + 4 * i, 300)
        expected.append(None if i % 4 == 3 else draw_person(image, (20 + 3 * i, 40 + i, 140 + 3 * i, 300 + i)))
        images.append(image)
    found = estimator.people(images)
    assert [len(people.boxes) for people in found] == [0 if coco is None else 1 for coco in expected]
    for people, coco in zip(found, expected, strict=True):
        if coco is not None:
            assert_found(people, 0, coco)
    boxes = estimator.boxes(images)
    for people, alone in zip(found, boxes, strict=True):
        np.testing.assert_array_equal(people.boxes, alone)


@pytest.mark.parametrize("side", ["left_shoulder", "right_shoulder"])
def test_neck_needs_both_shoulders(tmp_path, monkeypatch, side):
    scores = SCORES.copy()
    scores[COCO.index(side)] = 0.25
    monkeypatch.setattr("tests.perception.standin_poses.SCORES", scores)
    estimator = DWPose(*write_models(tmp_path))
    image = picture(500, 400)
    coco = draw_person(image, (100, 50, 250, 450))
    (people,) = estimator.people([image])
    assert people.scores[0, 1] == 0
    np.testing.assert_allclose(people.keypoints[0, 1], (coco[5] + coco[6]) / 2, atol=1)


def test_score_is_the_smaller_maximum_and_none_is_a_corner(tmp_path, monkeypatch):
    """The stand-in's horizontal maxima are 0.2 larger; where one of them is not positive, there is no point."""
    scores = SCORES.copy()
    scores[60] = -0.1
    monkeypatch.setattr("tests.perception.standin_poses.SCORES", scores)
    estimator = DWPose(*write_models(tmp_path))
    image = picture(600, 600)
    draw_person(image, (200, 100, 350, 500))
    (people,) = estimator.people([image])
    assert people.scores[0, 61] <= 0
    # The crop is 1.25 times as high as the box and 3/4 as wide as that: 375x500 pixels around (275, 300), of which
    # the corner is half a crop's pixel outside.
    np.testing.assert_allclose(people.keypoints[0, 61], [275 - 187.5 - 0.65, 300 - 250 - 0.65], atol=2)


def test_providers(tmp_path):
    paths = write_models(tmp_path)
    DWPose(*paths, providers=["CPUExecutionProvider"])
    with pytest.raises(InputError, match=r"no TPUExecutionProvider, only .*CPUExecutionProvider") as error:
        DWPose(*paths, providers=["TPUExecutionProvider"])
    one_line(error)


def test_bad_files(tmp_path):
    detector, estimator = write_models(tmp_path)

    def refused(message: str, first=detector, second=estimator):
        with pytest.raises(InputError, match=message) as error:
            DWPose(first, second)
        one_line(error)
        assert "huggingface.co/yzd-v/DWPose" in str(error.value)

    refused(r"person detector .*none\.onnx does not exist; download yolox_l\.onnx", first=tmp_path / "none.onnx")
    refused(r"pose estimator .* is a directory.*dw-ll_ucoco_384\.onnx", second=tmp_path)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"<html>not found</html>")
    refused(r"broken\.onnx does not load as an ONNX model", first=broken)
    broken.write_bytes(estimator.read_bytes()[:-5000])
    refused(r"pose estimator .*broken\.onnx does not load", second=broken)
    refused(r"dw-ll_ucoco_384\.onnx has input \[batch, 3, 384, 288\] in place of \[n, 3, 640, 640\]", first=estimator)
    refused(r"yolox_l\.onnx has input", second=detector)
    model = onnx.load(estimator)
    del model.graph.output[1]
    onnx.save(model, broken)
    refused(r"output \[batch, 133, 576\] in place of \[n, 133, 576\] and \[n, 133, 768\]", second=broken)


def test_shapes_that_only_show_when_run(tmp_path):
    """An output of open size is taken on trust, and refused when it comes out wrong."""
    detector, estimator = write_models(tmp_path)
    model = onnx.load(detector)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.arange(8400) < 100, "which"))
    model.graph.node.append(onnx.helper.make_node("Compress", ["output", "which"], ["some"], axis=1))
    del model.graph.output[0]
    shape = ["batch", "rows", 85]
    model.graph.output.append(onnx.helper.make_tensor_value_info("some", onnx.TensorProto.FLOAT, shape))
    onnx.save(model, detector)
    with pytest.raises(InputError, match=r"yolox_l\.onnx has output \[1, 100, 85\] in place of \[n, 8400, 85\]"):
        DWPose(detector, estimator).boxes([picture(64, 64)])


def test_models_by_their_names_in_a_folder(tmp_path):
    write_models(tmp_path / "models")
    image = picture(300, 200)
    coco = draw_person(image, (20, 30, 100, 270))
    (people,) = DWPose.from_folder(tmp_path / "models").people([image])
    assert_found(people, 0, coco)
    with pytest.raises(InputError, match=r"nowhere is not a directory: give .*yolox_l\.onnx"):
        DWPose.from_folder(tmp_path / "nowhere")
    (tmp_path / "models" / "dw-ll_ucoco_384.onnx").unlink()
    with pytest.raises(InputError, match=r"pose estimator .*384\.onnx does not exist; download") as error:
        DWPose.from_folder(tmp_path / "models")
    one_line(error)

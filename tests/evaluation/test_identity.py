"""Faces' cosines, and what is said of them."""

import numpy as np
import onnx
import pytest
from insightface.utils.face_align import arcface_dst
from onnx import TensorProto, helper, numpy_helper

from stableanimator_jax.data.face_track import Face
from stableanimator_jax.errors import InputError
from stableanimator_jax.evaluation.identity import (
    GLINT360K_R100,
    AlignedRecogniser,
    aligned_face,
    circular,
    cosines,
    drift,
    mean_face,
    onnx_recogniser,
    same_network,
)


class Corner:
    """Finds a face whose five points are ArcFace's own, at the top left, unless the picture is black."""

    def detect(self, image):
        return Face(np.array([0, 0, 111, 111], np.float32), arcface_dst.copy()) if image.any() else None


def picture(*colour):
    return np.broadcast_to(np.array(colour, np.uint8), (150, 140, 3)).copy()


def test_a_face_at_its_place_is_not_moved():
    image = np.random.default_rng(0).integers(0, 256, (150, 140, 3), dtype=np.uint8)
    np.testing.assert_allclose(
        aligned_face(image, arcface_dst), image[:112, :112].astype(np.float32) / 127.5 - 1, atol=1e-6
    )


def test_only_faces_that_are_found_are_embedded():
    seen = []

    def network(faces):
        seen.append(faces.shape)
        return faces.mean(axis=(1, 2))

    recogniser = AlignedRecogniser(Corner(), network)
    found = recogniser.embeddings([picture(255, 0, 0), picture(0, 0, 0), picture(0, 255, 255)])
    assert seen == [(2, 112, 112, 3)]
    np.testing.assert_allclose(found[0], [1, -1, -1], atol=1e-5)
    assert found[1] is None
    np.testing.assert_allclose(found[2], [-1, 1, 1], atol=1e-5)
    assert recogniser.embeddings([picture(0, 0, 0)]) == [None]


@pytest.fixture
def colour_network(tmp_path):
    """An ONNX network whose embedding begins with the mean of its three channels."""
    weight = np.zeros((3, 512), np.float32)
    weight[:, :3] = np.eye(3)
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 112, 112])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 512])]
    graph = helper.make_graph(nodes, "colour", inputs, outputs, [numpy_helper.from_array(weight, "weight")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, tmp_path / "colour.onnx")
    return tmp_path / "colour.onnx"


@pytest.mark.parametrize(("channels", "expected"), [("rgb", [1, 0, -1]), ("bgr", [-1, 0, 1])])
def test_an_onnx_network_is_given_its_order_of_channels(colour_network, channels, expected):
    recogniser = onnx_recogniser(colour_network, Corner(), channels=channels, providers=["CPUExecutionProvider"])
    (found,) = recogniser.embeddings([picture(255, 128, 0)])
    assert found.shape == (512,)
    np.testing.assert_allclose(found[:3], expected, atol=0.01)


def test_another_onnx_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="buffalo_l"):
        onnx_recogniser(tmp_path / "missing.onnx", Corner())


def test_missing_faces_count_as_the_protocol_says():
    x, y = np.array([3, 0], np.float32), np.array([1, 1], np.float32)
    np.testing.assert_allclose(cosines([x, None, x], [y, y, None], 0.0), [np.sqrt(0.5), 0, np.nan])
    np.testing.assert_allclose(cosines([x, None], [-x, y], np.nan), [-1, np.nan])
    np.testing.assert_allclose(mean_face([x, None, np.array([0, 9], np.float32)]), [np.sqrt(0.5)] * 2)
    assert mean_face([None]) is None


def test_drift_is_a_slope_and_a_change():
    curve = 0.9 - 0.002 * np.arange(40.0)
    curve[[5, 17]] = np.nan
    found = drift(curve)
    assert found.slope == pytest.approx(-0.2)
    known = curve[np.isfinite(curve)]
    assert found.change == pytest.approx(known[-9:].mean() - known[:9].mean())
    assert drift(curve[:7]) is None


def test_the_judge_must_be_another():
    assert circular(["ab"], ["cd"]) is None
    assert "circular" in circular(["ab", "cd"], ["cd"])
    assert "circular" in circular([GLINT360K_R100])


def test_the_same_network_is_known_however_it_is_stored(colour_network):
    def colours(faces):
        return np.pad(faces.mean(axis=(1, 2)), ((0, 0), (0, 509)))

    stored = onnx_recogniser(colour_network, Corner(), providers=["CPUExecutionProvider"]).network
    assert same_network(stored, colours)
    assert not same_network(stored, lambda faces: colours(faces)[:, ::-1])
    assert not same_network(stored, lambda faces: colours(faces)[:, :3])

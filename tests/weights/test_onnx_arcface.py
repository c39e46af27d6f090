"""Files that are no ArcFace in ONNX's format."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from stableanimator_jax.errors import InputError
from stableanimator_jax.weights.onnx_arcface import infer_arcface_config, read_onnx_arcface


def graph(nodes: list, inputs: int = 1) -> onnx.ModelProto:
    def value(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, 112, 112])

    return helper.make_model(helper.make_graph(nodes, "g", [value(f"x{i}") for i in range(inputs)], [value("y")]))


def constant(name: str, *shape: int) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=onnx.numpy_helper.from_array(np.ones(shape, np.float32)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"arcface.onnx is empty \(0 bytes\)"),
        (b"no graph at all", "arcface.onnx is not an ONNX file, or is damaged"),
        (graph([helper.make_node("Relu", ["x0"], ["y"])]), "not an ArcFace IResNet: Relu .* where Conv is expected"),
        (graph([helper.make_node("Add", ["x0", "x1"], ["y"])], 2), "it has 2 inputs and 1 outputs, not one of each"),
        (graph([helper.make_node("Conv", ["x0", "w"], ["y"])]), "input 1 of Conv 'y' is not a weight"),
        (
            graph([constant("w", 4, 3, 3, 3), helper.make_node("Conv", ["x0", "w"], ["y"], pads=[1] * 4)]),
            r"Conv 'y' \(conv1\) has neither a bias nor a batch norm after it",
        ),
        (
            graph([constant("w", 4, 3, 5, 5), helper.make_node("Conv", ["x0", "w"], ["y"], pads=[1] * 4)]),
            r"Conv 'y' \(conv1\) has kernel_shape \[5, 5\], not \[3, 3\]",
        ),
    ],
)
def test_other_files_are_refused_in_one_line(content: bytes | onnx.ModelProto, message: str, tmp_path: Path):
    path = tmp_path / "arcface.onnx"
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    with pytest.raises(InputError, match=message) as caught:
        read_onnx_arcface(path)
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(InputError, match=r"arcface.onnx does not exist"):
        read_onnx_arcface(tmp_path / "arcface.onnx")


def test_no_configuration_is_made_up():
    with pytest.raises(InputError, match="lacks layer1 to layer4 or fc"):
        infer_arcface_config({"conv1.weight": (64, 3, 3, 3)})

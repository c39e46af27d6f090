"""ONNX models in the shapes of SCRFD and ArcFace whose answers are known, in place of InsightFace's.

The detector sees a face wherever a cell of 32 pixels is red: the redder, the larger the face and the lower its
score. The recogniser's embedding begins with the mean colour, in [-1, 1], of the aligned face's four quadrants.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CELL = 32
# Where ArcFace wants the eyes, the nose and the mouth's corners in its 112 pixels (InsightFace's face_align).
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float32
)


def half_size(red: float) -> float:
    """Half the side of the box around a cell whose other channels are 0, in pixels; `red` in [0, 255]."""
    return 1.5 * CELL * ((red - 127.5) / 128 + 2 * 127.5 / 128 - 1) / 2


def write_models(folder: Path, *, detector: bool = True, recogniser: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if detector:
        onnx.save(_detector(), folder / "scrfd_standin.onnx")
    if recogniser:
        onnx.save(_recogniser(), folder / "glintr_standin.onnx")
    return folder


def _constants(**arrays: np.ndarray) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(array, name) for name, array in arrays.items()]


def _detector() -> onnx.ModelProto:
    """SCRFD with landmarks: strides 8, 16 and 32, two anchors a cell; distances in strides from a cell's corner."""
    # Each output holds both anchors of each cell; the second is never a face.
    centred = (TEMPLATE / 112 - 0.5) * 2  # of the box's half
    constants = _constants(
        redness=np.array([1, -1, -1], np.float32).reshape(1, 3, 1, 1),
        offset=np.array([-1], np.float32),
        half=np.array([0.5], np.float32),
        threshold=np.array([0.3], np.float32),
        fade=np.array([-0.3], np.float32),
        best=np.array([0.95], np.float32),
        scale=np.array([1.5], np.float32),
        middle=np.array([[-0.5, -0.5, 0.5, 0.5]], np.float32),
        sides=np.ones((1, 4), np.float32),
        points=centred.reshape(1, 10),
        column=np.array([-1, 1], np.int64),
        scores_shape=np.array([-1, 1], np.int64),
        boxes_shape=np.array([-1, 4], np.int64),
        points_shape=np.array([-1, 10], np.int64),
        zero=np.array([0], np.float32),
    )
    nodes, outputs = [], {"score": [], "bbox": [], "kps": []}

    def add(kind: str, inputs: list[str], output: str, **attributes) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], name=f"node_{output}", **attributes))
        return output

    for stride in (8, 16, 32):
        s = f"_{stride}"
        pooled = add("AveragePool", ["image"], "pooled" + s, kernel_shape=[stride] * 2, strides=[stride] * 2)
        redness = add("Conv", [pooled, "redness"], "raw" + s)
        redness = add("Add", [redness, "offset"], "shifted" + s)
        redness = add("Mul", [redness, "half"], "red" + s)
        rows = add("Transpose", [redness], "rows" + s, perm=[0, 2, 3, 1])
        rows = add("Reshape", [rows, "column"], "column" + s)  # [cells, 1]
        seen = add("Cast", [add("Greater", [rows, "threshold"], "over" + s)], "seen" + s, to=TensorProto.FLOAT)
        score = add("Add", [add("Mul", [rows, "fade"], "faded" + s), "best"], "confidence" + s)
        score = add("Mul", [score, seen], "masked" + s)
        none = add("Mul", [score, "zero"], "none" + s)
        score = score if stride == CELL else none
        pair = add("Concat", [score, none], "pair" + s, axis=1)
        outputs["score"].append(add("Reshape", [pair, "scores_shape"], "score" + s))

        extent = add("Mul", [rows, "scale"], "extent" + s)
        box = add("Add", [add("Mul", [extent, "sides"], "box" + s), "middle"], "placed" + s)
        pair = add("Concat", [box, box], "boxes" + s, axis=1)
        outputs["bbox"].append(add("Reshape", [pair, "boxes_shape"], "bbox" + s))

        points = add("Add", [add("Mul", [extent, "points"], "spread" + s), "half"], "moved" + s)
        pair = add("Concat", [points, points], "all_points" + s, axis=1)
        outputs["kps"].append(add("Reshape", [pair, "points_shape"], "kps" + s))

    size = {"score": 1, "bbox": 4, "kps": 10}
    return _model(
        nodes,
        helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, "height", "width"]),
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, size[kind]])
            for kind, names in outputs.items()
            for name in names
        ],
        constants,
    )


def _recogniser() -> onnx.ModelProto:
    nodes = [
        helper.make_node("AveragePool", ["face"], ["quadrants"], kernel_shape=[56, 56], strides=[56, 56]),
        helper.make_node("Transpose", ["quadrants"], ["colours"], perm=[0, 2, 3, 1]),
        helper.make_node("Flatten", ["colours"], ["flat"]),
        helper.make_node("MatMul", ["flat", "spread"], ["embedding"]),
    ]
    return _model(
        nodes,
        helper.make_tensor_value_info("face", TensorProto.FLOAT, [None, 3, 112, 112]),
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [None, 512])],
        _constants(spread=np.eye(12, 512, dtype=np.float32)),
    )


def _model(nodes, image, outputs, constants) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "standin", [image], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model

"""ONNX models in the shapes of DWPose's two whose answers are known, and pictures of the people they see.

A person is a rectangle whose blue is a code out of `CODES` and says what the detector takes it for. Red and green
are ramps from the rectangle's left and top, by which the estimator finds the keypoints: each at a share of the
rectangle's width and height. Ramps are dithered, so that their means over a column or row are finer than a level.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE, WIDTH, HEIGHT = 640, 288, 384
ROWS = 8400
LOW, HIGH = 20.0, 220.0  # of the ramps


@dataclass(frozen=True)
class Kind:
    """What the detector sees in a rectangle of one blue."""

    blue: int
    confidence: float
    label: int = 0
    grown: float = 1.0
    """The box's size over the rectangle's."""


PERSON, SECOND, UNSURE = Kind(250, 0.9), Kind(210, 0.8), Kind(170, 0.29)
GROWN, DOG = Kind(130, 0.7, grown=1.5), Kind(90, 0.95, label=16)
CODES = (PERSON, SECOND, UNSURE, GROWN, DOG)

_RANDOM = np.random.default_rng(7)
SHARES = _RANDOM.uniform(0.05, 0.95, (133, 2)).astype(np.float32)
"""Where in the rectangle each of COCO-WholeBody's keypoints is, (x, y)."""
SCORES = _RANDOM.uniform(0.35, 0.95, 133).astype(np.float32)
SCORES[20:30] = 0.1


def draw_person(image: np.ndarray, box: tuple[int, int, int, int], kind: Kind = PERSON) -> np.ndarray:
    """Draw into an RGB image; the box (left, top, right, bottom) may reach outside. Gives COCO's keypoints [133, 2]."""
    left, top, right, bottom = box
    x, y = np.arange(left, right), np.arange(top, bottom)
    dither = (np.arange(4096) * 0.61803) % 1
    red = LOW + (HIGH - LOW) * (x - left) / (right - left)
    green = LOW + (HIGH - LOW) * (y - top) / (bottom - top)
    person = np.empty((len(y), len(x), 3), np.uint8)
    person[..., 0] = np.floor(red[None] + dither[: len(y), None])
    person[..., 1] = np.floor(green[:, None] + dither[None, : len(x)])
    person[..., 2] = kind.blue
    inside_y, inside_x = (y >= 0) & (y < image.shape[0]), (x >= 0) & (x < image.shape[1])
    image[np.ix_(y[inside_y], x[inside_x])] = person[np.ix_(inside_y, inside_x)]
    return np.array([left, top]) + SHARES * np.array([right - left, bottom - top])


def write_models(folder: Path, *, batch: int | str = "batch") -> tuple[Path, Path]:
    """The detector and the estimator; `batch` is the size of their first dimension, or its name where it is open."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "yolox_l.onnx", folder / "dw-ll_ucoco_384.onnx"
    onnx.save(_detector(batch), paths[0])
    onnx.save(_estimator(batch), paths[1])
    return paths


class _Graph:
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value) -> str:
        array = np.asarray(value)
        array = array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
        self.constants.append(numpy_helper.from_array(array, f"constant_{len(self.constants)}"))
        return self.constants[-1].name

    def add(self, kind: str, *inputs, output: str | None = None, **attributes) -> str:
        """A node; inputs that are no names are constants."""
        names = [i if isinstance(i, str) else self.constant(i) for i in inputs]
        output = output or f"value_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, names, [output], **attributes))
        return output

    def near(self, value: str, target, distance: float) -> str:
        """1 where a value is within a distance of another, else 0."""
        close = self.add("Less", self.add("Abs", self.add("Sub", value, target)), float(distance))
        return self.add("Cast", close, to=TensorProto.FLOAT)

    def channel(self, image: str, index: int) -> str:
        return self.add("Slice", image, [index], [index + 1], [1])

    def model(self, image: list, outputs: dict[str, list]) -> onnx.ModelProto:
        def info(name: str, shape: list):
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

        name, shape = image
        results = [info(name, shape) for name, shape in outputs.items()]
        graph = helper.make_graph(self.nodes, "standin", [info(name, shape)], results, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        return model


def _detector(batch: int | str) -> onnx.ModelProto:
    """YOLOX on BGR in [0, 255]: for each kind two predictions that overlap, of which the second is less sure."""
    g = _Graph()
    blue = g.channel("images", 0)
    ramp = np.arange(SIDE, dtype=np.float32)
    rows, where = [], []
    for i, kind in enumerate(CODES):
        mask = g.near(blue, float(kind.blue), 6)
        # Lines of blended colour between a rectangle and what is around it are thinner than half of this window.
        share = g.add("AveragePool", mask, kernel_shape=[7, 7], pads=[3] * 4, count_include_pad=0)
        mask = g.add("Cast", g.add("Greater", share, 0.5), to=TensorProto.FLOAT)
        first, size = [], []
        for other in (2, 3):
            profile = g.add("ReduceMax", mask, axes=[1, other], keepdims=0)  # [n, 640]
            last = g.add("ReduceMax", g.add("Mul", profile, ramp + 1), axes=[1], keepdims=1)
            left = g.add("ReduceMax", g.add("Mul", profile, SIDE - ramp), axes=[1], keepdims=1)
            left = g.add("Sub", float(SIDE), left)
            size.append(g.add("Max", g.add("Sub", last, left), 1.0))
            first.append(g.add("Mul", g.add("Add", left, last), 0.5))
        seen = g.add("ReduceMax", mask, axes=[1, 2, 3], keepdims=0)
        seen = g.add("Reshape", seen, [-1, 1])
        for shift, certainty in ((0.0, 1.0), (4.0, 0.9)):
            # One row in the grid of each stride in turn, at a cell that is not where the person is.
            stride = (8, 16, 32)[(2 * i + (shift > 0)) % 3]
            start = {8: 0, 16: 6400, 32: 8000}[stride]
            cell = np.array([3 + i, 5]) if stride != 32 else np.array([2 + i, 1])
            where.append(start + int(cell[1]) * (SIDE // stride) + int(cell[0]))
            centre = g.add("Concat", *first, axis=1)  # [n, 2]
            centre = g.add("Sub", g.add("Div", g.add("Add", centre, shift), float(stride)), cell.astype(np.float32))
            extent = g.add("Log", g.add("Mul", g.add("Concat", *size, axis=1), kind.grown / stride))
            classes = np.zeros((1, 80), np.float32)
            classes[0, kind.label] = kind.confidence * certainty
            classes[0, (kind.label + 5) % 80] = 0.2
            classes = g.add("Mul", seen, classes)
            rows.append(g.add("Concat", centre, extent, seen, classes, axis=1))
    stacked = g.add("Concat", *[g.add("Unsqueeze", row, [1]) for row in rows], axis=1)  # [n, k, 85]
    place = np.zeros((ROWS, len(rows)), np.float32)
    place[where, np.arange(len(rows))] = 1
    g.add("MatMul", place, stacked, output="output")
    return g.model(["images", [batch, 3, SIDE, SIDE]], {"output": [batch, ROWS, 85]})


def _estimator(batch: int | str) -> onnx.ModelProto:
    """SimCC on normalised RGB: of the rectangle in the crop's middle, where the ramps have each keypoint's level."""
    g = _Graph()
    mean = np.array([123.675, 116.28, 103.53], np.float32).reshape(1, 3, 1, 1)
    std = np.array([58.395, 57.12, 57.375], np.float32).reshape(1, 3, 1, 1)
    pixels = g.add("Add", g.add("Mul", "input", std), mean)
    blue = g.channel(pixels, 2)
    middle = g.add("Slice", blue, [HEIGHT // 2, WIDTH // 2], [HEIGHT // 2 + 1, WIDTH // 2 + 1], [2, 3])
    mask = g.near(blue, middle, 6)
    levels = LOW + (HIGH - LOW) * SHARES
    for name, channel, side, other, axis in (("simcc_x", 0, WIDTH, 2, 0), ("simcc_y", 1, HEIGHT, 3, 1)):
        total = g.add("ReduceSum", g.add("Mul", mask, g.channel(pixels, channel)), [1, other], keepdims=0)
        count = g.add("ReduceSum", mask, [1, other], keepdims=0)  # [n, side]
        level = g.add("Div", total, g.add("Max", count, 1.0))
        # A column with little of the rectangle in it is outside.
        missing = g.add("Cast", g.add("Less", count, 8.0), to=TensorProto.FLOAT)
        level = g.add("Sub", level, g.add("Mul", missing, 1000.0))
        # Two bins a pixel: its own level, and the mean with the next one's.
        bins = np.zeros((side, 2 * side), np.float32)
        for i in range(side):
            bins[i, 2 * i] = 1
            bins[i, 2 * i + 1] += 0.5
            bins[min(i + 1, side - 1), 2 * i + 1] += 0.5
        level = g.add("Unsqueeze", g.add("MatMul", level, bins), [1])  # [n, 1, bins]
        distance = g.add("Abs", g.add("Sub", level, levels[:, axis].reshape(1, 133, 1)))
        peak = g.add("Sub", 1.0, g.add("Min", g.add("Mul", distance, 1 / 255), 1.0))
        # The vertical axis' maximum is the keypoint's score, and the other's is larger.
        scores = SCORES + (0.2 if axis == 0 else 0.0)
        g.add("Mul", peak, scores.reshape(1, 133, 1), output=name)
    return g.model(
        ["input", [batch, 3, HEIGHT, WIDTH]],
        {"simcc_x": [batch, 133, 2 * WIDTH], "simcc_y": [batch, 133, 2 * HEIGHT]},
    )

"""ArcFace from an ONNX graph: the layers are told by walking the graph from its input, never by their names.

Exporters fold a batch norm into the convolution (or linear layer) before it and call what is left "685" or so. Here
such a batch norm comes back as one that does nothing but add the folded bias, exactly: scale 1, mean 0, and the
variance that with the epsilon of 1e-5 is 1 in float32.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from stableanimator_jax.config import ArcFaceConfig
from stableanimator_jax.errors import InputError, first_line
from stableanimator_jax.files import require_file
from stableanimator_jax.weights.rules import Shape

_EPS = 1e-5
_NEUTRAL_VARIANCE = np.float32(1) - np.float32(_EPS)
_PASS_THROUGH = ("Identity", "Dropout", "Cast")


def read_onnx_arcface(path: Path) -> dict[str, np.ndarray]:
    """An IResNet's weights under the names of the published PyTorch file.

    Raises:
        InputError: the file is not an ONNX model, or its graph is not an IResNet; the message names the node.
    """
    import onnx

    require_file(path, "ONNX file")
    try:
        graph = onnx.load(str(path)).graph
    except Exception as e:  # protobuf's DecodeError, onnx's own on missing external data, ...
        raise InputError(
            f"{path} is not an ONNX file, or is damaged ({first_line(e)}): copy or download it again"
        ) from e
    try:
        return _IResNetWalk(graph).state_dict()
    except InputError as e:
        raise InputError(f"{path} is not an ArcFace IResNet: {e}") from e


def infer_arcface_config(shapes: dict[str, Shape]) -> ArcFaceConfig:
    """Which IResNet a state dict of ArcFace's holds, by its keys and shapes; the table then checks every one of them.

    Raises:
        InputError: it is none.
    """
    stages = [f"layer{n}" for n in (1, 2, 3, 4)]
    layers = tuple(len({key.split(".")[1] for key in shapes if key.startswith(f"{stage}.")}) for stage in stages)
    first = [shapes.get(f"{stage}.0.conv2.weight", ()) for stage in stages]
    embedding = shapes.get("fc.weight", ())
    if not all(layers) or not all(len(shape) == 4 for shape in first) or len(embedding) != 2:
        raise InputError("this is not an ArcFace IResNet: it lacks layer1 to layer4 or fc")
    return ArcFaceConfig(layers=layers, widths=tuple(shape[0] for shape in first), embedding_dim=embedding[0])


class _IResNetWalk:
    """Follows the graph from image to embedding and collects weights on the way."""

    def __init__(self, graph: Any):
        from onnx import numpy_helper

        self._constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self._consumers: dict[str, list[Any]] = defaultdict(list)
        for node in graph.node:
            if not self._fold(node):
                for name in node.input:
                    if name and name not in self._constants:
                        self._consumers[name].append(node)
        inputs = [i.name for i in graph.input if i.name not in self._constants]
        if len(inputs) != 1 or len(graph.output) != 1:
            raise InputError(f"it has {len(inputs)} inputs and {len(graph.output)} outputs, not one of each")
        self._input = inputs[0]
        self._found: dict[str, np.ndarray] = {}

    def _fold(self, node: Any) -> bool:
        """Whether `node` only hands weights on; its output then counts as one."""
        from onnx import numpy_helper

        attributes = {a.name: a for a in node.attribute}
        if node.op_type == "Constant" and "value" in attributes:
            self._constants[node.output[0]] = numpy_helper.to_array(attributes["value"].t)
            return True
        if not node.input or any(name and name not in self._constants for name in node.input):
            return False
        value = self._constants[node.input[0]]
        if node.op_type == "Unsqueeze":  # of a PReLU's slopes, whose other axes do not matter
            value = value.reshape(*value.shape, 1, 1)
        elif node.op_type == "Transpose" and value.ndim == 2:
            value = value.T
        elif node.op_type != "Identity":
            return False
        self._constants[node.output[0]] = value
        return True

    def state_dict(self) -> dict[str, np.ndarray]:
        x = self._convolution(self._input, "conv1", "bn1", kernel=3)
        x = self._prelu(x, "prelu")
        stage, block = 0, 0
        while len(self._next(x)) == 2:  # a block: what is inside it, and its shortcut
            starts_stage = any(node.op_type == "Conv" for node in self._next(x))
            stage, block = (stage + 1, 0) if starts_stage else (stage, block + 1)
            if not 1 <= stage <= 4:
                raise InputError(f"it has no four stages: a block where stage {stage} would be, at {x!r}")
            x = self._block(x, f"layer{stage}.{block}", stride=2 if starts_stage else 1)
        if stage != 4:
            raise InputError(f"it has {stage} stages, not 4; after them comes {self._describe(x)}")
        x = self._batch_norm(x, "bn2")
        x = self._linear(self._only(x, "Flatten", "Reshape").output[0])
        if self._next(x):
            x = self._batch_norm(x, "features")
        else:
            self._neutral_batch_norm("features", self._found["fc.bias"].shape[0])
        if self._next(x):
            raise InputError(f"its embedding is not its output: after it comes {self._describe(x)}")
        return self._found

    def _block(self, x: str, name: str, *, stride: int) -> str:
        inside, beside = sorted(self._next(x), key=lambda node: node.op_type != "BatchNormalization")
        y = self._batch_norm(x, f"{name}.bn1", node=inside)
        y = self._convolution(y, f"{name}.conv1", f"{name}.bn2", kernel=3)
        y = self._prelu(y, f"{name}.prelu")
        y = self._convolution(y, f"{name}.conv2", f"{name}.bn3", kernel=3, stride=stride)
        if beside.op_type == "Conv":
            shortcut = f"{name}.downsample"
            x = self._convolution(x, f"{shortcut}.0", f"{shortcut}.1", kernel=1, stride=stride, node=beside)
        total = self._only(y, "Add")
        if sorted(total.input) != sorted((x, y)):
            raise InputError(f"{_label(total)} does not add block {name} to its shortcut")
        return total.output[0]

    def _convolution(self, x: str, name: str, bn: str, *, kernel: int, stride: int = 1, node: Any = None) -> str:
        """A convolution and the batch norm after it, be that still there or folded."""
        node = node or self._only(x, "Conv")
        weight = self._weight(node, 1)
        always = {"dilations": [1, 1], "group": 1}
        expected = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4, **always}
        given = _attributes(node)
        stated = {"kernel_shape": list(weight.shape[2:]), "strides": [1, 1], "pads": [0] * 4, **always, **given}
        for field, value in expected.items():
            if (found := stated[field]) != value:
                raise InputError(f"{_label(node)} ({name}) has {field} {found}, not {value}")
        if given.get("auto_pad", b"NOTSET") not in (b"NOTSET", b""):
            raise InputError(f"{_label(node)} ({name}) has auto_pad {given['auto_pad'].decode()}, not explicit pads")
        self._found[f"{name}.weight"] = weight
        bias = self._weight(node, 2) if len(node.input) > 2 and node.input[2] else None
        y = node.output[0]
        if [n.op_type for n in self._next(y)] == ["BatchNormalization"]:
            y = self._batch_norm(y, bn)
            if bias is not None:  # x + bias - mean = x - (mean - bias)
                self._found[f"{bn}.running_mean"] = self._found[f"{bn}.running_mean"] - bias
        elif bias is None:
            raise InputError(f"{_label(node)} ({name}) has neither a bias nor a batch norm after it")
        else:
            self._neutral_batch_norm(bn, weight.shape[0])
            self._found[f"{bn}.bias"] = bias
        return y

    def _batch_norm(self, x: str, name: str, node: Any = None) -> str:
        node = node or self._only(x, "BatchNormalization")
        if node.op_type != "BatchNormalization":
            raise InputError(f"{_label(node)} where a batch norm ({name}) is expected")
        epsilon = _attributes(node).get("epsilon", _EPS)
        if not np.isclose(epsilon, _EPS, rtol=1e-3):
            raise InputError(f"{_label(node)} ({name}) has epsilon {epsilon:g}, not {_EPS:g}")
        for i, leaf in enumerate(("weight", "bias", "running_mean", "running_var"), 1):
            self._found[f"{name}.{leaf}"] = self._weight(node, i)
        return node.output[0]

    def _neutral_batch_norm(self, name: str, width: int) -> None:
        for leaf, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", _NEUTRAL_VARIANCE)):
            self._found[f"{name}.{leaf}"] = np.full(width, value, np.float32)

    def _prelu(self, x: str, name: str) -> str:
        node = self._only(x, "PRelu")
        self._found[f"{name}.weight"] = self._weight(node, 1).reshape(-1)
        return node.output[0]

    def _linear(self, x: str) -> str:
        node = self._only(x, "Gemm", "MatMul")
        weight, given = self._weight(node, 1), _attributes(node)
        if given.get("alpha", 1) != 1 or given.get("beta", 1) != 1 or given.get("transA", 0):
            raise InputError(f"{_label(node)} (fc) scales or transposes its input")
        self._found["fc.weight"] = weight if given.get("transB", 0) else np.ascontiguousarray(weight.T)
        if node.op_type == "Gemm":
            has_bias = len(node.input) > 2
            self._found["fc.bias"] = self._weight(node, 2) if has_bias else np.zeros(weight.shape[0], np.float32)
            return node.output[0]
        total = self._only(node.output[0], "Add")
        self._found["fc.bias"] = self._weight(total, next(i for i, n in enumerate(total.input) if n != node.output[0]))
        return total.output[0]

    def _next(self, x: str) -> list[Any]:
        """What takes `x`, past nodes that change nothing."""
        nodes = []
        for node in self._consumers[x]:
            nodes += self._next(node.output[0]) if node.op_type in _PASS_THROUGH else [node]
        return nodes

    def _only(self, x: str, *kinds: str) -> Any:
        nodes = self._next(x)
        if len(nodes) != 1 or nodes[0].op_type not in kinds:
            raise InputError(f"{self._describe(x)} where {' or '.join(kinds)} is expected, after {x!r}")
        return nodes[0]

    def _describe(self, x: str) -> str:
        return " and ".join(_label(node) for node in self._next(x)) or "nothing"

    def _weight(self, node: Any, index: int) -> np.ndarray:
        name = node.input[index] if index < len(node.input) else ""
        if name not in self._constants:
            raise InputError(f"input {index} of {_label(node)} is not a weight")
        return self._constants[name]


def _attributes(node: Any) -> dict[str, Any]:
    from onnx import helper

    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _label(node: Any) -> str:
    return f"{node.op_type} {node.name or node.output[0]!r}"

"""ArcFace from graphs that torch exports, with batch norms folded and not; onnxruntime is the judge."""

import io
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest

from stableanimator_jax.config import ArcFaceConfig
from stableanimator_jax.errors import InputError
from stableanimator_jax.models.arcface import ArcFace
from stableanimator_jax.models.functional import Blueprint, Model
from stableanimator_jax.models.layers import Precision
from stableanimator_jax.weights.checkpoint import describe, load_params
from stableanimator_jax.weights.importing import import_weights
from stableanimator_jax.weights.onnx_arcface import infer_arcface_config, read_onnx_arcface

torch = pytest.importorskip("torch")
from tests.models.test_arcface_parity import randomise, torch_iresnet  # noqa: E402

pytestmark = pytest.mark.parity

CONFIGS = [
    ArcFaceConfig(layers=(1, 1, 1, 1), widths=(8, 12, 16, 24), embedding_dim=512),
    ArcFaceConfig(layers=(2, 1, 3, 2), widths=(4, 4, 10, 8), embedding_dim=512),
]


def network(config: ArcFaceConfig):
    torch.manual_seed(sum(config.layers))
    net = torch_iresnet(config)
    randomise(net)
    return net.eval()


def write_onnx(path: Path, net, *, folded: bool) -> None:
    """As torch's own exporter writes it: in eval mode it folds batch norms into the convolutions before them."""
    training = torch.onnx.TrainingMode.EVAL if folded else torch.onnx.TrainingMode.PRESERVE
    data = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this exporter is the one that folds, and is deprecated
        torch.onnx.export(
            net,
            (torch.zeros(1, 3, 112, 112),),
            data,
            dynamo=False,
            training=training,
            do_constant_folding=folded,
            dynamic_axes={"input": {0: "n"}},
            input_names=["input"],
        )
    path.write_bytes(data.getvalue())


def number_the_weights(path: Path) -> None:
    """Names as glintr100.onnx has them: numbers, and nodes without any."""
    model = onnx.load(str(path))
    names = {tensor.name: str(685 + i) for i, tensor in enumerate(model.graph.initializer)}
    for tensor in model.graph.initializer:
        tensor.name = names[tensor.name]
    for node in model.graph.node:
        node.name = ""
        for i, name in enumerate(node.input):
            node.input[i] = names.get(name, name)
    onnx.save(model, str(path))


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(str(path)).graph.node]


def onnxruntimes_embeddings(path: Path, faces: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"input": faces})[0])


def embed(checkpoint: Path, faces: np.ndarray) -> np.ndarray:
    blueprint = Blueprint(ArcFace, describe(checkpoint).config.arcface, Precision())
    model = Model(load_params(checkpoint, "arcface", blueprint.abstract_params()), blueprint)
    return np.asarray(jax.jit(lambda m, x: m.module()(x))(model, jnp.asarray(faces.transpose(0, 2, 3, 1))))


@pytest.mark.parametrize("folded", [True, False], ids=["folded", "unfolded"])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: str(config.layers))
def test_embeddings_equal_onnxruntimes(config: ArcFaceConfig, folded: bool, tmp_path: Path):
    path = tmp_path / "glintr100.onnx"
    write_onnx(path, network(config), folded=folded)
    number_the_weights(path)
    blocks = sum(config.layers)
    # Unfolded: three a block, one a shortcut, stem, head, features. Folded: a block's first, head, features.
    assert operators(path).count("BatchNormalization") == (blocks + 2 if folded else 3 * blocks + 4 + 3)

    import_weights(tmp_path / "checkpoint", arcface=str(path))
    assert describe(tmp_path / "checkpoint").config.arcface == config
    faces = np.random.default_rng(0).uniform(-1, 1, (3, 3, 112, 112)).astype(np.float32)
    expected = onnxruntimes_embeddings(path, faces)
    found = embed(tmp_path / "checkpoint", faces)
    assert np.linalg.norm(found - expected) <= 1e-4 * np.linalg.norm(expected)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_an_unfolded_graph_holds_the_very_weights(tmp_path: Path):
    net = network(CONFIGS[0])
    write_onnx(tmp_path / "a.onnx", net, folded=False)
    weights = read_onnx_arcface(tmp_path / "a.onnx")
    expected = {k: v.numpy() for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert weights.keys() == expected.keys()
    for key, array in expected.items():
        np.testing.assert_array_equal(weights[key], array, strict=True)
    assert infer_arcface_config({k: v.shape for k, v in weights.items()}) == CONFIGS[0]


def test_a_folded_batch_norm_adds_its_bias_exactly(tmp_path: Path):
    write_onnx(tmp_path / "a.onnx", network(CONFIGS[0]), folded=True)
    weights = read_onnx_arcface(tmp_path / "a.onnx")
    folded = {k.removesuffix(".running_mean") for k in weights if k.endswith("running_mean") and not weights[k].any()}
    assert {"bn1", "layer1.0.bn2", "layer1.0.bn3", "layer4.0.downsample.1"} <= folded
    assert not folded & {"layer1.0.bn1", "bn2", "features"}
    for name in folded:
        assert (weights[f"{name}.weight"] == 1).all()
        # Exactly one in float32, so that nothing is scaled.
        assert (weights[f"{name}.running_var"] + np.float32(1e-5) == 1).all()
        assert weights[f"{name}.bias"].any()


class Plain(torch.nn.Module):
    """Some other network."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.act = torch.nn.ReLU()

    def forward(self, x):
        return self.act(self.conv(x))


def test_another_network_is_refused_by_the_node_that_differs(tmp_path: Path):
    write_onnx(tmp_path / "other.onnx", Plain().eval(), folded=True)
    with pytest.raises(InputError, match=r"other.onnx is not an ArcFace IResNet: Relu .* where PRelu is expected"):
        import_weights(tmp_path / "checkpoint", arcface=str(tmp_path / "other.onnx"))
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda graph: _set(graph, "Conv", "strides", [1, 1]), r"has strides \[1, 1\], not \[2, 2\]"),
        (lambda graph: _set(graph, "Conv", "pads", [0, 0, 0, 0]), r"has pads \[0, 0, 0, 0\], not \[1, 1, 1, 1\]"),
        (lambda graph: _set(graph, "BatchNormalization", "epsilon", 1e-3), "has epsilon 0.001, not 1e-05"),
    ],
)
def test_another_arithmetic_is_refused(change, message: str, tmp_path: Path):
    path = tmp_path / "changed.onnx"
    write_onnx(path, network(CONFIGS[0]), folded=False)
    model = onnx.load(str(path))
    change(model.graph)
    onnx.save(model, str(path))
    with pytest.raises(InputError, match=message):
        read_onnx_arcface(path)


def _set(graph, kind: str, attribute: str, value) -> None:
    """Change every such attribute that says something else."""
    for node in graph.node:
        if node.op_type == kind:
            for a in list(node.attribute):
                if a.name == attribute:
                    node.attribute.remove(a)
            node.attribute.append(onnx.helper.make_attribute(attribute, value))


def test_a_last_batch_norm_folded_into_the_linear_layer(tmp_path: Path):
    net = network(CONFIGS[0])
    net.features = torch.nn.Identity()  # what folding leaves of it
    path = tmp_path / "headless.onnx"
    write_onnx(path, net, folded=True)
    assert operators(path)[-1] == "Gemm"
    import_weights(tmp_path / "checkpoint", arcface=str(path))
    faces = np.random.default_rng(0).uniform(-1, 1, (2, 3, 112, 112)).astype(np.float32)
    expected = onnxruntimes_embeddings(path, faces)
    assert np.linalg.norm(embed(tmp_path / "checkpoint", faces) - expected) <= 1e-4 * np.linalg.norm(expected)

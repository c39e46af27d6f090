"""ArcFace against a plain torch IResNet, written from the published layer names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from stableanimator_jax.config import ArcFaceConfig
from stableanimator_jax.models.arcface import ArcFace
from stableanimator_jax.models.layers import Precision
from stableanimator_jax.weights.tables import ARCFACE
from tests.golden_data import assert_close
from tests.models.torch_weights import copy_torch_weights

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity


def torch_block(width_in: int, width: int, stride: int):
    t = torch.nn
    block = t.Module()
    block.bn1 = t.BatchNorm2d(width_in)
    block.conv1 = t.Conv2d(width_in, width, 3, padding=1, bias=False)
    block.bn2 = t.BatchNorm2d(width)
    block.prelu = t.PReLU(width)
    block.conv2 = t.Conv2d(width, width, 3, stride, padding=1, bias=False)
    block.bn3 = t.BatchNorm2d(width)
    if stride > 1:
        block.downsample = t.Sequential(t.Conv2d(width_in, width, 1, stride, bias=False), t.BatchNorm2d(width))

    def forward(x):
        y = block.conv1(block.bn1(x))
        y = block.bn3(block.conv2(block.prelu(block.bn2(y))))
        return y + (block.downsample(x) if stride > 1 else x)

    block.forward = forward
    return block


def torch_iresnet(config: ArcFaceConfig):
    t = torch.nn
    net = t.Module()
    net.conv1 = t.Conv2d(3, config.widths[0], 3, padding=1, bias=False)
    net.bn1 = t.BatchNorm2d(config.widths[0])
    net.prelu = t.PReLU(config.widths[0])
    width_in = config.widths[0]
    for n, (width, depth) in enumerate(zip(config.widths, config.layers, strict=True), 1):
        blocks = [torch_block(width_in if i == 0 else width, width, 2 if i == 0 else 1) for i in range(depth)]
        setattr(net, f"layer{n}", t.Sequential(*blocks))
        width_in = width
    net.bn2 = t.BatchNorm2d(width_in)
    net.fc = t.Linear(width_in * 7 * 7, config.embedding_dim)
    net.features = t.BatchNorm1d(config.embedding_dim)

    def forward(x):
        x = net.prelu(net.bn1(net.conv1(x)))
        x = net.layer4(net.layer3(net.layer2(net.layer1(x))))
        return net.features(net.fc(torch.flatten(net.bn2(x), 1)))

    net.forward = forward
    return net


def randomise(net) -> None:
    """Batch norms and slopes that differ from channel to channel: torch's own start hides mistakes."""
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 1.5)
            if isinstance(module, torch.nn.PReLU):
                module.weight.uniform_(-0.5, 0.5)


CONFIGS = [
    ArcFaceConfig(layers=(1, 1, 1, 1), widths=(8, 12, 16, 24), embedding_dim=40),
    ArcFaceConfig(layers=(2, 1, 3, 1), widths=(4, 4, 10, 8), embedding_dim=16),
]


def make_pair(config: ArcFaceConfig):
    torch.manual_seed(sum(config.layers))
    net = torch_iresnet(config)
    randomise(net)
    model = nnx.eval_shape(lambda: ArcFace(config, precision=Precision(), rngs=nnx.Rngs(0)))
    return net, copy_torch_weights(net, model, ARCFACE)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: str(config.layers))
def test_output_and_input_gradient(config):
    net, model = make_pair(config)
    faces = (2 * torch.rand(2, 3, 112, 112) - 1).requires_grad_()
    weights = torch.randn(2, config.embedding_dim)
    expected = net.eval()(faces)
    (expected * weights).sum().backward()

    x = jnp.asarray(faces.detach().numpy().transpose(0, 2, 3, 1))
    wanted = jnp.asarray(weights.numpy())
    assert_close(jax.jit(model)(x), expected.detach().numpy(), 1e-4)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(model(x) * wanted)))(x)
    assert faces.grad is not None
    assert_close(np.asarray(gradient), faces.grad.numpy().transpose(0, 2, 3, 1), 1e-4)


def test_training_mode():
    net, model = make_pair(CONFIGS[0])
    faces = 2 * torch.rand(4, 3, 112, 112) - 1
    with torch.no_grad():
        expected = net.train()(faces).numpy()
    model.train()
    out = nnx.jit(lambda m, x: m(x))(model, jnp.asarray(faces.numpy().transpose(0, 2, 3, 1)))
    assert_close(out, expected, 1e-3)  # four embeddings' own statistics magnify rounding
    assert_close(model.bn1.mean[...], net.bn1.running_mean.numpy(), 1e-4)
    # torch divides by n - 1 in the running variance, n being 4 x 112 x 112 here
    assert_close(model.bn1.var[...], net.bn1.running_var.numpy(), 1e-4)

"""PoseNet against the same layers in torch, for outputs and gradients at several image sizes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from stableanimator_jax.config import PoseNetConfig
from stableanimator_jax.models.layers import Precision
from stableanimator_jax.models.pose_net import PoseNet
from stableanimator_jax.weights.tables import POSE_NET
from tests.golden_data import assert_close
from tests.models.torch_weights import copy_torch_weights

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity


def torch_pose_net(channels: int):
    t = torch.nn
    widths = (3, 3, 16, 16, 32, 32, 64, 64, 128)
    layers = []
    for n, (c_in, c_out) in enumerate(itertools.pairwise(widths)):
        halves = n in (1, 3, 5)
        layers += [t.Conv2d(c_in, c_out, 4 if halves else 3, stride=2 if halves else 1, padding=1), t.SiLU()]
    net = t.Module()
    net.conv_layers = t.Sequential(*layers)
    net.final_proj = t.Conv2d(128, channels, 1)
    net.scale = t.Parameter(torch.tensor([1.7]))
    net.forward = lambda x: net.final_proj(net.conv_layers(x)) * net.scale
    return net


@pytest.mark.parametrize(("height", "width", "channels"), [(8, 8, 7), (40, 24, 64), (16, 72, 320)])
def test_output_and_gradients(height, width, channels):
    torch.manual_seed(height)
    net = torch_pose_net(channels)
    with torch.no_grad():
        for layer in net.conv_layers:
            if isinstance(layer, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(layer.weight)
    model = nnx.eval_shape(lambda: PoseNet(PoseNetConfig(channels), precision=Precision(), rngs=nnx.Rngs(0)))
    copy_torch_weights(net, model, POSE_NET)
    poses = (2 * torch.rand(2, 3, height, width) - 1).requires_grad_()
    expected = net(poses)
    direction = torch.randn_like(expected)
    (expected * direction).sum().backward()

    x = jnp.asarray(poses.detach().numpy().transpose(0, 2, 3, 1))
    wanted = jnp.asarray(direction.numpy().transpose(0, 2, 3, 1))
    assert_close(jax.jit(model)(x), expected.detach().numpy().transpose(0, 2, 3, 1), 1e-4)
    gradients, gradient = jax.jit(jax.grad(lambda m, x: jnp.sum(m(x) * wanted), argnums=(0, 1)))(model, x)
    assert poses.grad is not None
    assert_close(np.asarray(gradient), poses.grad.numpy().transpose(0, 2, 3, 1), 1e-4)
    np.testing.assert_allclose(gradients.scale[...], net.scale.grad.numpy(), rtol=1e-4)

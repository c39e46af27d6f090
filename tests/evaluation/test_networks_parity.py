"""Each network against torch with the same random weights, which come through a file and the converter."""

from pathlib import Path

import numpy as np
import pytest

from stableanimator_jax.errors import InputError
from stableanimator_jax.evaluation.networks.loading import load_i3d, load_inception, load_lpips, load_resnet_3d
from stableanimator_jax.evaluation.networks.lpips import Backbone
from tests.golden_data import assert_close

torch = pytest.importorskip("torch")
from tests.evaluation import torch_networks  # noqa: E402

pytestmark = pytest.mark.parity


def saved(state_dict, path: Path) -> Path:
    torch.save(state_dict, path)
    return path


def channels_first(array: np.ndarray):
    return torch.from_numpy(np.moveaxis(array, -1, 1).copy())


def trained(net) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.long
@pytest.mark.parametrize("eps", [1e-3, 1e-5])
def test_i3d(tmp_path, eps):
    torch.manual_seed(1)
    net = torch_networks.randomise(torch_networks.I3D(eps))
    assert (len(net.state_dict()), trained(net)) == (344, 12_697_264)
    with torch.no_grad():
        for unit in net.modules():
            if isinstance(unit, torch_networks.I3DUnit) and unit.bn is not None:
                # Small variances are where the two published values of eps part.
                unit.conv3d.weight[::7] *= 1e-2
                unit.bn.running_mean[::7] *= 1e-2
                unit.bn.running_var[::7] *= 1e-4
    network = load_i3d(saved(net.state_dict(), tmp_path / "i3d.pt"), eps)
    clip = np.random.default_rng(0).uniform(-1, 1, (1, 16, 224, 224, 3)).astype(np.float32)
    with torch.no_grad():
        expected = net(channels_first(clip)).numpy()
    assert_close(network(clip), expected, 1e-4)


@pytest.mark.long
def test_inception(tmp_path):
    torch.manual_seed(2)
    net = torch_networks.randomise(torch_networks.Inception())
    assert len(net.state_dict()) == 566
    network = load_inception(saved(net.state_dict(), tmp_path / "inception.pth"))
    images = np.random.default_rng(0).uniform(-1, 1, (1, 299, 299, 3)).astype(np.float32)
    with torch.no_grad():
        expected = net(channels_first(images)).numpy()
    assert_close(network(images), expected, 1e-4)


@pytest.mark.long
def test_resnet_3d(tmp_path):
    torch.manual_seed(3)
    net = torch_networks.randomise(torch_networks.ResNet3D())
    assert (len(net.state_dict()), trained(net)) == (320, 47_018_576)
    parallel = {"state_dict": {f"module.{key}": value for key, value in net.state_dict().items()}, "epoch": 200}
    network = load_resnet_3d(saved(parallel, tmp_path / "resnet.pth"))
    clip = np.random.default_rng(0).uniform(-115, 141, (1, 16, 112, 112, 3)).astype(np.float32)
    with torch.no_grad():
        expected = net(channels_first(clip)).numpy()
    assert_close(network(clip), expected, 1e-4)


@pytest.mark.parametrize(
    ("backbone", "size"),
    [
        ("alex", (67, 45)),
        pytest.param("alex", (64, 64), marks=pytest.mark.long),
        pytest.param("vgg", (67, 45), marks=pytest.mark.long),
        pytest.param("vgg", (32, 32), marks=pytest.mark.long),
    ],
)
def test_lpips(tmp_path, backbone: Backbone, size):
    torch.manual_seed(4)
    net, heads = torch_networks.randomise(torch_networks.backbone(backbone)), torch_networks.random_heads(backbone)
    files = saved(net.state_dict(), tmp_path / "net.pth"), saved(heads, tmp_path / "heads.pth")
    network = load_lpips(backbone, *files)
    generator = np.random.default_rng(0)
    a, b = (generator.uniform(-1, 1, (2, *size, 3)).astype(np.float32) for _ in range(2))
    a[0] = b[0] + 0.01 * a[0]
    with torch.no_grad():
        expected = torch_networks.lpips(backbone, net, heads, channels_first(a), channels_first(b)).numpy()
    np.testing.assert_allclose(network(a, b), expected, rtol=1e-4)  # each: the first is far smaller
    assert np.abs(network(a, a)).max() < 1e-12


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_torchscript(tmp_path):
    """A program is opened for its named weights alone."""

    class Named(torch.nn.Module):
        def __init__(self, **parts):
            super().__init__()
            for name, part in parts.items():
                self.add_module(name, part)

        def forward(self, x):
            return x

    def only_named(module):
        parts = {name: only_named(part) for name, part in module.named_children()}
        return Named(**parts) if parts else module

    net = torch_networks.randomise(torch_networks.I3D(1e-3))
    program = torch.jit.script(only_named(net).eval())
    program.save(tmp_path / "i3d.pt")
    torch.jit.freeze(program).save(tmp_path / "frozen.pt")
    network = load_i3d(tmp_path / "i3d.pt")
    kernel = net.Mixed_4c.b1b.conv3d.weight.detach().numpy()
    found = network.model.params["Mixed_4c"]["b1b"]["conv"]["kernel"]
    np.testing.assert_array_equal(np.asarray(found), np.moveaxis(kernel, (0, 1), (4, 3)))
    with pytest.raises(InputError, match="unmapped"):
        load_inception(tmp_path / "i3d.pt")
    with pytest.raises(InputError, match="frozen"):
        load_i3d(tmp_path / "frozen.pt")

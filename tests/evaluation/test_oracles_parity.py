"""Against the metrics' own packages."""

import numpy as np
import pytest

from stableanimator_jax.evaluation import pixels
from stableanimator_jax.evaluation.frechet import Sums, frechet, kernel_distance
from stableanimator_jax.evaluation.protocol import PROTOCOLS
from tests.evaluation.drawn_videos import noisy, video

pytestmark = pytest.mark.parity
STANDARD = PROTOCOLS["standard"]


@pytest.fixture(scope="module")
def pair():
    truth = video(0, frames=3)
    return noisy(truth, 0), truth


def tensors(pair):
    import torch

    return [torch.from_numpy(v).permute(0, 3, 1, 2).double() for v in pair]


def test_ssim_and_psnr_as_torchmetrics(pair):
    image = pytest.importorskip("torchmetrics.functional.image")
    given = {"data_range": 255.0, "reduction": "none"}
    _, whole = image.structural_similarity_index_measure(*tensors(pair), sigma=1.5, return_full_image=True, **given)
    inside = whole[..., 5:-5, 5:-5]  # where whole windows are; torchmetrics' own mean goes over mirrored edges too
    np.testing.assert_allclose(pixels.ssim(*pair, STANDARD), inside.mean(dim=(1, 2, 3)), rtol=1e-4)
    psnr = image.peak_signal_noise_ratio(*tensors(pair), dim=(1, 2, 3), **given)
    np.testing.assert_allclose(pixels.psnr(*pair, STANDARD), psnr, rtol=1e-6)


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(32, 32)) / 6
    return [(rng.normal(size=(n, 32)) @ mixed + shift).astype(np.float32) for n, shift in ((120, 0.0), (90, 0.3))]


def as_they_are():
    """What torchmetrics takes for a network: images that are features already."""
    import torch

    network = torch.nn.Identity()
    network.num_features = 32
    return network


def updated(metric, features):
    import torch

    for kind, real in zip(features, (False, True), strict=True):
        metric.update(torch.from_numpy(kind).double(), real=real)
    return metric.compute()


def test_frechet_distance_as_torchmetrics(features):
    fid = pytest.importorskip("torchmetrics.image.fid")
    expected = updated(fid.FrechetInceptionDistance(as_they_are()), features)
    assert frechet(*map(Sums.of, features)) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save all extracted features")
def test_kernel_distance_as_torchmetrics(features):
    kid = pytest.importorskip("torchmetrics.image.kid")
    some = [kind[:90] for kind in features]  # one subset of all
    metric = kid.KernelInceptionDistance(as_they_are(), subsets=1, subset_size=90)
    expected, _ = updated(metric, some)
    assert kernel_distance(*some) == pytest.approx(float(expected), rel=1e-6)

"""What the networks are shown, by each protocol."""

import numpy as np
import pytest
from PIL import Image

from stableanimator_jax.errors import InputError
from stableanimator_jax.evaluation import clips
from stableanimator_jax.evaluation.protocol import FID_VID_MEAN, PROTOCOLS

DISCO, STANDARD = PROTOCOLS["disco"], PROTOCOLS["standard"]


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(0).integers(0, 256, (20, 40, 24, 3), dtype=np.uint8)


def test_disco_takes_the_central_square(frames):
    found = clips.prepare(frames, DISCO)
    expected = Image.fromarray(frames[3, 8:32]).resize((256, 256), Image.Resampling.BILINEAR)
    assert found.shape == (20, 256, 256, 3)
    np.testing.assert_array_equal(found[3], expected)
    np.testing.assert_array_equal(clips.prepare(found, DISCO), found)


def test_standard_fits_the_truth_to_the_generated_frames(frames):
    generated = frames[:, :20, :20]
    ours, truth = clips.prepare_pair(generated, frames, STANDARD)
    assert ours is generated
    assert truth.shape == generated.shape
    expected = Image.fromarray(frames[5, 8:32]).resize((20, 20), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(truth[5], expected)
    assert clips.prepare_pair(frames, frames, STANDARD)[1] is frames


def test_other_numbers_of_frames_are_refused(frames):
    with pytest.raises(InputError, match="generated video has 20 frames, the truth 7"):
        clips.prepare_pair(frames, frames[:7], STANDARD)


def test_windows_at_every_start_or_one_after_the_other():
    frames = np.arange(40, dtype=np.float32).reshape(40, 1, 1, 1).repeat(3, axis=3)
    for protocol, starts in ((DISCO, range(25)), (STANDARD, (0, 16))):
        found = clips.windows(frames, protocol)
        assert found.shape == (len(starts), 16, 1, 1, 3)
        np.testing.assert_array_equal(found[:, 0, 0, 0, 0], starts)
        np.testing.assert_array_equal(found[-1, :, 0, 0, 2], starts[-1] + np.arange(16))
    assert clips.windows(frames[:15], DISCO).shape == (0, 16, 1, 1, 3)


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
@pytest.mark.parametrize(
    ("prepared", "side", "low", "high"),
    [
        (clips.fid_images, 299, -1, 1),
        (clips.i3d_frames, 224, -1, 1),
        (clips.resnet_frames, 112, -np.array(FID_VID_MEAN), 255 - np.array(FID_VID_MEAN)),
    ],
)
def test_sizes_and_ranges_that_networks_take(protocol, prepared, side, low, high):
    """Black and white come to the ends of the range, whatever the filter."""
    ends = np.stack([np.full((30, 50, 3), level, np.uint8) for level in (0, 255)])
    found = prepared(ends, protocol)
    assert found.shape == (2, side, side, 3)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], np.broadcast_to(low, found[0].shape), atol=1e-4)
    np.testing.assert_allclose(found[1], np.broadcast_to(high, found[1].shape), atol=1e-4)


@pytest.mark.parity
@pytest.mark.parametrize("size", [(40, 24), (400, 512)])
def test_without_antialiasing_as_torch(size):
    """pytorch-fid and the published I3D resize inside of the network, by torch's interpolation."""
    import torch

    frames = np.random.default_rng(1).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    tensor = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    for found, side in ((clips.fid_images(frames, DISCO), 299), (clips.i3d_frames(frames, STANDARD), 224)):
        resized = torch.nn.functional.interpolate(tensor, (side, side), mode="bilinear", align_corners=False)
        expected = resized.permute(0, 2, 3, 1).numpy() / 127.5 - 1
        np.testing.assert_allclose(found, expected, atol=1e-4)  # torch has its places in float32

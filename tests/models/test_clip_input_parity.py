"""The antialiased resize against diffusers' own, and against torch operations at other output sizes."""

import numpy as np
import pytest

from stableanimator_jax.models.clip_input import antialiased_resize, clip_pixels
from tests.golden_data import assert_close

torch = pytest.importorskip("torch")
svd = pytest.importorskip("diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

SIZES = [(2, 2), (5, 301), (37, 224), (223, 225), (333, 127), (449, 450), (576, 1024), (701, 64)]


def noise(height: int, width: int):
    torch.manual_seed(height + width)
    return 2 * torch.rand(1, 3, height, width) - 1


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_equals_diffusers(height, width):
    image = noise(height, width)
    expected = svd._resize_with_antialiasing(image, (224, 224)).numpy().transpose(0, 2, 3, 1)
    assert_close(antialiased_resize(image.numpy().transpose(0, 2, 3, 1), (224, 224)), expected, 3e-4)


@pytest.mark.parametrize("size", [(1, 1), (7, 30), (336, 200)])
def test_equals_diffusers_at_other_output_sizes(size):
    image = noise(150, 99)
    expected = svd._resize_with_antialiasing(image, size).numpy().transpose(0, 2, 3, 1)
    assert_close(antialiased_resize(image.numpy().transpose(0, 2, 3, 1), size), expected, 3e-4)


def test_white_noise_far_larger_than_its_blur():
    image = noise(1500, 1100)
    expected = svd._resize_with_antialiasing(image, (224, 224)).numpy().transpose(0, 2, 3, 1)
    difference = np.abs(antialiased_resize(image.numpy().transpose(0, 2, 3, 1), (224, 224)) - expected)
    assert difference.max() <= 3e-4  # absolute: the blur leaves little of the noise


def test_clip_pixels_equal_the_image_processor():
    image = noise(224, 224)  # no resizing, so that only the normalisation is compared
    processor = transformers.CLIPImageProcessor(do_resize=False, do_center_crop=False, do_rescale=False)
    expected = processor(images=(image[0] + 1) / 2, return_tensors="np")["pixel_values"]
    assert_close(clip_pixels(image.numpy().transpose(0, 2, 3, 1)), np.asarray(expected).transpose(0, 2, 3, 1), 1e-5)

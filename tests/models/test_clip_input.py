import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stableanimator_jax.models.clip_input import CLIP_MEAN, CLIP_STD, antialiased_resize, clip_pixels, resize_matrix
from tests.golden_data import assert_close, load


@pytest.mark.parametrize(("to_array", "kind"), [(np.asarray, np.ndarray), (jnp.asarray, jax.Array)])
@pytest.mark.parametrize("name", ["100x180", "300x260", "512x512"])
def test_golden(name, to_array, kind):
    case = load(f"antialias_resize_{name}")
    image = case["image"].astype(np.float32).transpose(0, 2, 3, 1)
    resized = antialiased_resize(to_array(image), (224, 224))
    assert isinstance(resized, kind)
    assert resized.dtype == np.float32
    assert_close(resized[:, ::4, ::4], case["out"].transpose(0, 2, 3, 1), 3e-4)


def test_own_size_is_left_as_it_is():
    np.testing.assert_array_equal(resize_matrix(224, 224), np.eye(224, dtype=np.float32))


@pytest.mark.parametrize("n", [1, 2, 3, 5, 223, 225, 600, 4000])
def test_every_size_keeps_a_constant(n):
    matrix = resize_matrix(n, 224)
    assert matrix.shape == (224, n)
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(matrix, matrix[::-1, ::-1], atol=1e-5)  # the same from either end


def test_corners_are_aligned():
    matrix = resize_matrix(3, 225)
    np.testing.assert_allclose(matrix[[0, 112, 224]], np.eye(3), atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (2, 1), (2, 3)])
def test_tiny_images(height, width):
    image = np.full((height, width, 3), 0.25, np.float32)
    np.testing.assert_allclose(antialiased_resize(image, (224, 224)), np.full((224, 224, 3), 0.25), atol=1e-5)


def test_clip_normalisation():
    white, black = np.ones((30, 20, 3), np.float32), -np.ones((30, 20, 3), np.float32)
    np.testing.assert_allclose(clip_pixels(white)[7, 9], (1 - np.array(CLIP_MEAN)) / np.array(CLIP_STD), atol=1e-5)
    np.testing.assert_allclose(clip_pixels(black)[7, 9], -np.array(CLIP_MEAN) / np.array(CLIP_STD), atol=1e-5)


def test_overshoot_is_not_clamped():
    edge = np.concatenate([np.full((8, 4, 3), -1, np.float32), np.full((8, 4, 3), 1, np.float32)], axis=1)
    zero_to_one = clip_pixels(edge) * np.array(CLIP_STD, np.float32) + np.array(CLIP_MEAN, np.float32)
    assert zero_to_one.min() < -0.02
    assert zero_to_one.max() > 1.02


def test_numpy_equals_jax_under_jit_with_any_leading_axes():
    video = np.random.default_rng(0).uniform(-1, 1, (2, 3, 70, 310, 3)).astype(np.float32)
    expected = clip_pixels(video, 56)
    assert expected.shape == (2, 3, 56, 56, 3)
    np.testing.assert_allclose(jax.jit(lambda x: clip_pixels(x, 56))(video), expected, atol=1e-4)
    np.testing.assert_allclose(clip_pixels(video[1, 2], 56), expected[1, 2], atol=1e-5)


def test_half_precision_is_resized_in_float32():
    image = jnp.linspace(-1, 1, 40 * 30 * 3).reshape(40, 30, 3).astype(jnp.bfloat16)
    resized = clip_pixels(image)
    assert resized.dtype == jnp.float32
    np.testing.assert_allclose(resized, clip_pixels(image.astype(jnp.float32)), atol=1e-6)

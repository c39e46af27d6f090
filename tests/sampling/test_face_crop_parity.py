"""Face crops against torch's bilinear interpolation, values and gradients, and against OpenCV's warp."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stableanimator_jax.sampling.face_crop import crop_boxes

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")


def torch_crop(frames, boxes):
    crops = []
    for frame, (left, top, right, bottom) in zip(frames, boxes, strict=True):
        crop = frame[None, :, max(top, 0) : bottom + 1, max(left, 0) : right + 1]
        crops.append(torch.nn.functional.interpolate(crop, (112, 112), mode="bilinear", align_corners=False))
    return torch.cat(crops)


def random_boxes(rng, height, width, count):
    """Boxes of every kind: a pixel, the image, beyond the image's edges, and anything between."""
    boxes = [[7, 5, 7, 5], [0, 0, width - 1, height - 1], [-5, -9, 30, 20], [3, height - 6, width + 40, height + 9]]
    while len(boxes) < count:
        top, left = rng.integers(0, height), rng.integers(0, width)
        bottom, right = rng.integers(top, height), rng.integers(left, width)
        boxes.append([left, top, right, bottom])
    return np.array(boxes)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (200, 131)])
def test_values_and_gradients_equal_torch_interpolate(height, width):
    rng = np.random.default_rng(height)
    boxes = random_boxes(rng, height, width, 40)
    frames = rng.standard_normal((len(boxes), height, width, 3)).astype(np.float32)
    weights = rng.standard_normal((len(boxes), 112, 112, 3)).astype(np.float32)

    source = torch.tensor(frames.transpose(0, 3, 1, 2), dtype=torch.float64, requires_grad=True)
    expected = torch_crop(source, boxes)
    (expected * torch.tensor(weights.transpose(0, 3, 1, 2))).sum().backward()

    places = jnp.asarray(boxes, jnp.float32)
    # White noise shows what float32 leaves of a coordinate; torch's own float32 comes as close as ours.
    np.testing.assert_allclose(
        crop_boxes(frames, places), expected.detach().numpy().transpose(0, 2, 3, 1), rtol=0, atol=1.5e-4
    )
    gradient = jax.grad(lambda x: (crop_boxes(x, places) * weights).sum())(frames)
    expected_gradient = source.grad.numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=0, atol=1e-4 * np.abs(expected_gradient).max())

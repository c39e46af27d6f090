"""From an image of any size to CLIP's pixels, as Stable Video Diffusion prepares them.

SVD blurs the image against aliasing and then resizes it by bicubic interpolation. Both are linear along each axis,
so together they are one matrix for the rows and one for the columns. Works on NumPy arrays without touching a
device (a data loader's workers), and on JAX arrays inside `jax.jit` (a training step).
"""

import math
from functools import lru_cache
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32

AnyArray = TypeVar("AnyArray", np.ndarray, jax.Array)

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def clip_pixels(image: Float[AnyArray, "*batch h w 3"], size: int = 224) -> Float32[AnyArray, "*batch size size 3"]:
    """Resize RGB images in [-1, 1] to CLIP's square input and normalise them by CLIP's mean and standard deviation.

    The image is stretched to a square, and what bicubic interpolation overshoots is not clamped: both as in SVD.
    """
    resized = antialiased_resize(image, (size, size))
    channels = (1,) * (resized.ndim - 1) + (3,)
    mean = np.array(CLIP_MEAN, np.float32).reshape(channels)
    std = np.array(CLIP_STD, np.float32).reshape(channels)
    return ((resized + 1) / 2 - mean) / std


def antialiased_resize(
    image: Float[AnyArray, "*batch h w c"], size: tuple[int, int]
) -> Float32[AnyArray, "*batch h2 w2 c"]:
    """Resize to `size` (height, width) by Gaussian blur and bicubic interpolation, in float32."""
    rows, columns = resize_matrix(image.shape[-3], size[0]), resize_matrix(image.shape[-2], size[1])
    if isinstance(image, jax.Array):
        # Accelerators multiply float32 matrices in fewer bits unless told otherwise.
        exact = jax.lax.Precision.HIGHEST
        x = jnp.einsum("oh,...hwc->...owc", rows, image.astype(jnp.float32), precision=exact)
        return jnp.einsum("ow,...hwc->...hoc", columns, x, precision=exact)
    x = np.einsum("oh,...hwc->...owc", rows, image.astype(np.float32), optimize=True)
    return np.einsum("ow,...hwc->...hoc", columns, x, optimize=True)


@lru_cache(maxsize=64)
def resize_matrix(n_in: int, n_out: int) -> Float32[np.ndarray, "n_out n_in"]:
    """The antialiased resize along one axis: blur, then interpolate. The result is shared: do not write to it."""
    matrix = _blur_first(_bicubic_matrix(n_in, n_out), n_in / n_out).astype(np.float32)
    matrix.flags.writeable = False
    return matrix


def _blur_first(matrix: Float[np.ndarray, "m n"], factor: float) -> Float[np.ndarray, "m n"]:
    """The product of `matrix` and the Gaussian blur for shrinking by `factor` with its edges reflected.

    One pixel has nothing to reflect but itself. Every other size is large enough for its own kernel, which
    reaches at most `factor` - 1 pixels (or 1) to either side.
    """
    n = matrix.shape[1]
    sigma = max((factor - 1) / 2, 0.001)
    reach = int(max(4 * sigma, 3)) // 2  # SVD's kernel size, made odd, is 2 * reach + 1
    kernel = np.exp(-np.square(np.arange(-reach, reach + 1)) / (2 * sigma**2))
    kernel /= kernel.sum()
    padded = np.zeros((len(matrix), n + 2 * reach))
    for k, weight in enumerate(kernel):
        padded[:, k : k + n] += weight * matrix
    pixels = np.pad(np.arange(n), reach, mode="reflect")  # the pixel behind each padded position
    blurred = np.zeros_like(matrix)
    np.add.at(blurred.T, pixels, padded.T)
    return blurred


def _bicubic_matrix(n_in: int, n_out: int) -> Float[np.ndarray, "n_out n_in"]:
    """torch's bicubic interpolation (A = -0.75) with corners aligned and the edges repeated."""
    positions = np.arange(n_out) * ((n_in - 1) / max(n_out - 1, 1))
    matrix = np.zeros((n_out, n_in))
    for row, position in enumerate(positions):
        first = math.floor(position)
        for pixel in range(first - 1, first + 3):
            matrix[row, min(max(pixel, 0), n_in - 1)] += _cubic(abs(position - pixel))
    return matrix


def _cubic(distance: float, a: float = -0.75) -> float:
    """Keys' cubic convolution kernel."""
    d = distance
    if d <= 1:
        return ((a + 2) * d - (a + 3)) * d**2 + 1
    if d < 2:
        return a * (((d - 5) * d + 8) * d - 4)
    return 0.0

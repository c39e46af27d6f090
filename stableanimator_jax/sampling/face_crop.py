"""Differentiable face crops with boxes and landmarks as data, so that one program serves every face."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from stableanimator_jax.data.face_track import FaceTrack
from stableanimator_jax.errors import InputError
from stableanimator_jax.models.arcface import FACE_SIZE
from stableanimator_jax.sampling.config import Crop

# Where ArcFace was trained to find eyes, nose and mouth corners (x, y) in its 112x112 input (Deng et al. 2019).
ARCFACE_LANDMARKS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float32
)


class BoxCrops(NamedTuple):
    """Of each frame what is inside of the face's box, as published."""

    boxes: Float[Array, "f 4"] | Float[np.ndarray, "f 4"]
    """As `crop_boxes` takes them."""

    def cut(self, frames: Float[Array, "f h w c"]) -> Float[Array, "f size size c"]:
        return crop_boxes(frames, jnp.asarray(self.boxes))

    def seen_from(self, corner: Int[np.ndarray, "2"]) -> "BoxCrops":
        """The same in a part of the frames, which begins at the pixel (x, y) `corner`."""
        x, y = corner
        return BoxCrops(self.boxes - np.array([x, y, x, y], np.float32))

    def extents(self) -> tuple[Float[np.ndarray, "f 2"], Float[np.ndarray, "f 2"]]:
        """The lowest and the highest pixel (x, y), inclusive, that each crop reads."""
        boxes = np.round(self.boxes)
        return boxes[:, :2], boxes[:, 2:]


class AlignedCrops(NamedTuple):
    """Of each frame the face as ArcFace was trained to see it."""

    transforms: Float[Array, "f 2 3"] | Float[np.ndarray, "f 2 3"]
    """As `warp_aligned` takes them."""

    def cut(self, frames: Float[Array, "f h w c"]) -> Float[Array, "f size size c"]:
        return warp_aligned(frames, jnp.asarray(self.transforms))

    def seen_from(self, corner: Int[np.ndarray, "2"]) -> "AlignedCrops":
        """As `BoxCrops.seen_from`."""
        x, y = corner
        return AlignedCrops(self.transforms - np.array([[0, 0, x], [0, 0, y]], np.float32))

    def extents(self) -> tuple[Float[np.ndarray, "f 2"], Float[np.ndarray, "f 2"]]:
        """As `BoxCrops.extents`."""
        last = FACE_SIZE - 1
        corners = np.array([[0, 0, 1], [last, 0, 1], [0, last, 1], [last, last, 1]], np.float32)
        points = np.einsum("fkl,cl->fck", self.transforms, corners)
        return np.floor(points.min(1)), np.ceil(points.max(1))


Crops = BoxCrops | AlignedCrops


def crops_of(track: FaceTrack, crop: Crop) -> Crops:
    """How the faces of a track are cut out.

    Raises:
        InputError: faces that have no landmarks are to be aligned.
    """
    if crop == "box":
        return BoxCrops(np.asarray(track.boxes, np.float32))
    if track.landmarks is None:
        raise InputError(
            "--hjb.crop aligned needs the faces' landmarks, which masks and boxes alone do not have; take "
            "--hjb.crop box"
        )
    return AlignedCrops(alignment_transforms(track.landmarks))


def crop_boxes(
    frames: Float[Array, "f h w c"], boxes: Float[Array, "f 4"], size: int = FACE_SIZE
) -> Float[Array, "f size size c"]:
    """Crop one box a frame and resize it bilinearly, as torch's `interpolate(crop, size, align_corners=False)`.

    A bilinear resize of a crop is one sparse matrix an axis, here made dense from the box: two matrix products,
    exact, with boxes of any size in one program.

    Args:
        frames: images.
        boxes: as in `FaceTrack`; what lies outside the image is cut off.
        size: of the crops in pixels.
    """
    height, width = frames.shape[1:3]
    rows = _resize_matrix(boxes[:, 1], boxes[:, 3], height, size)
    columns = _resize_matrix(boxes[:, 0], boxes[:, 2], width, size)
    exact = jax.lax.Precision.HIGHEST  # TF32 would blur the weights themselves
    out = jnp.einsum("fih,fhwc->fiwc", rows, frames, precision=exact)
    return jnp.einsum("fjw,fiwc->fijc", columns, out, precision=exact)


def _resize_matrix(low: Array, high: Array, length: int, size: int) -> Float[Array, "f size length"]:
    """Bilinear weights of `length` pixels for each of `size` outputs across [low, high], inclusive."""
    low = jnp.clip(jnp.round(low), 0, length - 1)[:, None]
    high = jnp.clip(jnp.round(high), 0, length - 1)[:, None]
    scale = (high - low + 1) / size
    # The edge pixels repeat beyond the crop: clamping to it never reaches a pixel outside.
    within = jnp.clip(scale * (jnp.arange(size, dtype=jnp.float32)[None] + 0.5) - 0.5, 0, high - low)
    pixels = jnp.arange(length, dtype=jnp.float32)[None] - low  # whole numbers: differences lose no digits
    distance = jnp.abs(pixels[:, None] - within[..., None])
    return jnp.maximum(0, 1 - distance)


def warp_aligned(
    frames: Float[Array, "f h w c"], transforms: Float[Array, "f 2 3"], size: int = FACE_SIZE
) -> Float[Array, "f size size c"]:
    """Faces aligned as ArcFace was trained: bilinear samples at `transforms` of the output's pixels, black outside.

    Args:
        frames: images.
        transforms: affine maps from output (x, y, 1) to frame (x, y), in pixels; see `alignment_transforms`.
        size: of the crops in pixels.
    """
    grid = jnp.arange(size, dtype=jnp.float32)
    x, y = jnp.meshgrid(grid, grid)
    homogeneous = jnp.stack([x, y, jnp.ones_like(x)])  # [3, size, size]
    source = jnp.einsum("fkl,lij->fkij", transforms, homogeneous, precision=jax.lax.Precision.HIGHEST)

    def sample(image: Array, coordinates: Array) -> Array:
        return jax.scipy.ndimage.map_coordinates(image, [coordinates[1], coordinates[0]], order=1, mode="constant")

    return jax.vmap(jax.vmap(sample, in_axes=(-1, None), out_axes=-1))(frames, source)


def alignment_transforms(landmarks: Float[np.ndarray, "f 5 2"]) -> Float[np.ndarray, "f 2 3"]:
    """The inverse of the similarity transforms by which InsightFace aligns faces (its `face_align.estimate_norm`).

    The least squares (Umeyama 1991) are of the landmarks brought onto ArcFace's own; fitted the other way round, the
    crop of a turned face would be smaller than those that ArcFace was trained on.

    Args:
        landmarks: eyes, nose, mouth corners (x, y) in pixels of each frame, left ones first as in the image.

    Returns:
        affine maps for `warp_aligned`, float32. Five landmarks in one place, as of a frame without a face, give a
        crop of that one place.
    """
    landmarks = np.asarray(landmarks, np.float64)
    centre, template_centre = landmarks.mean(1, keepdims=True), ARCFACE_LANDMARKS.mean(0, dtype=np.float64)
    offsets, template = landmarks - centre, ARCFACE_LANDMARKS - template_centre
    u, s, vt = np.linalg.svd(template.T @ offsets)  # [f, 2, 2]
    sign = np.linalg.det(u @ vt)[:, None]
    s[:, 1:] *= sign  # a rotation, where the best fit would mirror
    u[..., 1] *= sign
    spread = s.sum(-1)
    scale = (offsets**2).sum((1, 2)) / np.where(spread > 0, spread, 1)  # of the inverse
    matrix = scale[:, None, None] * (u @ vt).transpose(0, 2, 1)
    shift = centre[:, 0] - matrix @ template_centre
    return np.concatenate([matrix, shift[..., None]], -1).astype(np.float32)

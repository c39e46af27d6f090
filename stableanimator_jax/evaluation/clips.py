"""Frames of one video as the protocol compares them, and as each network takes them; a clip is never of two videos."""

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from stableanimator_jax.data.images import fit
from stableanimator_jax.errors import InputError
from stableanimator_jax.evaluation.protocol import FID_SIDE, FID_VID_MEAN, FID_VID_SIDE, FVD_SIDE, Filter, Protocol
from stableanimator_jax.opencv import cv2

Frames = UInt8[np.ndarray, "f h w 3"]

_PILLOW = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_OPENCV = {"bilinear": "INTER_LINEAR"}  # as torch's interpolate without align_corners and without antialiasing


def prepare(frames: UInt8[np.ndarray, "f h w 3"], protocol: Protocol) -> UInt8[np.ndarray, "f h2 w2 3"]:
    """Frames of one video as they are compared."""
    if protocol.side is None:
        return frames
    height, width = frames.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = frames[:, top : top + side, left : left + side]
    return squashed(square, protocol.side, "bilinear")


def prepare_pair(
    generated: UInt8[np.ndarray, "f h w 3"], truth: UInt8[np.ndarray, "g h3 w3 3"], protocol: Protocol
) -> tuple[UInt8[np.ndarray, "f h2 w2 3"], UInt8[np.ndarray, "f h2 w2 3"]]:
    """Both videos as they are compared, of one size.

    Raises:
        InputError: other numbers of frames.
    """
    if len(generated) != len(truth):
        raise InputError(
            f"the generated video has {len(generated)} frames, the truth {len(truth)}: give the truth of those frames"
        )
    generated, truth = prepare(generated, protocol), prepare(truth, protocol)
    height, width = generated.shape[1:3]
    if truth.shape[1:3] != (height, width):
        truth = np.stack([fit(frame, width, height, "crop", filter="bicubic") for frame in truth])
    return generated, truth


def fid_images(frames: Frames, protocol: Protocol) -> Float32[np.ndarray, "f 299 299 3"]:
    """Frames for Inception, in [-1, 1]."""
    resized = _resized_floats(frames, FID_SIDE, protocol.fid_filter, protocol.fid_antialias)
    return resized / np.float32(127.5) - np.float32(1)


def i3d_frames(frames: Frames, protocol: Protocol) -> Float32[np.ndarray, "f 224 224 3"]:
    """Frames for I3D, in [-1, 1]; `windows` makes its clips."""
    if protocol.fvd_antialias:
        resized = squashed(frames, FVD_SIDE, protocol.fvd_filter).astype(np.float32)
    else:
        resized = _resized_floats(frames, FVD_SIDE, protocol.fvd_filter, antialias=False)
    return resized / np.float32(127.5) - np.float32(1)


def resnet_frames(frames: Frames, protocol: Protocol) -> Float32[np.ndarray, "f 112 112 3"]:
    """Frames for the 3D ResNet-50, in 8-bit levels less its data's mean; `windows` makes its clips."""
    resized = squashed(frames, FID_VID_SIDE, protocol.fid_vid_filter).astype(np.float32)
    return resized - np.array(FID_VID_MEAN, np.float32)


def windows(frames: Float32[np.ndarray, "f h w 3"], protocol: Protocol) -> Float32[np.ndarray, "n t h w 3"]:
    """All clips of one video, without copying; none of a video that is shorter than one."""
    length = protocol.window
    if len(frames) < length:
        return np.zeros((0, length, *frames.shape[1:]), np.float32)
    clips = np.lib.stride_tricks.sliding_window_view(frames, length, axis=0)  # [n, h, w, 3, t]
    return np.moveaxis(clips, -1, 1)[:: protocol.stride]


def squashed(frames: Frames, side: int, filter: Filter) -> UInt8[np.ndarray, "f side side 3"]:
    """Pillow's antialiased resize to a square, whatever the aspect, rounded to 8 bits."""
    if frames.shape[1:3] == (side, side):
        return frames
    return np.stack([np.asarray(Image.fromarray(frame).resize((side, side), _PILLOW[filter])) for frame in frames])


def _resized_floats(frames: Frames, side: int, filter: Filter, antialias: bool) -> Float32[np.ndarray, "f side side 3"]:
    """The same without rounding, in levels."""
    found = np.empty((len(frames), side, side, 3), np.float32)
    for i, frame in enumerate(frames):
        levels = frame.astype(np.float32)
        if antialias:
            for channel in range(3):
                image = Image.fromarray(np.ascontiguousarray(levels[..., channel]))
                found[i, ..., channel] = np.asarray(image.resize((side, side), _PILLOW[filter]))
        else:
            found[i] = cv2.resize(levels, (side, side), interpolation=getattr(cv2, _OPENCV[filter]))
    return found

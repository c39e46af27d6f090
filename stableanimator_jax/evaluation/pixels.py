"""Measures of pictures against the truth, frame by frame, in float64; and of their flicker."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64, UInt8

from stableanimator_jax.errors import InputError
from stableanimator_jax.evaluation.protocol import Protocol
from stableanimator_jax.opencv import cv2

Frames = UInt8[np.ndarray, "f h w 3"]
PerFrame = Float64[np.ndarray, "f"]

_SSIM_SIDE = {"grey_uniform": 7, "rgb_gaussian": 11}


def l1(generated: Frames, truth: Frames, protocol: Protocol) -> PerFrame:
    """Mean absolute difference: of [0, 1], or in 8-bit levels divided by the number of pixels, as published."""
    levels = _by_frame(lambda a, b: np.abs(a.astype(np.float64) - b).mean(), generated, truth)
    return levels / 255 if protocol.l1 == "unit" else levels / (generated.shape[1] * generated.shape[2])


def psnr(generated: Frames, truth: Frames, protocol: Protocol) -> PerFrame:
    """Peak signal-to-noise ratio in dB; the protocol's `identical_psnr` where nothing differs."""
    errors = _by_frame(lambda a, b: np.square(a.astype(np.float64) - b).mean(), generated, truth)
    return _decibels(errors, protocol.identical_psnr)


def psnr_legacy(generated: Frames, truth: Frames, protocol: Protocol) -> PerFrame:
    """As published tables have it: difference and square wrap round at 256, so that it is never below 24.07 dB."""
    errors = _by_frame(lambda a, b: np.square(a - b).mean(dtype=np.float64), generated, truth)
    return _decibels(errors, protocol.identical_psnr)


def ssim(generated: Frames, truth: Frames, protocol: Protocol) -> PerFrame:
    """Structural similarity by scikit-image, of grey or of RGB as the protocol says.

    Raises:
        InputError: frames smaller than one window, or scikit-image is not installed.
    """
    try:
        from skimage.metrics import structural_similarity  # slow to import
    except ImportError:
        raise InputError(
            "SSIM needs the package scikit-image: pip install 'stableanimator-jax[evaluate]' (in a clone: "
            "pip install -e '.[evaluate]')"
        ) from None
    least = _SSIM_SIDE[protocol.ssim]
    if min(generated.shape[1:3]) < least:
        raise InputError(f"SSIM needs frames of {least}x{least} pixels at least, got {_size(generated)}")

    def grey(a: np.ndarray, b: np.ndarray) -> float:
        a, b = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (a, b))
        return float(np.mean(structural_similarity(a, b, data_range=255)))

    def rgb(a: np.ndarray, b: np.ndarray) -> float:
        gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        return float(np.mean(structural_similarity(a, b, channel_axis=-1, data_range=255, **gaussian)))

    return _by_frame(grey if protocol.ssim == "grey_uniform" else rgb, generated, truth)


def flicker(frames: Frames) -> Float64[np.ndarray, "f-1"]:
    """Mean absolute change from each frame to the next, of [0, 1]: motion counts too, so the truth's is the measure."""
    return _by_frame(lambda a, b: np.abs(a.astype(np.float64) - b).mean(), frames[1:], frames[:-1]) / 255


def flicker_error(generated: Frames, truth: Frames) -> Float64[np.ndarray, "f-1"]:
    """Mean absolute difference between both videos' changes from each frame to the next, of [0, 1]: common motion
    and an error that stands still do not count."""
    _require_alike(generated, truth)
    found = []
    for i in range(len(generated) - 1):
        ours, theirs = (np.subtract(v[i + 1], v[i], dtype=np.float64) for v in (generated, truth))
        found.append(np.abs(ours - theirs).mean() / 255)
    return np.array(found, np.float64)


def _by_frame(measure: Callable[[np.ndarray, np.ndarray], float], generated: Frames, truth: Frames) -> PerFrame:
    """One frame's float64 at a time: a long video's would not fit in memory."""
    _require_alike(generated, truth)
    return np.array([measure(a, b) for a, b in zip(generated, truth, strict=True)], np.float64)


def _decibels(errors: PerFrame, identical: float) -> PerFrame:
    same = errors == 0
    return np.where(same, identical, 20 * np.log10(255) - 10 * np.log10(np.where(same, 1, errors)))


def _require_alike(generated: Frames, truth: Frames) -> None:
    if generated.shape != truth.shape:
        raise InputError(
            f"the generated video has {len(generated)} frames of {_size(generated)}, the truth {len(truth)} of "
            f"{_size(truth)}: they must be alike to be compared"
        )


def _size(frames: np.ndarray) -> str:
    return f"{frames.shape[2]}x{frames.shape[1]} pixels"

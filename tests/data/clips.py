"""Clips for the tests, and ways to write, make and read them."""

import itertools
from fractions import Fraction
from typing import cast

import av
import numpy as np
import pytest

from stableanimator_jax.data.video import open_writer, read_frames


def clip(count, height=64, width=96):
    """A slow gradient with saturated squares that move: any wrong colour matrix, order or shift shows."""
    y, x = np.mgrid[:height, :width]
    for i in range(count):
        frame = np.stack([255 * x / width, 255 * y / height, np.full_like(x, 4 * i % 256)], axis=-1).astype(np.uint8)
        for j, colour in enumerate(((255, 0, 0), (0, 255, 0), (0, 0, 255))):
            left = 8 + 2 * (i % 8)
            frame[8 + 18 * j : 20 + 18 * j, left : left + 24] = colour
        yield frame


def write(path, frames, fps=8.0):
    frames = iter(frames)
    first = next(frames)
    with open_writer(path, first.shape[1], first.shape[0], fps, overwrite=True) as writer:
        for frame in itertools.chain([first], frames):
            writer.write(frame)
    return path


def encode(
    path,
    frames,
    codec="libx264",
    rate=10,
    rotation=None,
    matrix=None,
    aspect=None,
    options=None,
    times=None,
    pixels="yuv420p",
    sound=None,
    **codec_options,
):
    """A video made without our writer: `rate` frames a second, or at `times` in milliseconds; `sound` of add_sound."""
    frames = list(frames)
    with av.open(str(path), "w", options=options or {}) as container:
        stream = cast(av.VideoStream, container.add_stream(codec, rate, options=codec_options))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation is not None:
            stream.set_display_rotation(rotation)
        if "a" in pixels[:5] and codec.startswith("libvpx"):
            stream.metadata["alpha_mode"] = "1"
        if matrix is not None:
            stream.set_display_matrix(matrix)
        finish_sound = add_sound(container, **sound) if sound else None
        for i, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, "rgb24" if image.shape[2] == 3 else "rgba")
            if times is not None:
                frame.pts, frame.time_base = times[i], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if finish_sound:
            finish_sound()
    return path


def add_sound(container, samples, rate=48000, codec="aac"):
    """Mono samples in [-1, 1]. Give the container its other streams, then call what this returns."""
    stream = container.add_stream(codec, rate)
    stream.layout = "mono"

    def finish():
        frame = av.AudioFrame.from_ndarray(np.asarray(samples, np.float32)[None], format="fltp", layout="mono")
        frame.rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))

    return finish


def read(path):
    with read_frames(path) as (info, frames):
        return info, np.stack(list(frames))


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert message
    assert "\n" not in message
    return message


def numbered(count, height=64, width=96):
    """Grey frames, told apart by their brightness."""
    return [np.full((height, width, 3), 20 + 7 * i, np.uint8) for i in range(count)]


def numbers(frames):
    """Which of `numbered` each frame is."""
    return [round((frame.mean() - 20) / 7) for frame in frames]

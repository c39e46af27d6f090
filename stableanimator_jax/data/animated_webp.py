"""Animated WebP made readable by FFmpeg, which knows still ones alone."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from PIL import Image, ImageSequence

from stableanimator_jax.errors import InputError, reason_of
from stableanimator_jax.files import ffmpeg_name

_MILLISECONDS = Fraction(1, 1000)
_UNSTATED = 100  # milliseconds that browsers show a frame without a time of its own


@contextmanager
def as_video(path: Path, label: str) -> Iterator[Path | None]:
    """For the `with` block, a file with the frames and times of an animated WebP, lossless; None for any other file.

    Raises:
        InputError: the animation is damaged, or there is no room for it as a video. `label` names it.
    """
    try:
        animation = Image.open(path, formats=["WEBP"])
    except Exception as e:  # no WebP, or a damaged one
        with path.open("rb") as file:
            head = file.read(64)
        if head[8:12] == b"WEBP" and b"ANIM" in head:
            raise InputError(f"{label} is damaged or cut short") from e
        yield None
        return
    with animation:
        if not getattr(animation, "is_animated", False):
            yield None
            return
        with tempfile.TemporaryDirectory() as folder:
            video = Path(folder) / "animation.mov"
            try:
                _convert(animation, video)
            except FFmpegError as e:
                raise InputError(f"no room for the frames of {label} in {folder}: {reason_of(e)}") from e
            except Exception as e:  # whatever Pillow's decoder thinks of it
                raise InputError(f"{label} is damaged or cut short: {e}") from e
            yield video


def _convert(animation: Image.Image, video: Path) -> None:
    with av.open(ffmpeg_name(video), "w") as container:
        stream = container.add_stream("png", 1000, options={"compression_level": "1"})
        stream.width, stream.height, stream.pix_fmt = *animation.size, "rgba"
        time = 0
        for image in ImageSequence.Iterator(animation):
            frame = av.VideoFrame.from_ndarray(np.asarray(image.convert("RGBA")), "rgba")
            frame.pts, frame.time_base = time, _MILLISECONDS
            duration = image.info.get("duration") or _UNSTATED
            time += duration
            for packet in stream.encode(frame):
                packet.duration = round(duration * _MILLISECONDS / packet.time_base)
                container.mux(packet)

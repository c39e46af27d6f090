"""Video files opened by PyAV, and their pictures with the time at which each is shown."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.sidedata.sidedata import SideData, Type
from av.stream import Disposition, Stream
from jaxtyping import UInt8
from PIL import Image

from stableanimator_jax.data.animated_webp import as_video
from stableanimator_jax.data.frame_rate import measured_rate
from stableanimator_jax.data.images import WHITE, Colour, laid_over
from stableanimator_jax.errors import InputError, reason_of
from stableanimator_jax.files import ffmpeg_name, require_file

Frame = UInt8[np.ndarray, "h w 3"]

_MEASURED_FRAMES = 500  # whose times tell a file's frame rate
_CLOCK = 4  # times as many frames as there are, and a stated rate is no frame rate
_TIMES_ALONE = ("gif", "apng")  # as WebP, these have a time for each frame, and no rate
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # FFmpeg's own leave WebM's transparency out


@dataclass(frozen=True)
class OpenVideo:
    """A file that has pictures, opened to be decoded once."""

    container: InputContainer
    stream: av.VideoStream
    label: str
    """Names the file in errors, as in "driving video a.mp4"."""
    background: Colour
    """Behind transparent pixels."""
    fps: float
    """Frames a second, as the file states them, on average where they vary; else as they usually come."""
    measured: bool
    """Whether `fps` is by the times of frames, which may waver, for want of a rate that the file states."""
    fps_note: str | None
    """What is to be said of a measured `fps`, "states no frame rate: …"; None where such files never state one."""

    @property
    def has_times(self) -> bool:
        """Whether the times that FFmpeg gives to frames can be used. In an AVI they are those of decoding, which it
        passes on in the order of showing."""
        return not (self.container.format.name == "avi" and self.stream.codec_context.has_b_frames)

    @property
    def origin(self) -> float:
        """Seconds on the file's own clock at which its pictures begin; times are counted from there."""
        return seconds(self.stream, self.stream.start_time)

    @property
    def length(self) -> float | None:
        """Seconds, as the file states them; None where it does not."""
        if self.stream.duration:
            return seconds(self.stream, self.stream.duration)
        if self.container.duration:
            return (
                self.container.duration / av.time_base - self.origin + (self.container.start_time or 0) / av.time_base
            )
        return None


@contextmanager
def open_video(path: Path, what: str, background: Colour = WHITE) -> Iterator[OpenVideo]:
    """Open a video file for the `with` block. `background` is the RGB behind transparent pixels.

    Raises:
        InputError: the file is missing, empty, no video, a still image or without pictures, or its index says that
            its end is missing.
    """
    require_file(path, what)
    label = f"{what} {path}"
    with as_video(path, label) as animation:
        file = animation or path
        try:
            container = av.open(ffmpeg_name(file))
        except (FFmpegError, OSError) as e:
            raise InputError(f"{label} is not a video that can be read, or is cut short") from e
        with container:
            if container.format.name.endswith("_pipe"):  # FFmpeg's readers of single images
                raise InputError(f"{label} is a still image, or an animation of a kind that cannot be read")
            stream = container.streams.best("video")
            if not isinstance(stream, av.VideoStream) or stream.disposition & Disposition.attached_pic:
                raise InputError(f"{label} has no pictures, only sound or other data")
            if _stated_end(file, container, stream) > file.stat().st_size:  # decoding alone may just stop early
                raise InputError(f"{label} is cut short: its end is missing")
            stream.thread_type = "AUTO"
            timed = animation is not None or container.format.name in _TIMES_ALONE
            yield OpenVideo(container, stream, label, background, *_frame_rate(file, container, stream, timed))


def _frame_rate(
    path: Path, container: InputContainer, stream: av.VideoStream, timed: bool
) -> tuple[float, bool, str | None]:
    """Frames a second, whether they are measured, and what is to be said of that. `timed` is a file whose kind states
    times alone."""
    # A stream without times, raw as a camera writes it, has no average: FFmpeg gives 25 whatever the codec says.
    average = stream.average_rate if stream.start_time is not None else None
    counted = "mp4" in container.format.name and stream.frames and not timed  # over the whole file, not guessed
    if average is None or not counted:
        measured = measured_rate(_times(path), max(seconds(stream, 1), 0.001))  # hardly any clock is truer
        if measured is not None and (timed or average is None or average > _CLOCK * measured):
            words = "no frame rate" if average is None else f"{float(average):g} frames a second, which are not there"
            note = f"states {words}: by the times of its frames it has about {measured:.4g} a second"
            return measured, True, None if timed else note
    return float(average or stream.guessed_rate or 25), False, None


def _times(path: Path) -> list[float]:
    """Of the first frames, in seconds on the file's own clock, as far as they can be read without decoding."""
    times: list[float] = []
    with suppress(FFmpegError), av.open(ffmpeg_name(path)) as container:
        stream = container.streams.best("video")
        assert stream is not None  # the caller has seen it
        for packet in islice(container.demux(stream), _MEASURED_FRAMES):
            ticks = packet.dts if packet.pts is None else packet.pts
            if ticks is not None:
                times.append(seconds(stream, ticks))
    return times


def _stated_end(path: Path, container: InputContainer, stream: av.VideoStream) -> int:
    """The byte where the file ends at the earliest, by what it says of itself; 0 where it does not say."""
    kind, index = container.format.name, stream.index_entries
    indexed = index[-1].pos + index[-1].size if len(index) else 0
    with path.open("rb") as file:
        if kind == "avi":
            return _avi_end(file.read(1 << 16))
        if "matroska" in kind:
            return _matroska_end(file.read(1 << 16))
        return max(indexed, _mp4_end(file)) if "mp4" in kind else indexed


def _mp4_end(file: BinaryIO) -> int:
    place = end = 0
    while len(head := file.read(16)) >= 8:
        size = int.from_bytes(head[:4])
        size = int.from_bytes(head[8:]) if size == 1 else size
        if head[4:8] in (b"moov", b"moof", b"mdat"):  # others may be somebody's padding
            end = place + size
        if size < 8 or place + size > sys.maxsize:  # up to the end of the file, or nonsense
            break
        place += size
        file.seek(place)
    return end


def _avi_end(head: bytes) -> int:
    place = head.find(b"movi")
    size = int.from_bytes(head[place - 4 : place], "little") if place >= 4 else 0
    return place + size if size < 0xFFFFFFFF else 0


def _matroska_end(head: bytes) -> int:
    place = head.find(b"\x18\x53\x80\x67") + 4  # the segment, which holds everything; its size's size is in its size
    if not 4 <= place < len(head) - 8:
        return 0
    size_bytes = 9 - head[place].bit_length()
    size = int.from_bytes(head[place : place + size_bytes]) - (1 << 7 * size_bytes)
    live = size == (1 << 7 * size_bytes) - 1  # all ones: a recording that was not at its end yet
    return 0 if live else place + size_bytes + size


def decode(video: OpenVideo, *, sought: bool = False) -> Iterator[tuple[float | None, av.VideoFrame]]:
    """The frames from where the file is, in the order in which they are shown, each with its time in seconds.

    Times start at 0 with the file's pictures. Where the file has none (raw streams, some AVIs), frames come at its
    average rate from the beginning on, and have None after a seek (`sought`: the file was moved from its beginning).

    Raises:
        InputError: damage, a missing end, or another size of picture.
    """
    count, time, size = 0, None if sought else -1 / video.fps, None

    def place() -> str:
        return f"at frame {count}" if not sought else "where its range begins" if time is None else f"at {time:.2f} s"

    try:
        for frame in _decoded(video):
            if frame.is_corrupt:
                raise InputError(f"{video.label} is damaged or cut short {place()}")
            if size not in (None, (frame.width, frame.height)):
                raise InputError(f"{video.label} changes the size of its pictures {place()}; convert it to one size")
            size = frame.width, frame.height
            if video.has_times and frame.pts is not None and frame.time_base is not None:
                time = float(frame.pts * frame.time_base) - video.origin
            elif time is not None:
                time += 1 / video.fps
            yield time, frame
            count += 1
    except FFmpegError as e:
        raise InputError(f"{video.label} is damaged or cut short {place()}: {reason_of(e)}") from e


def _decoded(video: OpenVideo) -> Iterator[av.VideoFrame]:
    transparent = {key.lower(): value for key, value in video.stream.metadata.items()}.get("alpha_mode") == "1"
    name = _ALPHA_DECODERS.get(video.stream.codec_context.name)
    if not transparent or name not in av.codecs_available:
        yield from video.container.decode(video.stream)
        return
    decoder = cast(av.VideoCodecContext, av.CodecContext.create(name, "r"))
    for packet in video.container.demux(video.stream):
        yield from decoder.decode(packet if packet.size else None)  # without bytes: the end


def to_image(video: OpenVideo, frame: av.VideoFrame) -> Frame:
    """The picture as it is shown: turned and mirrored as its display matrix says, its pixels square, on the background
    where it is transparent."""
    width = max(1, round(frame.width * (video.stream.sample_aspect_ratio or 1)))
    if any(component.is_alpha for component in frame.format.components) or frame.format.has_palette:
        image = np.array(laid_over(Image.fromarray(frame.to_ndarray(format="rgba", width=width)), video.background))
    else:
        image = frame.to_ndarray(format="rgb24", width=width)
    return np.ascontiguousarray(_as_displayed(image, frame))


def _as_displayed(image: Frame, frame: av.VideoFrame) -> UInt8[np.ndarray, "shown_h shown_w 3"]:
    # PyAV's `frame.rotation` leaves out whether the matrix mirrors. It takes (x, y) to (a x + c y, b x + d y).
    found = cast(Mapping[Type, SideData], frame.side_data)  # a mapping whose types leave out its keys'
    matrix = found.get(Type.DISPLAYMATRIX)
    if matrix is None:
        return image
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        image, a, d = image.transpose(1, 0, 2), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def seconds(stream: Stream, ticks: int | None) -> float:
    """A count of the stream's units of time in seconds; 0 for None."""
    return float((ticks or 0) * (stream.time_base or 0))

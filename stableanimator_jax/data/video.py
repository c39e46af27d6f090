"""Video files by PyAV: frames out of them, frames into them, one at a time.

Memory does not grow with a video's length: one frame (and the codec's few) is held at a time. Of an animated WebP
the library keeps all frames until the end, compressed, and joins equal ones into one of their whole time.
"""

import os
import shutil
import tempfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, count
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.container import OutputContainer
from av.error import FFmpegError
from av.filter import Graph
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from PIL import Image

from stableanimator_jax.data.decoding import Frame, decode, open_video, to_image
from stableanimator_jax.data.frame_rate import HIGHEST_FPS, LOWEST_FPS, exact_rate
from stableanimator_jax.errors import InputError, as_input_error
from stableanimator_jax.files import ffmpeg_name, neighbour, real_path

SUFFIXES = (".mp4", ".gif", ".webp")  # and none, for a directory
VIDEO_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".wmv", ".flv", ".gif", ".3gp")
)
"""Of files that are looked for in folders of videos. (A .webp is a picture as often.)"""


class FramesLeftOut(UserWarning):
    """A kind of file holds fewer frames a second than were asked for."""


@dataclass(frozen=True)
class VideoInfo:
    """Of a video as it is shown: upright, its pixels square."""

    width: int
    height: int
    fps: float
    """Frames a second, on average where they vary, or as they usually come where the file states no rate."""
    frame_count: int | None
    """As the file states it; None where it does not. A hint: the frames that come may be a few more or fewer."""


@contextmanager
def read_frames(path: Path, *, what: str = "video") -> Iterator[tuple[VideoInfo, Iterator[Frame]]]:
    """Open a video file; within the `with` block every frame of it comes once, as 8-bit RGB `[h, w, 3]`, whatever the
    time for which it is shown (`read_driving` goes by that).

    Rotation and mirroring (as phones write them) and non-square pixels are undone; transparency is laid over white.
    `what` names the file in errors.

    Raises:
        InputError: the file is missing, empty, no video, a still image or without pictures; or, when its frames
            are read, damaged or cut short.
    """
    with open_video(path, what) as video:
        frames = (to_image(video, frame) for _, frame in decode(video))
        first = next(frames, None)
        if first is None:
            raise InputError(f"{video.label} has no frames, or is cut short")
        yield VideoInfo(first.shape[1], first.shape[0], video.fps, video.stream.frames or None), chain([first], frames)


def output_suffix(output: Path) -> str:
    """By which an output's kind goes, in lower case; "" for a directory, whose name may end as `2026.11.27` does."""
    suffix = output.suffix.lower()
    return "" if suffix[1:].isdecimal() else suffix


def held_fps(output: Path, width: int, height: int, fps: float) -> float:
    """How many of `fps` frames a second `open_writer` will write: all, or as many as such files are played at.

    Raises:
        InputError: `fps` is out of range, or such a file cannot hold pictures of this size.
    """
    if not LOWEST_FPS <= fps <= HIGHEST_FPS:  # NaN fails too
        raise InputError(f"fps must lie between {LOWEST_FPS} and {HIGHEST_FPS}, got {fps}")
    kind = _KINDS[output_suffix(output)]
    if max(width, height) > kind.largest_side:
        raise InputError(
            f"cannot write {output}: a {output_suffix(output)} holds at most {kind.largest_side} pixels a side, "
            f"not {width}x{height}; give a smaller size, or a directory of PNGs"
        )
    return min(fps, kind.highest_fps)


def frames_left_out(output: Path, held: float, fps: float) -> str:
    """What to tell where `held_fps` is less than `fps`."""
    kind = output_suffix(output)
    return f"{output} gets only {held:g} of every {fps:g} frames: players slow a faster {kind} down; an .mp4 has all"


def check_writable(output: Path | str, inputs: Iterable[Path] = ()) -> None:
    """Find out before any computing that `open_writer(output)` will work. Leaves nothing behind.

    A file that is there is no obstacle, unless it is one of `inputs`; missing parent directories will be made.

    Raises:
        InputError: an unknown suffix, one of the inputs, a directory where a file is to be or the reverse, a
            directory that is not empty (whose frames may be somebody's) or that holds an input or the current
            directory, or a place that cannot be written to.
    """
    output = Path(output)
    suffix = output_suffix(output)
    if suffix and suffix not in SUFFIXES:
        raise InputError(
            f"cannot write {output}: the suffix {output.suffix} is not one of {', '.join(SUFFIXES)}"
            "; for a directory of PNGs give a name without a dot"
        )
    with as_input_error(f"cannot write {output}", ValueError):  # a name with a null character
        place, read = real_path(output), [real_path(path) for path in inputs]
        if place in read:
            raise InputError(f"cannot write {output}: it is an input too; name another output")
        here = Path.cwd()
        if place == here or any(place in path.parents for path in (here, *read)):
            raise InputError(f"cannot write {output}: it is the current directory or holds an input; name a new one")
        if suffix and output.is_dir():
            raise InputError(f"cannot write {output}: it is a directory")
        if not suffix and output.exists():
            if not output.is_dir():
                raise InputError(f"cannot write {output}: it is a file; without a suffix the output is a directory")
            if any(output.iterdir()):
                raise InputError(f"cannot write {output}: the directory is not empty; name a new one")
        ancestor = next(p for p in output.absolute().parents if os.path.lexists(p))  # not exists: a broken link counts
        with tempfile.TemporaryFile(dir=ancestor):
            pass


@contextmanager
def open_writer(
    output: Path | str,
    width: int,
    height: int,
    fps: float,
    finishing: Callable[[Path], object] | None = None,
    *,
    overwrite: bool = False,
    unfinished: Path | None = None,
) -> Iterator["VideoWriter"]:
    """Write a video frame by frame: `with open_writer(...) as video: video.write(frame)`.

    The kind is the suffix's: `.mp4` (H.264, plays everywhere), `.gif` (a palette of 256 colours for each frame, times
    in hundredths of a second), `.webp` (animated), or none for a directory of `frame_0.png`, `frame_1.png`, …
    Everything goes to a temporary neighbour that takes `output`'s name, and its place, when the block ends well; on
    any exception nothing is left. H.264 wants even sizes: an odd one gets its last row or column twice. Browsers show
    a GIF of more than 50 frames a second, and a WebP of more than 90, too slowly: of a faster video as many are left
    out, with a warning. The same frames always make the same file.

    Args:
        output: the file or directory; missing parents are made.
        width, height: of every frame in pixels.
        fps: frames a second.
        finishing: called with the finished temporary file before it takes its place, to change it still.
        overwrite: replace a file that is there. A directory with something in it never is.
        unfinished: where a directory's frames lie until all are there. After an exception they stay, and of those that
            are there the writer begins with the next (`count`). Of no use to a file.

    Raises:
        InputError: as `check_writable` and `held_fps`; a file is there that is not to be replaced; or writing fails, as
            on a full disk.
        ValueError: no frame was written, or one of another shape or type.
    """
    output = Path(output)
    check_writable(output)
    if not overwrite and output.is_file():
        raise InputError(f"{output} is there already: name another place, or give overwrite=True")
    held = held_fps(output, width, height, fps)
    if held < fps:
        warnings.warn(FramesLeftOut(frames_left_out(output, held, fps)), stacklevel=3)
    kept = None if output_suffix(output) else unfinished
    temporary = neighbour(output) if kept is None else kept
    made = [p for p in output.absolute().parents if not p.exists()]
    try:
        with as_input_error(f"cannot write {output}", FFmpegError):
            output.parent.mkdir(parents=True, exist_ok=True)
            temporary.parent.mkdir(exist_ok=True)
            encoder = _KINDS[output_suffix(output)].encoder(temporary, width, height, held)
        with closing(encoder):
            video = VideoWriter(encoder, (height, width, 3), output, Fraction(held) / Fraction(fps))
            if isinstance(encoder, _PngDirectory):
                video.begin_after(encoder.count())
            yield video
            if video.count == 0:
                raise ValueError("no frames were written")
            with as_input_error(f"cannot write {output}", FFmpegError):
                encoder.finish()
        if finishing is not None:
            finishing(temporary)
        with as_input_error(f"cannot write {output}", FFmpegError):
            temporary.replace(output)
    except BaseException:
        if kept is not None:
            raise
        shutil.rmtree(temporary, ignore_errors=True)  # a directory of PNGs
        with suppress(OSError):  # the error that had it removed is the one to tell
            temporary.unlink(missing_ok=True)
        with suppress(OSError):
            for directory in made:
                directory.rmdir()
        raise


class VideoWriter:
    """What `open_writer` gives: takes frames of the size it was opened for, in order."""

    def __init__(self, encoder: "_Encoder", shape: tuple[int, int, int], output: Path, share: Fraction):
        self._encoder = encoder
        self._shape = shape
        self._output = output
        self._share = share  # of the frames, evenly spread, that is written
        self._written = 0
        self.count = 0

    def begin_after(self, count: int) -> None:
        """So many frames are there already."""
        self.count = self._written = count

    def write(self, frame: Frame) -> None:
        """Add one 8-bit RGB frame."""
        if frame.shape != self._shape or frame.dtype != np.uint8:
            raise ValueError(f"frame {self.count} is {frame.dtype} {frame.shape}, expected uint8 {self._shape}")
        if int(self.count * self._share) == self._written:
            with as_input_error(f"cannot write {self._output}", FFmpegError):
                self._encoder.write(frame, self._written)
            self._written += 1
        self.count += 1


class _Encoder(ABC):
    """Writes numbered frames to one path."""

    @abstractmethod
    def write(self, image: Frame, index: int) -> None: ...

    def finish(self) -> None:  # noqa: B027 (a directory of images holds nothing back)
        """Write what is still held back."""

    def close(self) -> None:  # noqa: B027
        """Let go of the file, finished or not."""


class _PngDirectory(_Encoder):
    def __init__(self, path: Path, width: int, height: int, fps: float):
        del width, height, fps  # each PNG knows its size, and a directory has no speed
        path.mkdir(exist_ok=True)
        for cut_off in path.glob(".*.tmp"):
            cut_off.unlink()
        self.path = path

    def count(self) -> int:
        """Frames that are there, without a gap; each is whole."""
        return next(i for i in count() if not (self.path / f"frame_{i}.png").exists())

    def write(self, image: Frame, index: int) -> None:
        place = self.path / f"frame_{index}.png"
        Image.fromarray(image).save(part := neighbour(place), format="PNG")
        part.replace(place)


class _OneStream(_Encoder):
    """A file of one video stream, by FFmpeg."""

    def __init__(self, path: Path, container: str, options: dict[str, str], fps: float):
        self.rate = exact_rate(fps)
        self.container: OutputContainer = av.open(ffmpeg_name(path), "w", format=container, options=options)
        self.stream: av.VideoStream

    def video_frame(self, image: Frame, index: int) -> av.VideoFrame:
        frame = av.VideoFrame.from_ndarray(image, "rgb24")
        frame.pts, frame.time_base = index, 1 / self.rate
        return frame

    def encode(self, frame: av.VideoFrame | None) -> None:
        self.container.mux(self.stream.encode(frame))

    def finish(self) -> None:
        self.encode(None)
        self.container.close()

    def close(self) -> None:
        with suppress(FFmpegError):  # after a failure, which is the error to tell, it cannot be closed well
            self.container.close()


class _Mp4(_OneStream):
    def __init__(self, path: Path, width: int, height: int, fps: float):
        super().__init__(path, "mp4", {"movflags": "+faststart"}, fps)
        codec = next(name for name in _MP4_CODECS if name in av.codecs_available)
        if codec == "libx264":
            self.stream = self.container.add_stream(codec, self.rate, options={"crf": "16", "x264-params": _REPEATABLE})
        else:
            warnings.warn(f"PyAV's FFmpeg has no libx264: the MP4 is written with {codec}", stacklevel=4)
            self.stream = cast(av.VideoStream, self.container.add_stream(codec, self.rate))
            self.stream.bit_rate = round(width * height * fps / 4)
        # By default as many as there are cores, on which the result depends.
        self.stream.codec_context.thread_type, self.stream.codec_context.thread_count = "FRAME", 4
        self.padding = ((0, height % 2), (0, width % 2), (0, 0))
        self.stream.width, self.stream.height = width + width % 2, height + height % 2
        self.stream.pix_fmt = "yuv420p"
        # Written down so that players need not guess; they would go by the size.
        self.stream.colorspace, self.stream.color_range = Colorspace.ITU709, ColorRange.MPEG
        self.stream.color_primaries, self.stream.color_trc = ColorPrimaries.BT709, ColorTrc.BT709

    def write(self, image: Frame, index: int) -> None:
        frame = self.video_frame(np.pad(image, self.padding, mode="edge"), index)
        self.encode(frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG))


class _WebP(_OneStream):
    def __init__(self, path: Path, width: int, height: int, fps: float):
        super().__init__(path, "webp", {"loop": "0"}, fps)
        self.stream = self.container.add_stream("libwebp_anim", self.rate, options={"quality": "90"})
        self.stream.width, self.stream.height, self.stream.pix_fmt = width, height, "bgra"

    def write(self, image: Frame, index: int) -> None:
        self.encode(self.video_frame(image, index).reformat(format="bgra"))


class _Gif(_OneStream):
    """Each frame through FFmpeg's palettegen and paletteuse: one palette for all would need all frames first."""

    def __init__(self, path: Path, width: int, height: int, fps: float):
        super().__init__(path, "gif", {"loop": "0"}, fps)
        # Without its savings against the last frame: FFmpeg compares indices even where the palette was another.
        self.stream = self.container.add_stream("gif", self.rate, options={"gifflags": "0"})
        self.stream.width, self.stream.height, self.stream.pix_fmt = width, height, "pal8"
        self.graph = Graph()
        source = self.graph.add_buffer(
            width=width, height=height, format=av.VideoFormat("rgb24"), time_base=1 / self.rate
        )
        split, sink = self.graph.add("split"), self.graph.add("buffersink")
        palette = self.graph.add("palettegen", "stats_mode=single")
        quantised = self.graph.add("paletteuse", "new=1")
        source.link_to(split)
        split.link_to(palette, 0)
        split.link_to(quantised, 1, 0)
        palette.link_to(quantised, 0, 1)
        quantised.link_to(sink)
        self.graph.configure()

    def write(self, image: Frame, index: int) -> None:
        self.graph.vpush(self.video_frame(image, index))
        self._encode_quantised()

    def finish(self) -> None:
        self.graph.vpush(None)
        self._encode_quantised()
        super().finish()

    def _encode_quantised(self) -> None:
        with suppress(BlockingIOError, EOFError):  # the graph wants another frame, or is at its end
            while True:
                self.encode(self.graph.vpull())


_MP4_CODECS = ("libx264", "libopenh264", "mpeg4")

# x264's macroblock tree, in assembly, reads memory that nobody wrote: the same frames make another file each time. It
# is off, and so is all that differs between kinds of processors.
_REPEATABLE = "mbtree=0:cpu-independent=1"


@dataclass(frozen=True)
class _Kind:
    encoder: Callable[[Path, int, int, float], _Encoder]
    highest_fps: float = HIGHEST_FPS
    largest_side: int = 65535


# Browsers show a picture of 10 ms or less for 100 ms. GIF counts in hundredths of a second, WebP in thousandths.
_KINDS = {
    ".mp4": _Kind(_Mp4, largest_side=16384),
    ".gif": _Kind(_Gif, highest_fps=50),
    ".webp": _Kind(_WebP, highest_fps=90, largest_side=16383),
    "": _Kind(_PngDirectory),
}


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # the error that had it removed is the one to tell
            path.unlink()

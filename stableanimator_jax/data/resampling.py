"""The driving video: the frames of a range of it at a chosen frame rate."""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import av
from av.error import FFmpegError

from stableanimator_jax.data.decoding import Frame, OpenVideo, decode, open_video, seconds, to_image
from stableanimator_jax.data.frame_rate import HIGHEST_FPS, LOWEST_FPS, exact_rate
from stableanimator_jax.data.images import WHITE, Colour
from stableanimator_jax.errors import InputError

_Timed = tuple[float, av.VideoFrame]

# Seconds before the start to seek to, in turn, until the file is where decoding gives the frame that is wanted.
_STEPS_BACK = (0.0, 2.0, 10.0)

# Seconds between two frames beyond which a file's times are broken: they would be hours of one picture.
_LONGEST_STILL = 600.0
_LONGEST_JUMP_BACK = 1.0


@dataclass(frozen=True)
class DrivingInfo:
    """Of the frames that come: upright, pixels square."""

    width: int
    height: int
    fps: float
    """Frames a second of what comes; every frame is shown equally long."""
    source_fps: float
    """Frames a second of the file, on average where they vary."""
    fps_note: str | None
    """What is to be said of `fps` where it is the file's, but the file does not state it: "states no frame rate: …"."""
    start: float
    """Seconds into the file's pictures at which the first frame is shown."""
    frame_count: int | None
    """How many are expected by the length that the file states; None where it does not. A hint, no promise."""


@contextmanager
def read_driving(
    path: Path,
    *,
    start: float | None = None,
    end: float | None = None,
    fps: float | None = None,
    max_frames: int | None = None,
    background: Colour = WHITE,
    what: str = "driving video",
) -> Iterator[tuple[DrivingInfo, Iterator[Frame]]]:
    """Open a range of a video; within the `with` block its frames come one by one as 8-bit RGB `[h, w, 3]`.

    Output frame k is the one that the file shows at `start + k / fps` seconds: its last frame that begins no later,
    where a quarter of a frame's time later still counts as no later, because files round their times. So a variable
    frame rate comes out at its right speed, with frames repeated or left out. A repeated frame is the same array.

    The file is sought, not read, up to `start`, and one frame is held at a time.

    Args:
        path: a video file.
        start: seconds, from the first picture; the beginning where None.
        end: seconds, from the first picture; a frame shown from then on does not come. The video's end where None,
            or where it lies less than a second behind it.
        fps: frames a second of what comes; the file's own average where None. Where that is but measured, times waver:
            the frame nearest to each moment comes.
        max_frames: no more than this many.
        background: RGB behind transparent pixels.
        what: names the file in errors.

    Raises:
        InputError: as `read_frames`; the range is empty or not within the video; or `fps` (given) or `max_frames` is
            out of range.
    """
    begin = 0.0 if start is None else start
    _check_range(begin, end, fps, max_frames, f"{what} {path}")
    with ExitStack() as stack:
        video, timed = _open_at(stack, path, what, begin, end, background)
        rate = float(exact_rate(video.fps if fps is None else fps))
        early = (0.5 if fps is None and video.measured else 0.25) / max(rate, video.fps)
        frames = islice(_resample(video, timed, begin, end, rate, early), max_frames)
        first = next(frames, None)
        if first is None:
            raise InputError(
                f"{video.label} has no frames at {begin:g} s{_length_words(video)}; choose an earlier start"
                if begin
                else f"{video.label} has no frames, or is cut short"
            )
        stop = min((t for t in (end, video.length) if t is not None), default=None)
        count = None if stop is None else max(1, round((stop - begin) * rate))
        if max_frames is not None and count is not None:
            count = min(count, max_frames)
        note = video.fps_note if fps is None else None
        yield DrivingInfo(first.shape[1], first.shape[0], rate, video.fps, note, begin, count), chain([first], frames)


def _check_range(start: float, end: float | None, fps: float | None, max_frames: int | None, label: str) -> None:
    if not (math.isfinite(start) and start >= 0):
        raise InputError(f"{label}: the start must be 0 s or later, got {start:g} s")
    if end is not None and not (math.isfinite(end) and end > start):
        raise InputError(f"{label}: the end, {end:g} s, must lie after the start, {start:g} s")
    if fps is not None and not LOWEST_FPS <= fps <= HIGHEST_FPS:  # NaN fails too
        raise InputError(f"{label}: fps must lie between {LOWEST_FPS} and {HIGHEST_FPS}, got {fps:g}")
    if max_frames is not None and max_frames < 1:
        raise InputError(f"{label}: the number of frames must be at least 1, got {max_frames}")


def _open_at(
    stack: ExitStack, path: Path, what: str, start: float, end: float | None, background: Colour
) -> tuple[OpenVideo, Iterator[_Timed]]:
    """The video, and its frames from some time no later than `start`."""
    video = stack.enter_context(open_video(path, what, background))
    if (length := video.length) is not None:
        if start >= length:
            raise InputError(f"{video.label} is {length:.2f} s long and cannot start at {start:g} s")
        if end is not None and end > length + 1:
            raise InputError(f"{video.label} is {length:.2f} s long and cannot end at {end:g} s; leave the end out")
    if start > 0:
        for back in _STEPS_BACK:
            timed = _seek(video, max(0.0, start - back), start)
            if timed is not None:
                return video, timed
            video = stack.enter_context(open_video(path, what, background))  # a failed seek leaves the old one anywhere
    return video, ((time, frame) for time, frame in decode(video) if time is not None)


def _seek(video: OpenVideo, place: float, start: float) -> Iterator[_Timed] | None:
    """The frames from the key frame before `place`, or None where decoding from there does not give `start`'s."""
    tick = seconds(video.stream, 1)
    try:
        video.container.seek(int((video.origin + place) / tick), stream=video.stream)
        frames = decode(video, sought=True)
        first = next(frames, None)
    except (FFmpegError, InputError, ZeroDivisionError):  # no way to seek, or to a frame that needs earlier ones
        return None
    if first is None or first[0] is None or first[0] > start:
        return None
    return ((time, frame) for time, frame in chain([first], frames) if time is not None)


def _resample(
    video: OpenVideo, timed: Iterator[_Timed], start: float, end: float | None, fps: float, early: float
) -> Iterator[Frame]:
    """What is shown at `start`, `start + 1 / fps`, …, before `end` and the end of the video. A frame that begins less
    than `early` seconds later counts as shown: times are rounded, to milliseconds or worse."""
    stop = math.inf if end is None else max(end - early, math.nextafter(start, math.inf))  # one frame at least
    count = 0
    current = next(timed, None)
    while current is not None:
        time, frame = current
        following = next(timed, None)
        if following is not None:
            if not -_LONGEST_JUMP_BACK < following[0] - time < _LONGEST_STILL:
                raise InputError(
                    f"{video.label} is damaged: the times of its frames jump from {time:.2f} to {following[0]:.2f} s"
                )
            until = following[0] - early
        else:
            stated = seconds(video.stream, frame.duration)  # a tick of the clock where that was taken for the rate
            until = time + (max(stated, 1 / video.fps) if video.measured or not stated else stated) - early
        image = None
        while start + count / fps < min(until, stop):
            if image is None:
                image = to_image(video, frame)
            yield image
            count += 1
        if until >= stop:
            return
        current = following


def _length_words(video: OpenVideo) -> str:
    return "" if video.length is None else f" though it says that it is {video.length:.2f} s long"

import re

import av
import numpy as np
import pytest

from stableanimator_jax.data import resampling as driving
from stableanimator_jax.data.resampling import read_driving
from stableanimator_jax.errors import InputError
from tests.data.clips import encode, numbered, numbers, one_line, write


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """3 s at 10 frames a second with a key frame every 8 and frames stored out of order."""
    return encode(tmp_path_factory.mktemp("driving") / "a.mp4", numbered(30), g="8", bf="3")


def drive(path, **options):
    with read_driving(path, **options) as (info, frames):
        return info, numbers(frames)


def test_all_of_it(video):
    info, frames = drive(video)
    assert frames == list(range(30))
    assert (info.width, info.height, info.fps, info.source_fps) == (96, 64, 10, 10)
    assert (info.start, info.frame_count) == (0, 30)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"start": 1.3, "end": 2.1}, list(range(13, 21))),
        ({"start": 1.3, "max_frames": 3}, [13, 14, 15]),
        ({"end": 0.5}, [0, 1, 2, 3, 4]),
        ({"end": 0.501}, [0, 1, 2, 3, 4]),
        ({"end": 0.01}, [0]),  # never none
        ({"start": 1.31, "end": 1.32}, [13]),
        ({"start": 2.9}, [29]),
        ({"start": 1.35, "end": 1.65}, [13, 14, 15]),  # what is shown then
        ({"start": 1.3, "end": 2.1, "fps": 5}, [13, 15, 17, 19]),
        ({"fps": 20, "end": 0.4}, [0, 0, 1, 1, 2, 2, 3, 3]),
        ({"fps": 7.5}, [4 * i // 3 for i in range(23)]),
        ({"fps": 0.5}, [0, 20]),
        ({"end": 3.9}, list(range(30))),
        ({"start": 0.0, "max_frames": 100}, list(range(30))),
    ],
)
def test_ranges_and_rates(video, options, expected):
    info, frames = drive(video, **options)
    assert frames == expected
    assert info.frame_count == pytest.approx(len(expected), abs=1)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm", "ts", "avi", "h264", "gif"])
@pytest.mark.parametrize("first", [1, 7, 8, 9, 23, 29])
def test_every_start_is_exact(tmp_path, suffix, first):
    if suffix == "gif":
        path = write(tmp_path / "a.gif", numbered(30), fps=10)
    elif suffix == "webm":
        path = encode(tmp_path / "a.webm", numbered(30), codec="libvpx-vp9", g="8", **{"cpu-used": "8"})
    else:
        path = encode(tmp_path / f"a.{suffix}", numbered(30), g="8", bf="3")
    assert drive(path, start=first / 10)[1] == list(range(first, 30))


def test_what_comes_before_the_start_is_not_read(tmp_path, monkeypatch):
    path = encode(tmp_path / "a.mp4", numbered(30) * 10, g="10")
    decoded = []
    original = driving.decode

    def counted(*args, **options):
        for item in original(*args, **options):
            decoded.append(item[0])
            yield item

    monkeypatch.setattr(driving, "decode", counted)
    assert drive(path, start=25.5, end=26)[1] == [15, 16, 17, 18, 19]
    assert decoded[0] == pytest.approx(25)
    assert len(decoded) <= 12


VARIABLE = [0, 100, 133, 166, 200, 1200, 1233, 1266, 1300, 1400]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_variable_frame_rate(tmp_path, suffix):
    """Frames come at the times at which the file shows them, whatever the rate that its header states."""
    path = encode(tmp_path / f"a.{suffix}", numbered(10), times=VARIABLE, bf="0")
    info, frames = drive(path, fps=10)
    assert frames == [0, 1] + [4] * 10 + [5, 8, 9]
    assert info.fps == 10
    assert drive(path, fps=10, start=0.8, end=1.35)[1] == [4] * 4 + [5, 8]
    assert drive(path, fps=30, start=0, end=0.21)[1] == [0, 0, 0, 1, 2, 3, 4]


def test_rounded_times_neither_repeat_nor_drop_frames(tmp_path):
    times = [round(1000 * i / 30) for i in range(30)]
    path = encode(tmp_path / "a.mkv", numbered(30), rate=30, times=times)
    assert drive(path, fps=30)[1] == list(range(30))
    assert drive(path, fps=15)[1] == list(range(0, 30, 2))
    assert drive(path, fps=60)[1] == [i // 2 for i in range(60)]


def test_a_repeated_frame_is_converted_once(video):
    with read_driving(video, fps=20, max_frames=2) as (_, frames):
        first, second = frames
    assert first is second


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"start": -1.0}, "the start must be 0 s or later, got -1 s"),
        ({"start": float("nan")}, "the start must be"),
        ({"start": 2.0, "end": 2.0}, "the end, 2 s, must lie after the start, 2 s"),
        ({"end": 0.0}, "must lie after the start"),
        ({"start": 3.0}, "is 3.00 s long and cannot start at 3 s"),
        ({"start": 100.0, "end": 101.0}, "is 3.00 s long and cannot start at 100 s"),
        ({"start": 1.0, "end": 60.0}, "is 3.00 s long and cannot end at 60 s"),
        ({"fps": 0.0}, "fps must lie between 0.01 and 1000, got 0"),
        ({"fps": float("nan")}, "fps must lie between"),
        ({"fps": 1e6}, "fps must lie between"),
        ({"max_frames": 0}, "at least 1, got 0"),
    ],
)
def test_bad_ranges(video, options, words):
    with pytest.raises(InputError, match=re.escape(words)) as error, read_driving(video, **options):
        pass
    assert f"driving video {video}" in one_line(error)


def test_a_start_behind_the_end_of_a_file_of_unknown_length(tmp_path):
    path = encode(tmp_path / "a.h264", numbered(5))
    with pytest.raises(InputError, match="no frames at 2 s; choose an earlier start"), read_driving(path, start=2.0):
        pass


def test_times_that_jump(tmp_path):
    path = encode(tmp_path / "a.mkv", numbered(4), times=[0, 100, 200, 10_000_000], bf="0")
    with (
        pytest.raises(InputError, match=re.escape("times of its frames jump from 0.20 to 10000.00 s")),
        read_driving(path) as (_, frames),
    ):
        list(frames)


def test_pictures_that_change_their_size(tmp_path):
    """Two streams of another size, one after the other, as cameras and broadcasts write them."""
    small, large = encode(tmp_path / "a.ts", numbered(5)), encode(tmp_path / "b.ts", numbered(5, 128, 128))
    (tmp_path / "both.ts").write_bytes(small.read_bytes() + large.read_bytes())
    with (
        pytest.raises(InputError, match="changes the size of its pictures") as error,
        read_driving(tmp_path / "both.ts") as (_, frames),
    ):
        list(frames)
    one_line(error)


def test_damage_after_a_seek_tells_the_time(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (30, 64, 96, 3), dtype=np.uint8)
    path = encode(tmp_path / "a.mp4", noise, g="5", bf="0")
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    position, size = packets[23]
    data[position : position + size] = bytes(size)
    path.write_bytes(data)
    with read_driving(path, start=1.0, end=2.0) as (_, frames):
        assert len(list(frames)) == 10
    with (
        pytest.raises(InputError, match=r"damaged or cut short at 2\.\d+ s") as error,
        read_driving(path, start=1.5) as (_, frames),
    ):
        list(frames)
    one_line(error)

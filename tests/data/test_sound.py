import itertools

import av
import numpy as np
import pytest

from stableanimator_jax.data.sound import check_sound, copy_sound
from stableanimator_jax.errors import InputError
from tests.data.clips import encode, numbered, one_line, read, write

RATE = 48000


def beeps(duration=3.0, at=0.25):
    """A beep of 40 ms every quarter second, each of another pitch: sound out of place matches nowhere."""
    t = np.arange(round(duration * RATE)) / RATE
    pitch = 600 + 200 * np.floor(t / at)
    return np.where((t % at > 0.1) & (t % at < 0.14), 0.8 * np.sin(2 * np.pi * pitch * t), 0).astype(np.float32)


def sound_of(path, duration=3.0):
    """Codec, samples on the clock of the pictures, and where the last one ends, of a file's sound."""
    with av.open(str(path)) as container:
        stream, pictures = container.streams.audio[0], container.streams.video[0]
        origin = float(pictures.start_time * pictures.time_base)
        resampler = av.AudioResampler("flt", "mono", RATE)
        samples, end = np.zeros(round(duration * RATE), np.float32), 0
        for frame in itertools.chain(container.decode(stream), [None]):
            for piece in resampler.resample(frame):
                first = round((float(piece.pts * piece.time_base) - origin) * RATE)
                values = piece.to_ndarray()[0][max(0, -first) :]
                place = slice(max(0, first), min(len(samples), max(0, first) + len(values)))
                samples[place] = values[: max(0, place.stop - place.start)]
                end = max(end, place.stop)
        return stream.codec_context.codec.canonical_name, samples, end / RATE


def delay(a, b):
    """By how many seconds `a` comes after `b`, and how alike they are then."""
    length = 2 * len(a)
    alike = np.fft.irfft(np.fft.rfft(a, length) * np.conj(np.fft.rfft(b, length)))
    lag = int(np.argmax(alike))
    return (lag - length if lag > len(a) else lag) / RATE, alike.max() / np.linalg.norm(a) / np.linalg.norm(b)


@pytest.mark.parametrize("start", [0.0, 1.03])
@pytest.mark.parametrize(
    ("name", "codec", "expected"),
    [
        ("a.mp4", "aac", "aac"),
        ("a.ts", "aac", "aac"),  # its pictures and sound begin at 0.2 s
        ("a.mp4", "libmp3lame", "mp3"),
        ("a.avi", "libmp3lame", "mp3"),  # its times are as coarse as packets
        ("a.mkv", "ac3", "ac3"),
        ("a.mkv", "libopus", "opus"),
        ("a.mov", "alac", "alac"),
        ("a.mov", "pcm_s16le", "aac"),
        ("a.avi", "mp2", "aac"),
    ],
)
def test_sound_is_carried_over_in_time(tmp_path, name, codec, expected, start):
    source = encode(tmp_path / name, numbered(30), sound={"samples": beeps(), "codec": codec})
    video = write(tmp_path / "out.mp4", numbered(15), fps=10)
    info, before = read(video)
    assert check_sound(source, video)
    assert copy_sound(source, video, start)

    info_after, after = read(video)
    np.testing.assert_array_equal(after, before)
    assert info_after == info
    found, samples, end = sound_of(video)
    assert found == expected
    assert 1.5 - 0.06 < end < 1.5 + 0.03
    part = slice(0, round(1.4 * RATE))
    lag, likeness = delay(samples[part], sound_of(source)[1][round(start * RATE) :][part])
    assert abs(lag) < 0.001
    assert likeness > 0.98
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([name, "out.mp4"])


def test_until_the_end_of_the_range(tmp_path):
    source = encode(tmp_path / "a.mp4", numbered(30), sound={"samples": beeps()})
    video = write(tmp_path / "out.mp4", numbered(15), fps=10)
    assert copy_sound(source, video, 1.0, 1.7)
    _, _, end = sound_of(video)
    assert 0.67 < end <= 0.7
    assert len(read(video)[1]) == 15


def test_sound_that_is_shorter_or_longer(tmp_path):
    for duration, expected in ((0.5, 0.5), (9.0, 1.5)):
        source = encode(tmp_path / "a.mp4", numbered(30), sound={"samples": beeps(duration)})
        video = write(tmp_path / "out.mp4", numbered(15), fps=10)
        assert copy_sound(source, video)
        assert sound_of(video)[2] == pytest.approx(expected, abs=0.05)
        assert len(read(video)[1]) == 15


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
def test_no_sound_leaves_the_video_as_it_was(tmp_path, codec):
    silent = encode(tmp_path / "silent.mp4", numbered(30))
    short = encode(tmp_path / "short.mov", numbered(30), sound={"samples": beeps(0.5), "codec": codec})
    video = write(tmp_path / "out.mp4", numbered(5), fps=10)
    before = video.read_bytes()
    assert not check_sound(silent, video)
    assert not copy_sound(silent, video)
    assert not copy_sound(short, video, start=2.0)
    assert video.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("output", ["a.gif", "a.webp", "frames"])
def test_outputs_that_hold_no_sound(tmp_path, output):
    source = encode(tmp_path / "a.mp4", numbered(3), sound={"samples": beeps(0.3)})
    with pytest.raises(InputError, match="cannot hold sound") as error:
        check_sound(source, tmp_path / output)
    one_line(error)


def test_bad_sources(tmp_path):
    video = write(tmp_path / "out.mp4", numbered(5), fps=10)
    before = video.read_bytes()
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video\n" * 100)
    for name, words in (("missing.mp4", "does not exist"), ("empty.mp4", "is empty"), ("text.mp4", "cannot read")):
        with pytest.raises(InputError, match=words) as error:
            copy_sound(tmp_path / name, video)
        assert name in one_line(error)
    assert video.read_bytes() == before


def test_a_failure_in_the_middle_leaves_the_video_as_it_was(tmp_path, monkeypatch):
    source = encode(tmp_path / "a.mp4", numbered(30), sound={"samples": beeps()})
    video = write(tmp_path / "out.mp4", numbered(15), fps=10)
    before = video.read_bytes()
    written = []

    def fail(packet):
        written.append(packet)
        if len(written) == 10:
            raise OSError(28, "No space left on device")
        return packet.dts * packet.time_base

    monkeypatch.setattr("stableanimator_jax.data.sound._time", fail)
    with pytest.raises(InputError, match=r"cannot write .*out\.mp4: No space left on device") as error:
        copy_sound(source, video)
    one_line(error)
    assert video.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "out.mp4"]

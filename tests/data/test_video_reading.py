import itertools
from fractions import Fraction

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from stableanimator_jax.data.video import read_frames
from stableanimator_jax.errors import InputError
from tests.data.clips import clip, encode, one_line, read, write


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "mov", "ts"])
def test_containers(tmp_path, suffix):
    original = np.stack(list(clip(12)))
    info, frames = read(encode(tmp_path / f"a.{suffix}", original))
    assert info.fps == pytest.approx(10)
    assert frames.shape == original.shape
    assert np.abs(frames.astype(int) - original).mean() < 5


def test_gif(tmp_path):
    frames = [Image.fromarray(frame) for frame in clip(6)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=100)
    info, read_back = read(tmp_path / "a.gif")
    assert read_back.shape == (6, 64, 96, 3)
    assert info.fps == pytest.approx(10)


@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
def test_rotation_is_applied(tmp_path, rotation):
    original = np.stack(list(clip(4)))
    info, frames = read(encode(tmp_path / "a.mp4", original, rotation=rotation))
    expected = np.rot90(original, rotation // 90, axes=(1, 2))  # both anticlockwise
    assert (info.height, info.width) == expected.shape[1:3]
    assert np.abs(frames.astype(int) - expected).mean() < 5


def test_rotation_as_a_phone_writes_it(tmp_path):
    """A phone held upright: the file's matrix (0 1 -1 0 in 16.16 fixed point) turns the picture clockwise."""
    path = encode(tmp_path / "a.mp4", clip(3), rotation=-90)
    assert np.array([0, 65536, 0, -65536, 0], ">i4").tobytes() in path.read_bytes()
    _, frames = read(path)
    upright = np.rot90(next(clip(1)), -1)
    assert np.abs(frames[0].astype(int) - upright).mean() < 5


def test_pixels_are_made_square(tmp_path):
    info, frames = read(encode(tmp_path / "a.mp4", clip(3), aspect=Fraction(4, 3)))
    assert (info.width, info.height) == (128, 64)
    assert frames.shape == (3, 64, 128, 3)


def test_a_single_frame(tmp_path):
    info, frames = read(write(tmp_path / "a.mp4", clip(1)))
    assert len(frames) == 1
    assert info.frame_count == 1


def test_stopping_early_is_fine(tmp_path):
    path = write(tmp_path / "a.mp4", clip(30))
    with read_frames(path) as (_, frames):
        assert len(list(itertools.islice(frames, 3))) == 3


def only_sound(path, cover=False):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", 44100)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024 * 20), np.float32), format="fltp", layout="mono")
        samples.rate = 44100
        if cover:
            picture = container.add_stream("png", 1)
            picture.width, picture.height, picture.pix_fmt = 96, 64, "rgb24"
            picture.disposition = Disposition.attached_pic
            container.mux(picture.encode(av.VideoFrame.from_ndarray(next(clip(1)), "rgb24")))
        container.mux(stream.encode(samples))
        container.mux(stream.encode(None))
    return path


def test_bad_files(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video\n" * 100)
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    Image.fromarray(next(clip(1))).save(tmp_path / "a.png")
    for path, words in (
        (tmp_path / "missing.mp4", "does not exist"),
        (tmp_path / "empty.mp4", "is empty"),
        (tmp_path / "text.mp4", "is not a video"),
        (tmp_path / "noise.mp4", "is not a video"),
        (tmp_path, "is a directory"),
        (tmp_path / "a.png", "is a still image"),
        (only_sound(tmp_path / "sound.mp4"), "only sound"),
        (only_sound(tmp_path / "cover.mp4", cover=True), "only sound"),
    ):
        with pytest.raises(InputError, match=words) as error, read_frames(path, what="driving video"):
            pass
        assert f"driving video {path}" in one_line(error)


NOISE = np.random.default_rng(0).integers(0, 256, (30, 64, 96, 3), dtype=np.uint8)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.97, 0.999])
@pytest.mark.parametrize("kind", ["mp4", "faststart mp4", "avi"])
def test_truncated(tmp_path, kind, share):
    if kind == "avi":
        share = min(share, 0.97)  # after that comes only the index, and the video is whole without it
    options = {"movflags": "faststart"} if kind.startswith("faststart") else {}
    path = encode(tmp_path / f"a.{kind[-3:]}", NOISE, options=options)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError, match="cut short") as error:
        read(path)
    one_line(error)


def test_damaged_in_the_middle(tmp_path):
    path = write(tmp_path / "a.mp4", NOISE)
    data = bytearray(path.read_bytes())
    half = len(data) // 2
    data[half : half + len(data) // 10] = bytes(len(data) // 10)
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged or cut short at frame") as error:
        read(path)
    one_line(error)

import os
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageSequence

from stableanimator_jax.data import video
from stableanimator_jax.data.sound import copy_sound
from stableanimator_jax.data.video import FramesLeftOut, check_writable, open_writer, read_frames
from stableanimator_jax.errors import InputError
from tests.data.clips import clip, encode, numbered, numbers, one_line, read, write

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("fps", [1, 7, 24, 29.97, 60])
def test_mp4_round_trip(tmp_path, fps):
    original = np.stack(list(clip(20)))
    info, frames = read(write(tmp_path / "a.mp4", original, fps))
    assert (info.width, info.height, info.frame_count) == (96, 64, 20)
    assert info.fps == pytest.approx(fps, rel=1e-4)
    assert frames.shape == original.shape
    difference = np.abs(frames.astype(int) - original)
    assert difference.mean() < 4  # nearly all of it where the squares' chroma is halved
    inside = np.s_[0, 10:18, 12:26]  # of the red square: chroma is halved, so edges are soft
    assert difference[inside].max() <= 6


def test_mp4_plays_everywhere(tmp_path):
    path = write(tmp_path / "a.MP4", clip(5))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (context.color_range, context.colorspace) == (1, 1)  # limited, BT.709
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # it can start before it is loaded


_WRITE_ONE_CLIP = """
import hashlib, os, sys
from pathlib import Path

name, width, height, count, cores = sys.argv[1], *map(int, sys.argv[2:])
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
import numpy as np
from stableanimator_jax.data.video import open_writer

y, x = np.mgrid[:height, :width]
noise = np.random.default_rng(1).normal(0, 6, (height, width, 3))
with open_writer(name, width, height, 7) as video:
    for i in range(count):
        squares = 255 * ((x // (width // 8) + y // (height // 8) + i // 3) % 2)
        waves = [127 + 90 * np.sin((x + 2 * i) / width * 9), 127 + 90 * np.cos((y - i) / height * 7)]
        picture = np.stack([*waves, squares], axis=-1) + np.roll(noise, i, axis=0)
        video.write(np.clip(picture, 0, 255).astype(np.uint8))
print(hashlib.sha256(Path(name).read_bytes()).hexdigest())
"""


@pytest.mark.parametrize(
    ("name", "size", "count"),
    [("a.mp4", (64, 64), 24), ("a.mp4", (576, 1024), 5), ("a.gif", (64, 64), 5), ("a.webp", (64, 64), 5)],
)
def test_the_same_frames_make_the_same_file(tmp_path, name, size, count):
    """In processes whose fresh memory holds other things, and that have one core or all of them."""
    made = []
    for i, (rubbish, cores) in enumerate([(0, 1024), (85, 1024), (170, 1)]):
        (tmp_path / str(i)).mkdir()
        process = subprocess.Popen(
            [sys.executable, "-c", _WRITE_ONE_CLIP, name, *map(str, (*size, count, cores))],
            cwd=tmp_path / str(i),
            env=os.environ | {"PYTHONPATH": str(ROOT), "MALLOC_PERTURB_": str(rubbish)},
            stdout=subprocess.PIPE,
            text=True,
        )
        made.append(process)
    hashes = [process.communicate()[0] for process in made]
    assert len(hashes[0]) == 65
    assert hashes[1:] == hashes[:1] * 2


def test_mp4_without_libx264(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "_MP4_CODECS", ("no such codec", "mpeg4"))
    original = np.stack(list(clip(8)))
    with pytest.warns(UserWarning, match="no libx264"):
        write(tmp_path / "a.mp4", original)
    _, frames = read(tmp_path / "a.mp4")
    assert frames.shape == original.shape
    assert np.abs(frames.astype(int) - original).mean() < 15


@pytest.mark.parametrize(("height", "width"), [(63, 95), (64, 95), (63, 96), (1, 1), (17, 3)])
@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp", ""])
def test_odd_sizes(tmp_path, height, width, suffix):
    original = np.full((3, height, width, 3), (200, 60, 90), np.uint8)
    original[1] += 9  # WebP would join equal frames
    path = write(tmp_path / f"a{suffix}", original)
    if suffix == ".mp4":
        _, frames = read(path)
        assert frames.shape == (3, height + height % 2, width + width % 2, 3)
    elif suffix == "":
        frames = np.stack([np.asarray(Image.open(path / f"frame_{i}.png")) for i in range(3)])
        assert frames.shape == original.shape
    else:
        with Image.open(path) as image:
            frames = np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)])
        assert frames.shape == original.shape
    assert np.abs(frames[::2].astype(int) - (200, 60, 90)).max() <= 6
    assert np.abs(frames[1].astype(int) - (209, 69, 99)).max() <= 6


@pytest.mark.parametrize(("suffix", "error"), [(".gif", 8), (".webp", 4)])
@pytest.mark.parametrize("count", [1, 2, 12])
def test_animations(tmp_path, suffix, error, count):
    original = list(clip(count))
    path = write(tmp_path / f"a{suffix}", original)
    with Image.open(path) as image:
        assert len(list(ImageSequence.Iterator(image))) == count
        if count > 1:
            assert image.info["loop"] == 0  # for ever
        for frame, expected in zip(ImageSequence.Iterator(image), original, strict=True):
            assert np.abs(np.asarray(frame.convert("RGB")).astype(int) - expected).mean() < error
            if count > 1:
                assert frame.info["duration"] == pytest.approx(125, abs=5)


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_still_scene_keeps_its_frames(tmp_path, suffix):
    _, frames = read(write(tmp_path / f"a{suffix}", [next(clip(1))] * 9))
    assert len(frames) == 9


def delays(path):
    """Milliseconds that each frame is shown."""
    with Image.open(path) as image:
        return [frame.copy().info["duration"] for frame in ImageSequence.Iterator(image)]  # copying reads it


@pytest.mark.parametrize(
    ("suffix", "fps", "held", "shown"),
    [(".gif", 60, 50, {20}), (".gif", 120, 50, {20}), (".webp", 120, 90, {11, 12}), (".webp", 300, 90, {11, 12})],
)
def test_animations_too_fast_for_browsers(tmp_path, suffix, fps, held, shown):
    """A browser shows a picture of 10 ms or less for 100 ms: frames are left out evenly, the time is kept."""
    path = tmp_path / f"a{suffix}"
    with pytest.warns(FramesLeftOut, match=rf"a{suffix} gets only {held} of every {fps} frames.*an .mp4 has all"):
        write(path, (np.full((16, 16, 3), 4 * i, np.uint8) for i in range(60)), fps)
    found = delays(path)
    assert set(found) == shown
    assert sum(found) / 1000 == pytest.approx(60 / fps, abs=1.01 / held)
    with Image.open(path) as image:
        seen = [np.asarray(frame.convert("RGB")).mean() for frame in ImageSequence.Iterator(image)]
    wanted = [4 * -(-i * fps // held) for i in range(len(found))]  # the first one in each place
    assert np.abs(np.array(seen) - wanted).max() < 2.5


@pytest.mark.parametrize(("suffix", "fps"), [(".gif", 50), (".gif", 49.9), (".webp", 90), (".mp4", 1000), ("", 1000)])
def test_what_a_kind_of_file_holds_is_written_whole(tmp_path, suffix, fps):
    with warnings.catch_warnings(action="error"):
        path = write(tmp_path / f"a{suffix}", numbered(30), fps)
    if suffix == ".mp4":
        info, frames = read(path)
        assert info.fps == pytest.approx(fps)
        assert numbers(frames) == list(range(30))
    elif suffix == "":
        assert len(list(path.iterdir())) == 30
    else:
        found = delays(path)
        assert len(found) == 30
        assert min(found) > 10
        assert sum(found) == pytest.approx(30000 / fps, abs=10)


@pytest.mark.parametrize(("name", "side"), [("a.webp", 16383), ("a.mp4", 16384), ("a.gif", 65535)])
def test_the_largest_size_that_a_kind_of_file_holds(tmp_path, name, side):
    write(tmp_path / name, [np.zeros((1, side, 3), np.uint8)])
    for width, height in ((side + 1, 1), (1, side + 1)):
        with (
            pytest.raises(InputError, match=rf"at most {side} pixels a side, not {width}x{height}") as error,
            open_writer(tmp_path / name, width, height, 8, overwrite=True),
        ):
            pass
        one_line(error)


def test_gif_of_colours_that_come_back(tmp_path):
    colours = [(200, 60, 90), (209, 69, 99), (200, 60, 90), (0, 0, 0)]  # each frame's palette is its one colour
    _, frames = read(write(tmp_path / "a.gif", [np.full((16, 16, 3), c, np.uint8) for c in colours]))
    assert [tuple(frame[8, 8].tolist()) for frame in frames] == colours


def test_webp_joins_equal_frames_and_keeps_the_time(tmp_path):
    one, other = clip(2)
    write(tmp_path / "a.webp", [one] * 3 + [other] * 5)
    assert delays(tmp_path / "a.webp") == [375, 625]


def test_png_directory(tmp_path):
    original = list(clip(12))
    path = write(tmp_path / "new" / "frames", original)
    assert sorted(p.name for p in path.iterdir()) == sorted(f"frame_{i}.png" for i in range(12))
    for i, expected in enumerate(original):
        np.testing.assert_array_equal(np.asarray(Image.open(path / f"frame_{i}.png")), expected)


def test_png_directory_may_be_there_already_but_empty(tmp_path):
    path = tmp_path / "frames"
    path.mkdir()
    write(path, clip(2))
    with pytest.raises(InputError, match="not empty"):  # these might be somebody's poses
        write(path, clip(3))
    assert sorted(p.name for p in path.iterdir()) == ["frame_0.png", "frame_1.png"]
    assert list(tmp_path.iterdir()) == [path]


def test_files_are_replaced_and_readable_by_others(tmp_path):
    umask = os.umask(0o022)
    try:
        path = tmp_path / "a.mp4"
        path.write_text("old")
        with pytest.raises(InputError, match=r"a.mp4 is there already: name another place, or give overwrite=True"):
            open_writer(path, 96, 64, 8).__enter__()
        assert path.read_text() == "old"
        write(path, clip(3))
        assert len(read(path)[1]) == 3
        assert path.stat().st_mode & 0o777 == 0o644
        assert list(tmp_path.iterdir()) == [path]
    finally:
        os.umask(umask)


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp", ""])
@pytest.mark.parametrize("frames_before", [0, 3])
@pytest.mark.parametrize("exception", [RuntimeError, KeyboardInterrupt])
def test_an_exception_leaves_nothing(tmp_path, suffix, frames_before, exception):
    def fail():
        with open_writer(tmp_path / "new" / "er" / f"a{suffix}", 96, 64, 8) as writer:
            for frame in clip(frames_before):
                writer.write(frame)
            raise exception("stop")

    with pytest.raises(exception, match="stop"):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_an_exception_keeps_what_was_there(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_text("old")

    def fail():
        with open_writer(path, 96, 64, 8, overwrite=True) as writer:
            writer.write(next(clip(1)))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.mistyped
@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp", ""])
def test_no_frames_or_wrong_ones(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    with pytest.raises(ValueError, match="no frames"), open_writer(path, 96, 64, 8):
        pass
    for wrong in (np.zeros((96, 64, 3), np.uint8), np.zeros((64, 96, 3), np.float32), np.zeros((64, 96), np.uint8)):
        with pytest.raises(ValueError, match="frame 1 is"):
            write(path, [np.zeros((64, 96, 3), np.uint8), wrong])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf"), 1e9])
def test_bad_fps(tmp_path, fps):
    with pytest.raises(InputError, match="fps") as error, open_writer(tmp_path / "a.mp4", 96, 64, fps):
        pass
    one_line(error)


def test_a_full_disk(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(InputError, match=r"cannot write .*frames: No space left") as error:
        write(tmp_path / "frames", clip(3))
    one_line(error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_a_full_disk_while_encoding(tmp_path, suffix, monkeypatch):
    real_open = av.open
    monkeypatch.setattr(av, "open", lambda path, *args, **kwargs: real_open("/dev/full", *args, **kwargs))
    noise = np.random.default_rng(0).integers(0, 256, (60, 64, 96, 3), dtype=np.uint8)
    with pytest.raises(InputError, match="cannot write") as error:
        write(tmp_path / f"a{suffix}", noise)
    one_line(error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ""])
def test_memory_does_not_grow_with_frames(tmp_path, suffix):
    def peak(count):
        tracemalloc.start()
        try:
            write(tmp_path / f"{count}{suffix}", clip(count))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(2)  # imports
    frame = 64 * 96 * 3
    assert peak(100) < peak(20) + 10 * frame


# Checking an output before anything is computed


def test_check_writable_accepts_and_leaves_nothing(tmp_path):
    (tmp_path / "old.mp4").write_text("old")
    (tmp_path / "empty").mkdir()
    for name in ("a.mp4", "A.GIF", "a.webp", "frames", "old.mp4", "empty", "new/deep/a.mp4", "a.b.mp4"):
        check_writable(tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "old.mp4"]


def test_check_writable_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_writable(Path("a.mp4"))
    check_writable(Path("new/a.mp4"))


def test_check_writable_refuses(tmp_path):
    (tmp_path / "file").write_text("a file")
    (tmp_path / "directory.mp4").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    for name, words in (
        (
            "a.avi",
            r"suffix \.avi is not one of \.mp4, \.gif, \.webp; for a directory of PNGs give a name without a dot",
        ),
        ("2026.11.27b", r"suffix \.27b is not one of"),
        ("a.png", r"suffix \.png"),
        ("directory.mp4", "is a directory"),
        ("file", "is a file"),
        ("full", "is not empty"),
        ("file/a.mp4", "Not a directory"),
        ("a" * 300 + ".mp4", "File name too long"),
    ):
        with pytest.raises(InputError, match=words) as error:
            check_writable(tmp_path / name)
        assert str(tmp_path / name) in one_line(error)


def test_a_directory_named_by_the_date(tmp_path):
    write(tmp_path / "outputs" / "2026.11.27", clip(2))
    assert sorted(p.name for p in (tmp_path / "outputs" / "2026.11.27").iterdir()) == ["frame_0.png", "frame_1.png"]


@pytest.mark.parametrize("name", ["a:b.mp4", "http:b.mp4", "12:30:00/a:b.gif", "a:b.webp", "a:b"])
def test_relative_names_with_a_colon(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write(Path(name), clip(2))
    assert Path(name).exists()
    if name.endswith(("mp4", "gif")):
        assert len(read(Path(name))[1]) == 2


def test_sound_between_relative_names_with_a_colon(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    encode(tmp_path / "with:sound.mkv", clip(5), sound={"samples": np.sin(np.arange(24000) / 20)})
    write(Path("a:b.mp4"), clip(5))
    assert copy_sound(Path("with:sound.mkv"), "a:b.mp4")
    with read_frames(Path("a:b.mp4")) as (_, frames):
        assert len(list(frames)) == 5


def test_check_writable_protects_inputs(tmp_path, monkeypatch):
    (tmp_path / "a.mp4").touch()
    (tmp_path / "link.mp4").symlink_to(tmp_path / "a.mp4")
    monkeypatch.chdir(tmp_path)
    check_writable(Path("b.mp4"), [tmp_path / "a.mp4"])
    for name in ("a.mp4", "link.mp4"):
        with pytest.raises(InputError, match="is an input too"):
            check_writable(Path(name), [tmp_path / "other", tmp_path / "a.mp4"])


def test_check_writable_without_permission(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(video.tempfile, "TemporaryFile", refuse)  # as chmod would, but for root
    with pytest.raises(InputError, match=r"cannot write .*a\.mp4: Permission denied"):
        check_writable(tmp_path / "a.mp4")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc")
def test_check_writable_where_nobody_may_write():
    with pytest.raises(InputError, match=r"cannot write /proc/a\.mp4"):
        check_writable(Path("/proc/a.mp4"))


def test_path_as_text(tmp_path):
    with open_writer(str(tmp_path / "a.gif"), 16, 16, 5) as video:
        video.write(np.zeros((16, 16, 3), np.uint8))
    assert (tmp_path / "a.gif").is_file()

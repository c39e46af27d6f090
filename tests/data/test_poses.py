import re
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from stableanimator_jax.data.poses import load_poses
from stableanimator_jax.data.resampling import read_driving
from stableanimator_jax.errors import InputError
from tests.data.clips import clip, encode, numbered, numbers, one_line, write


def save(directory, numbers, name="frame_{}.png", height=64, width=96):
    """Frames that tell their number by their brightness."""
    directory.mkdir(exist_ok=True)
    for n in numbers:
        Image.fromarray(np.full((height, width, 3), n % 256, np.uint8)).save(directory / name.format(n))
    return directory


def test_directory_in_numeric_order(tmp_path):
    poses = load_poses(save(tmp_path / "poses", range(12)), 96, 64, "crop")
    assert poses.fps is None
    assert poses.frames.shape == (12, 64, 96, 3)
    assert poses.frames.dtype == np.uint8
    assert poses.frames[:, 0, 0, 0].tolist() == list(range(12))


def test_numbers_may_start_anywhere_and_have_zeros_before_them(tmp_path):
    save(tmp_path / "a", range(7, 11))
    save(tmp_path / "b", range(7, 11), "frame_{:04}.png")
    for name in ("a", "b"):
        assert load_poses(tmp_path / name, 96, 64, "crop").frames[:, 0, 0, 0].tolist() == [7, 8, 9, 10]


@pytest.mark.parametrize(
    "name",
    [
        "{:06}.png",
        "{}.png",
        "frame{}.png",
        "dance_{:05}_.png",
        "clip2-{}.png",
        "2026-11-27 take 3 ({}).png",
        "F_{}.PNG",
    ],
)
def test_any_consistent_names_in_numeric_order(tmp_path, name):
    save(tmp_path, range(8, 13), name)
    (tmp_path / "cover.png").touch()
    (tmp_path / "._8.png").touch()
    assert load_poses(tmp_path, 96, 64, "crop").frames[:, 0, 0, 0].tolist() == [8, 9, 10, 11, 12]
    (tmp_path / name.format(10)).unlink()
    with pytest.raises(InputError, match=rf"missing {re.escape(name.format(10))}$") as error:
        load_poses(tmp_path, 96, 64, "crop")
    one_line(error)


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "webp"])
def test_jpeg_and_webp(tmp_path, suffix):
    save(tmp_path, range(9, 12), f"frame_{{}}.{suffix}")
    levels = load_poses(tmp_path, 96, 64, "crop").frames[:, 0, 0, 0]
    np.testing.assert_allclose(levels.astype(int), [9, 10, 11], atol=1)


def test_several_sequences_in_one_directory(tmp_path):
    save(tmp_path, range(3), "pose_{}.png")
    save(tmp_path, [7], "cover {}.png")  # one is none
    assert len(load_poses(tmp_path, 96, 64, "crop").frames) == 3
    save(tmp_path, range(3), "depth_{}.png")
    with pytest.raises(
        InputError, match=r"2 numbered sequences .* of depth_0\.png and pose_0\.png; leave one"
    ) as error:
        load_poses(tmp_path, 96, 64, "crop")
    one_line(error)
    save(tmp_path, range(5))
    assert len(load_poses(tmp_path, 96, 64, "crop").frames) == 5  # frame_N.png are meant whatever else there is
    takes = tmp_path / "takes"
    save(takes, range(3), "take1_{}.png")
    save(takes, range(3), "take2_{}.png")
    with pytest.raises(InputError, match=r"of take1_0\.png and take2_0\.png"):
        load_poses(takes, 96, 64, "crop")


def test_other_files_do_not_matter(tmp_path):
    save(tmp_path, range(3))
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "frame_9.png.bak").touch()
    assert len(load_poses(tmp_path, 96, 64, "crop").frames) == 3


def test_bicubic_as_published_where_the_aspect_matches(tmp_path):
    frames = list(clip(2))
    write(tmp_path / "poses", frames)
    poses = load_poses(tmp_path / "poses", 192, 128, "pad").frames
    for pose, frame in zip(poses, frames, strict=True):
        expected = Image.fromarray(frame).resize((192, 128), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(pose, np.asarray(expected))


def test_crop_and_pad(tmp_path):
    save(tmp_path, [200])
    assert (load_poses(tmp_path, 64, 64, "crop").frames == 200).all()
    padded = load_poses(tmp_path, 96, 96, "pad").frames[0]
    assert (padded[20:76] == 200).all()
    assert not padded[:10].any()
    assert not padded[-10:].any()


def test_transparent_skeletons_are_on_black(tmp_path):
    skeleton = np.zeros((64, 96, 4), np.uint8)
    skeleton[20:40, 20:40] = (255, 0, 0, 255)
    Image.fromarray(skeleton).save(tmp_path / "frame_0.png")
    assert load_poses(tmp_path, 96, 64, "crop").frames[0, 0, 0].tolist() == [0, 0, 0]


def cut_out(count):
    """A square that moves, on white that is not to be seen."""
    for i in range(count):
        skeleton = np.full((64, 96, 4), (255, 255, 255, 0), np.uint8)
        skeleton[20:40, 20 + 8 * i : 40 + 8 * i] = (200, 0, 0, 255)
        yield skeleton


@pytest.mark.parametrize("name", ["a.mov", "a.webm", "a.gif", "a.webp", "a.png"])
def test_transparent_videos_are_on_black(tmp_path, name):
    frames, path = list(cut_out(4)), tmp_path / name
    if name == "a.mov":
        encode(path, frames, codec="png", pixels="rgba")
    elif name == "a.webm":
        encode(path, frames, codec="libvpx-vp9", pixels="yuva420p", **{"cpu-used": "8", "auto-alt-ref": "0"})
    else:
        images = [Image.fromarray(frame) for frame in frames]
        more = {"lossless": True} if name == "a.webp" else {"disposal": 1 + (name == "a.gif")}
        images[0].save(path, save_all=True, append_images=images[1:], duration=100, **more)
    poses = load_poses(path, 96, 64)
    assert poses.fps == 10
    assert len(poses.frames) == 4
    for i, pose in enumerate(poses.frames.astype(int)):
        assert pose[0, 0].tolist() == [0, 0, 0]
        assert np.abs(pose[30, 30 + 8 * i] - [200, 0, 0]).max() <= 8
    with read_driving(path) as (_, shown):  # a driving video has people cut out of it as a photo has
        assert next(shown)[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("suffix", ["gif", "webp"])
@pytest.mark.parametrize("fps", [7, 8, 12.5, 24, 30])
def test_animations_that_we_write(tmp_path, suffix, fps):
    path = write(tmp_path / f"a.{suffix}", numbered(16), fps=fps)
    poses = load_poses(path, 96, 64)
    assert poses.fps == pytest.approx(fps, rel=0.002)
    assert poses.fps_note is None
    assert numbers(poses.frames) == list(range(16))
    with read_driving(path, start=5 / fps, max_frames=3) as (_, frames):
        assert numbers(frames) == [5, 6, 7]


def test_an_animation_keeps_its_timing(tmp_path):
    still = [numbered(3)[i] for i in (0, 1, 1, 1, 2, 0)]  # frames that do not differ become one of their whole time
    assert numbers(load_poses(write(tmp_path / "a.webp", still, fps=10), 96, 64).frames) == [0, 1, 1, 1, 2, 0]


def test_a_damaged_animation(tmp_path):
    path = write(tmp_path / "a.webp", clip(9))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="cut short") as error:
        load_poses(path, 96, 64)
    assert f"poses {path}" in one_line(error)


def test_limit(tmp_path):
    directory = save(tmp_path / "poses", [*range(5), 7])
    assert len(load_poses(directory, 96, 64, "crop", limit=4).frames) == 4  # the gap lies after them
    video = write(tmp_path / "a.mp4", clip(9))
    assert len(load_poses(video, 96, 64, "crop", limit=4).frames) == 4
    assert len(load_poses(video, 96, 64, "crop", limit=400).frames) == 9
    with pytest.raises(InputError, match="at least 1"):
        load_poses(video, 96, 64, "crop", limit=0)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])  # the second does not state its number of frames
def test_video(tmp_path, suffix):
    original = np.stack(list(clip(150, height=32, width=48)))
    poses = load_poses(encode(tmp_path / f"a.{suffix}", original), 48, 32, "crop")
    assert poses.fps == pytest.approx(10)
    assert poses.frames.shape == original.shape
    assert np.abs(poses.frames.astype(int) - original).mean() < 8


@pytest.mark.parametrize("kind", ["directory", "mp4", "mkv"])
def test_memory_is_the_frames_at_the_output_size(tmp_path, kind):
    """Large poses shrunk: neither all large frames nor a second copy of the small ones is ever held."""
    frames = np.zeros((100, 256, 256, 3), np.uint8)
    path = write(tmp_path / "a", frames) if kind == "directory" else encode(tmp_path / f"a.{kind}", frames)
    load_poses(path, 64, 64, "crop", limit=1)  # imports
    tracemalloc.start()
    try:
        poses = load_poses(path, 64, 64, "crop").frames
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.35 * poses.nbytes + 8 * frames[0].nbytes


def test_gaps(tmp_path):
    for present, words in (
        ([0, 1, 3], r"missing frame_2\.png$"),
        ([0, 5], r"missing frame_1\.png to frame_4\.png$"),
        ([0, 2, 4, 6, 8, 10**12], r"missing frame_1\.png, frame_3\.png, frame_5\.png and 2 more gaps"),
    ):
        directory = save(tmp_path / str(len(present)), present)
        with pytest.raises(InputError, match=words) as error:
            load_poses(directory, 96, 64, "crop")
        assert str(directory) in one_line(error)


def test_the_same_frame_twice(tmp_path):
    save(tmp_path, [1])
    save(tmp_path, [1], "frame_{:03}.png")
    with pytest.raises(InputError, match=r"frame_001\.png and frame_1\.png are the same frame") as error:
        load_poses(tmp_path, 96, 64, "crop")
    one_line(error)
    (tmp_path / "frame_001.png").rename(tmp_path / "frame_1.jpg")
    with pytest.raises(InputError, match=r"frame_1\.jpg and frame_1\.png are the same frame"):
        load_poses(tmp_path, 96, 64, "crop")


def test_mixed_sizes(tmp_path):
    save(tmp_path, range(11))
    save(tmp_path, [9, 10], width=97)
    with pytest.raises(InputError, match=r"frame_9\.png is 97x64 pixels, but frame_0\.png is 96x64") as error:
        load_poses(tmp_path, 96, 64, "crop")
    one_line(error)


@pytest.mark.parametrize("damage", ["empty", "truncated", "text", "directory"])
def test_a_frame_that_cannot_be_read_is_named(tmp_path, damage):
    save(tmp_path, range(4))
    frame = tmp_path / "frame_2.png"
    if damage == "directory":
        frame.unlink()
        frame.mkdir()
    else:
        data = {"empty": b"", "truncated": frame.read_bytes()[:60], "text": b"not an image"}[damage]
        frame.write_bytes(data)
    with pytest.raises(InputError, match=r"frame_2\.png") as error:
        load_poses(tmp_path, 96, 64, "crop")
    one_line(error)


def test_no_poses(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "others").mkdir()
    for name in ("pose.png", "pose1.txt", "._pose1.png"):
        (tmp_path / "others" / name).touch()
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video")
    save(tmp_path / "one", [0])
    for path, words in (
        (tmp_path / "missing", "does not exist"),
        (tmp_path / "empty", r"no frame_0\.png"),
        (tmp_path / "others", r"no frame_0\.png"),
        (tmp_path / "empty.mp4", "is empty"),
        (tmp_path / "text.mp4", "is not a video"),
        (tmp_path / "one" / "frame_0.png", "is a still image"),
    ):
        with pytest.raises(InputError, match=words) as error:
            load_poses(path, 96, 64, "crop")
        assert f"poses {path}" in one_line(error)


def test_a_directory_without_permission(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(tmp_path), "iterdir", refuse)  # as chmod would, but for root
    with pytest.raises(InputError, match=r"cannot read poses .*: Permission denied"):
        load_poses(tmp_path, 96, 64, "crop")


def test_path_as_text_and_crop_unless_told(tmp_path):
    save(tmp_path / "poses", range(2))
    cropped = load_poses(tmp_path / "poses", 64, 64, "crop").frames
    np.testing.assert_array_equal(load_poses(str(tmp_path / "poses"), 64, 64).frames, cropped)

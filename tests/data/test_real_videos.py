"""Videos as cameras, phones, browsers and editors make them, through both readers: decoded rightly or refused."""

import av
import numpy as np
import pytest

from stableanimator_jax.data.decoding import decode, open_video
from stableanimator_jax.data.poses import load_poses
from stableanimator_jax.data.resampling import read_driving
from stableanimator_jax.data.video import read_frames
from stableanimator_jax.errors import InputError
from tests.data.clips import clip, encode, numbered, numbers, one_line, read

SOUND = {"samples": np.zeros(3 * 48000)}
QUIET = {"x265-params": "log-level=none"}
KINDS = {
    "H.264 in MP4": ("a.mp4", {}),
    "H.264 of phones": ("a.mov", {"g": "30", "bf": "0", "sound": SOUND}),
    "H.264 in MPEG-TS": ("a.ts", {"sound": SOUND}),
    "H.264 in AVI": ("a.avi", {"bf": "3"}),
    "H.264 in fragments": ("a.mp4", {"options": {"movflags": "frag_keyframe+empty_moov"}, "g": "10", "sound": SOUND}),
    "H.264 of 10 bits": ("a.mp4", {"pixels": "yuv420p10le"}),
    "H.264 of full colours": ("a.mkv", {"pixels": "yuv444p"}),
    "HEVC": ("a.mp4", {"codec": "libx265", "sound": SOUND, **QUIET}),
    "HEVC of 10 bits": ("a.mkv", {"codec": "libx265", "pixels": "yuv420p10le", **QUIET}),
    "VP9": ("a.webm", {"codec": "libvpx-vp9", "cpu-used": "8", "sound": SOUND | {"codec": "libopus"}}),
    "MJPEG in AVI": ("a.avi", {"codec": "mjpeg", "pixels": "yuvj420p", "sound": SOUND | {"codec": "pcm_s16le"}}),
    "MJPEG in QuickTime": ("a.mov", {"codec": "mjpeg", "pixels": "yuvj422p"}),
    "ProRes": ("a.mov", {"codec": "prores_ks", "pixels": "yuv422p10le", "sound": SOUND | {"codec": "pcm_s16le"}}),
}


def make(tmp_path, kind, frames, **more):
    name, options = KINDS[kind]
    if options.get("codec", "libx264") not in av.codecs_available:
        pytest.skip(f"PyAV's FFmpeg has no {options['codec']}")
    return encode(tmp_path / name, frames, **options | more)


def drive(path, **options):
    with read_driving(path, **options) as (info, frames):
        return info, np.stack(list(frames))


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_decoded_rightly(tmp_path, kind):
    path = make(tmp_path, kind, numbered(30))
    info, frames = read(path)
    assert (info.width, info.height, info.fps) == (96, 64, pytest.approx(10))
    assert frames.shape == (30, 64, 96, 3)
    assert numbers(frames) == list(range(30))
    assert np.ptp(frames, axis=-1).max() <= 3  # grey

    info, frames = drive(path)
    assert (info.width, info.height, info.fps, info.source_fps) == (96, 64, pytest.approx(10), pytest.approx(10))
    assert numbers(frames) == list(range(30))
    _, frames = drive(path, start=1.7, end=2.5, fps=20)
    assert numbers(frames) == [17 + i // 2 for i in range(16)]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_its_times(tmp_path, kind):
    with open_video(make(tmp_path, kind, numbered(12)), "video") as video:
        times = [time for time, _ in decode(video)]
    np.testing.assert_allclose(times, np.arange(12) / 10, atol=0.002)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_keeps_its_colours(tmp_path, kind):
    original = np.stack(list(clip(3)))
    for frames in (read(path := make(tmp_path, kind, original))[1], drive(path)[1]):
        assert frames.shape == original.shape
        assert np.abs(frames.astype(int) - original).mean() < 7
        for place in (np.s_[:, 12:16, 24:30], np.s_[:, 30:34, 24:30], np.s_[:, 48:52, 24:30]):  # the squares
            means = frames[place].mean(axis=(1, 2)), original[place].mean(axis=(1, 2))
            np.testing.assert_allclose(*means, atol=30)


@pytest.mark.parametrize("kind", KINDS)
def test_one_frame_of_each_kind(tmp_path, kind):
    # Of one frame alone libx265 gives a random time of decoding, unless it may not reorder.
    more = {"x265-params": "log-level=none:bframes=0"} if "HEVC" in kind else {}
    path = make(tmp_path, kind, numbered(1), **more)
    assert numbers(read(path)[1]) == [0]
    expected = [0, 0] if "MPEG-TS" in kind else [0]  # nothing there tells its rate, and H.264's is that of fields
    assert numbers(drive(path)[1]) == expected
    assert numbers(drive(path, max_frames=1)[1]) == [0]


# A stream for broadcast may stop anywhere: what was not sent is not missing.
WHOLE_ONLY = [kind for kind in KINDS if "MPEG-TS" not in kind]


@pytest.mark.parametrize("share", [0.4, 0.6, 0.95])
@pytest.mark.parametrize("kind", WHOLE_ONLY)
def test_each_kind_truncated_is_refused(tmp_path, kind, share):
    noise = np.random.default_rng(0).integers(0, 256, (30, 64, 96, 3), dtype=np.uint8)
    path = make(tmp_path, kind, noise)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    for reader in (read, drive):
        with pytest.raises(InputError, match="cut short") as error:
            reader(path)
        assert str(path) in one_line(error)


def test_a_truncated_transport_stream_ends_where_it_ends(tmp_path):
    path = make(tmp_path, "H.264 in MPEG-TS", numbered(30), g="5", bf="0")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    for reader in (read, drive):
        found = numbers(reader(path)[1])
        assert 5 < len(found) < 25
        assert found == list(range(len(found)))


def test_live_recordings_that_do_not_know_their_length(tmp_path):
    """As browsers write WebM: no size, no length, no index."""
    options = {"live": "1"}
    path = encode(tmp_path / "a.webm", numbered(30), codec="libvpx-vp9", options=options, g="10", **{"cpu-used": "8"})
    with open_video(path, "video") as video:
        assert video.length is None
    assert numbers(read(path)[1]) == list(range(30))
    assert numbers(drive(path, start=1.5, end=2.0)[1]) == list(range(15, 20))


@pytest.mark.parametrize(("height", "width"), [(63, 97), (65, 96), (64, 95), (17, 19)])
@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "libx264rgb"), ("a.avi", "mjpeg"), ("a.webm", "libvpx-vp9")])
def test_odd_sizes(tmp_path, name, codec, height, width):
    pixels = {"libx264rgb": "rgb24", "mjpeg": "yuvj420p", "libvpx-vp9": "yuv420p"}[codec]
    path = encode(tmp_path / name, numbered(5, height, width), codec=codec, pixels=pixels)
    for reader in (read, drive):
        info, frames = reader(path)
        assert (info.width, info.height) == (width, height)
        assert frames.shape == (5, height, width, 3)
        assert numbers(frames) == list(range(5))
        assert np.ptp(frames.astype(int), axis=(1, 2)).max() <= 6  # to the last row and column


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotated_by_a_display_matrix(tmp_path, rotation):
    original = np.stack(list(clip(6)))
    info, frames = drive(encode(tmp_path / "a.mp4", original, rotation=rotation), start=0.2)
    expected = np.rot90(original, rotation // 90, axes=(1, 2))[2:]
    assert (info.height, info.width) == expected.shape[1:3]
    assert np.abs(frames.astype(int) - expected).mean() < 5


MATRICES = {  # a, b, c, d: (x, y) goes to (a x + c y, b x + d y)
    (1, 0, 0, 1): lambda f: f,
    (-1, 0, 0, 1): lambda f: f[:, ::-1],  # a selfie
    (1, 0, 0, -1): lambda f: f[::-1],
    (-1, 0, 0, -1): lambda f: f[::-1, ::-1],
    (0, 1, -1, 0): lambda f: np.rot90(f, -1),  # clockwise
    (0, -1, 1, 0): lambda f: np.rot90(f),
    (0, 1, 1, 0): lambda f: f.transpose(1, 0, 2),  # a selfie held upright
    (0, -1, -1, 0): lambda f: f[::-1, ::-1].transpose(1, 0, 2),
}


@pytest.mark.parametrize("matrix", MATRICES)
def test_mirrored_and_rotated_by_a_display_matrix(tmp_path, matrix):
    a, b, c, d = (65536 * value for value in matrix)
    original = next(clip(1))
    path = encode(tmp_path / "a.mp4", [original] * 3, matrix=[a, b, 0, c, d, 0, 0, 0, 1 << 30])
    expected = MATRICES[matrix](original).astype(int)
    for info, frames in (read(path), drive(path)):
        assert (info.height, info.width) == expected.shape[:2]
        assert np.abs(frames[0].astype(int) - expected).mean() < 5


BROWSER = [0, 37, 72, 105, 135, 166, 194, 222, 250, 279, 315, 350]


@pytest.mark.parametrize("name", ["a.webm", "a.mkv", "a.flv", "a.avi"])
def test_a_clock_is_not_a_frame_rate(tmp_path, name):
    """As browsers record: times in milliseconds, and as a rate none or that of the clock."""
    if name == "a.webm":
        path = encode(tmp_path / name, numbered(12), "libvpx-vp9", 1000, times=BROWSER, **{"cpu-used": "8"})
    elif name == "a.avi":
        path = encode(tmp_path / name, numbered(12), "mjpeg", 1000, times=BROWSER, pixels="yuvj420p")
    else:
        path = encode(tmp_path / name, numbered(12), rate=1000, times=BROWSER, bf="0")
    assert read(path)[0].fps == pytest.approx(31.5, abs=0.6)
    info, frames = drive(path)
    assert info.fps == info.source_fps == pytest.approx(31.5, abs=0.6)
    assert info.fps_note is not None
    assert "by the times of its frames it has about 3" in info.fps_note
    assert numbers(frames) == list(range(12))  # wavering times neither repeat nor drop any
    poses = load_poses(path, 96, 64)
    assert numbers(poses.frames) == list(range(12))
    assert (poses.fps, poses.fps_note) == (info.fps, info.fps_note)
    info, frames = drive(path, fps=10)
    assert info.fps_note is None
    assert numbers(frames) == [0, 3, 6, 9]


def test_a_stated_rate_is_believed(tmp_path):
    info, frames = drive(
        encode(tmp_path / "a.mkv", numbered(12), rate=30, times=[round(i * 100 / 3) for i in range(12)])
    )
    assert (info.fps, info.fps_note) == (30, None)
    assert numbers(frames) == list(range(12))


def test_poses_keep_their_timing(tmp_path):
    """A video that stands still for a while, as a recording does while nothing changes."""
    path = encode(tmp_path / "a.mkv", numbered(6), rate=1000, times=[0, 100, 200, 300, 800, 900], bf="0")
    poses = load_poses(path, 96, 64)
    assert poses.fps == 10
    assert numbers(poses.frames) == [0, 1, 2, 3, 3, 3, 3, 3, 4, 5]


def test_variable_frame_rate_with_sound(tmp_path):
    """A phone that slows down in the dark; its average is what comes where no rate is asked for."""
    times = [*range(0, 500, 50), *range(500, 1500, 100)]
    path = encode(tmp_path / "a.mp4", numbered(20), times=times, sound=SOUND, bf="2")
    with open_video(path, "video") as video:
        np.testing.assert_allclose([time for time, _ in decode(video)], np.array(times) / 1000, atol=0.001)
    assert numbers(read(path)[1]) == list(range(20))  # every frame that there is
    info, frames = drive(path)
    assert info.fps == pytest.approx(20 / 1.45, rel=0.05)  # how long the last one is shown is not always written
    shown = np.searchsorted(np.array(times) / 1000, np.arange(len(frames)) / info.fps + 0.02, side="right") - 1
    assert np.abs(np.array(numbers(frames)) - shown).max() <= 1
    assert len(frames) == pytest.approx(20, abs=2)


def only_sound(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", 48000)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.float32), format="fltp", layout="mono")
        samples.rate = 48000
        container.mux(stream.encode(samples))
        container.mux(stream.encode(None))
    return path


def test_what_is_no_video_is_refused(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video\n" * 100)
    for path, words in (
        (tmp_path / "empty.mp4", "is empty"),
        (tmp_path / "text.mp4", "is not a video"),
        (tmp_path, "is a directory"),
        (tmp_path / "missing.mp4", "does not exist"),
        (only_sound(tmp_path / "a.m4a"), "only sound"),
        (only_sound(tmp_path / "a.ts"), "only sound"),
    ):
        for reader in (read_frames, read_driving):
            with pytest.raises(InputError, match=words) as error, reader(path):
                pass
            assert str(path) in one_line(error)

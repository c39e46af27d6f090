"""`prepare_data.py` as a user runs it, with stand-in models that really run."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stableanimator_jax.data.prepared import PreparedClips, read_dataset_file
from stableanimator_jax.data.published_layout import PublishedLayout
from stableanimator_jax.preparation import run
from stableanimator_jax.preparation.workers import stage_one
from stableanimator_jax.scripts.cli import run_script
from stableanimator_jax.scripts.prepare.command import main
from tests.preparation.training_videos import FLAGS, SIZE, flags, models, scene, tree_bytes, write_frames, write_video

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model_files(tmp_path_factory):
    return models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Three good videos in two places, one good folder, a copy, and what is bad or unfit."""
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "a.mkv", scene(30))
    write_video(folder / "deep" / "b.mkv", scene(45, seed=1))
    write_video(folder / "deep" / "c.mkv", scene(20, seed=2))
    write_frames(folder / "folder" / "images", scene(18, seed=3))
    (folder / "z copy.mkv").write_bytes((folder / "a.mkv").read_bytes())
    write_video(folder / "no face.mkv", scene(17, face=False))
    write_video(folder / "short.mkv", scene(5))
    (folder / "bad.mp4").write_bytes(b"nothing like a video" * 50)
    (folder / "cut short.mkv").write_bytes((folder / "a.mkv").read_bytes()[:30000])
    (folder / "notes.txt").write_text("no video")
    return folder


@pytest.fixture(scope="module")
def undisturbed(videos, model_files, tmp_path_factory):
    """The dataset of one run from beginning to end, by the script in a process of its own."""
    root = tmp_path_factory.mktemp("undisturbed") / "root"
    done = start(videos, root, model_files, "--work", str(root.parent / "work"))
    out, err = done.communicate()
    assert done.returncode == 0, err
    return root, out


def command(videos, root, model_files, *more):
    return ["videos", str(videos), "--output", str(root), "--validation", "0.4", *FLAGS, *flags(model_files), *more]


def start(videos, root, model_files, *more) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, ROOT / "prepare_data.py", *command(videos, root, model_files, *more)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def call(*argv: object) -> int:
    return run_script(main, [str(argument) for argument in argv])


@pytest.fixture
def in_process(monkeypatch):
    """Videos are staged in this process, one after the other: faster where processes are not what is tested."""

    def stage_all(sources, staging, files, workers):
        return [stage_one(source, staging, files) for source in sources]

    monkeypatch.setattr(run, "stage_all", stage_all)


def test_from_videos_to_clips(undisturbed):
    root, out = undisturbed
    data = read_dataset_file(root)
    assert list(data["buckets"]) == ["192x192"]
    clips = [
        c
        for s, n in data["buckets"]["192x192"].items()
        for c in map(PreparedClips(root, s, "192x192").__getitem__, range(n))
    ]
    lengths = {clip.name: clip.length for clip in clips}
    assert lengths == {
        "a.mkv-000000": 30,
        "deep/b.mkv-000000": 23,
        "deep/b.mkv-000023": 22,
        "deep/c.mkv-000000": 20,
        "folder-000000": 18,
    }
    for clip in clips:
        assert clip.has_face.all()
        ends = [0, clip.length - 1]
        assert clip.read_frames(ends).shape == (2, SIZE, SIZE, 3)
        assert clip.read_poses(ends).any()
        assert 0.005 < clip.read_masks(ends).mean() < 0.05
    assert sorted(data["failed"]) == ["bad.mp4", "cut short.mkv"]
    assert data["same"] == {"z copy.mkv": "a.mkv"}
    assert data["dropped"] == {"too short": 1, "no face": 1}
    assert "left out: bad.mp4: video bad.mp4 is not a video" in out
    assert "5 clips" in out
    assert not (root / ".work").exists()


def test_the_report_tells_what_happened_with_pictures(undisturbed):
    root, _ = undisturbed
    text = (root / "report.md").read_text()
    for words in (
        "Videos that went in: 9. Without any clip: 2. Could not be read: 2. There twice: 1.",
        "Clips kept: 5. Left out: 2.",
        "### no face",
        "bad.mp4",
        "z copy.mkv is the same",
    ):
        assert words in text
    pictures = {path.name for path in (root / "images").iterdir()}
    assert pictures == {part.split(")")[0] for part in text.split("](images/")[1:]}
    with Image.open(root / "images" / "sample-0.jpg") as sample:
        pixels = np.asarray(sample)
    assert pixels.shape == (SIZE, SIZE, 3)
    green = (pixels[..., 1].astype(int) - pixels[..., 0] > 120) & (pixels[..., 1] > 180)
    assert green[:40, 115:].any()  # the face's box; the skeleton is below
    assert not green[:40, :115].any()


def test_a_finished_dataset_is_left_as_it_is(undisturbed, videos, model_files, capsys):
    root, _ = undisturbed
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert call(*command(videos, root, model_files)) == 0
    assert "is there already: 5 clips" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


@pytest.mark.slow
def test_killed_three_times_and_run_again_gives_the_same_bytes(undisturbed, videos, model_files, tmp_path):
    root = tmp_path / "root"
    chosen = random.Random()
    seconds = []
    for _ in range(3):
        process = start(videos, root, model_files)
        seconds.append(chosen.uniform(1.5, 6))
        time.sleep(seconds[-1])
        process.kill()
        process.communicate()
    print("killed after", seconds)
    last = start(videos, root, model_files)
    _, err = last.communicate()
    assert last.returncode == 0, err
    assert tree_bytes(root) == tree_bytes(undisturbed[0])


@pytest.mark.parametrize("moves", range(5))
def test_killed_while_the_dataset_is_put_in_place(
    in_process, undisturbed, videos, model_files, tmp_path, monkeypatch, moves
):
    """Ended at each of the moves in turn, as `kill -9` would: nothing is cleaned up."""
    root = tmp_path / "root"
    replace = Path.replace
    left = [moves]

    class Killed(BaseException):
        pass

    def stop(self, target):
        if self.parent.name == "dataset":
            if left[0] == 0:
                raise Killed
            left[0] -= 1
        return replace(self, target)

    argv = command(videos, root, model_files, "--work", str(undisturbed[0].parent / "work"))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stop)
        if moves < 4:  # the bucket, images, report.md, dataset.json
            with pytest.raises(Killed):
                main(argv)
        else:
            main(argv)
    assert (root / "dataset.json").exists() == (moves == 4)
    assert call(*argv) == 0
    assert tree_bytes(root) == tree_bytes(undisturbed[0])


def test_ctrl_c_ends_the_processes_and_leaves_what_is_done(videos, model_files, tmp_path):
    process = start(videos, tmp_path / "root", model_files)
    staged = tmp_path / "root" / ".work" / "staged"
    while not any(staged.glob("*[!p]/result.json")) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=900)
    assert process.returncode == 130
    assert err.splitlines()[-2:] == [
        "note: the same command goes on where this one was stopped",
        "interrupted: nothing half-written is left",
    ]
    assert any(staged.iterdir())


@pytest.mark.long
def test_a_video_that_kills_its_process_is_listed_and_the_others_are_done(model_files, tmp_path, monkeypatch):
    folder = tmp_path / "videos"
    for name in ("a", "deadly", "z"):
        write_video(folder / f"{name}.mkv", scene(17, seed=ord(name[0])))
    site = tmp_path / "site"
    site.mkdir()
    # Spawned processes import this first; the video's name alone makes it deadly.
    (site / "sitecustomize.py").write_text(
        "import os, pathlib\n"
        "plain = pathlib.Path.open\n"
        "def open(self, *args, **kwargs):\n"
        "    if self.name == 'deadly.mkv':\n"
        "        os.kill(os.getpid(), 9)\n"
        "    return plain(self, *args, **kwargs)\n"
        "pathlib.Path.open = open\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{site}:{ROOT}")
    done = subprocess.run(
        [sys.executable, ROOT / "prepare_data.py", *command(folder, tmp_path / "root", model_files)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    data = read_dataset_file(tmp_path / "root")
    assert sorted(data["videos"]) == ["a.mkv", "z.mkv"]
    assert "died twice" in data["failed"]["deadly.mkv"]


def test_a_work_folder_spares_what_another_run_has_done(
    in_process, undisturbed, videos, model_files, tmp_path, monkeypatch
):
    work = undisturbed[0].parent / "work"
    assert call(*command(videos, tmp_path / "one", model_files, "--work", work)) == 0

    def never(*_):
        raise AssertionError("prepared again")

    from stableanimator_jax.preparation.staging import Staging

    monkeypatch.setattr(Staging, "_prepare", never)
    assert call(*command(videos, tmp_path / "two", model_files, "--work", work)) == 0
    # A video that cannot be read is tried again.
    failed = read_dataset_file(tmp_path / "two")["failed"]
    assert sorted(failed) == ["bad.mp4", "cut short.mkv"]


def test_faces_writes_masks_and_embeddings(model_files, tmp_path, capsys):
    def frames():
        yield from scene(2)
        yield from scene(1, face=False)

    images = write_frames(tmp_path / "data" / "one" / "images", frames(), first=4)
    assert call("faces", tmp_path, "--insightface-root", model_files["insightface_root"]) == 0
    assert "faces and embeddings.npy, a face in 2 of 3" in capsys.readouterr().out
    folder = images.parent
    masks = [np.asarray(Image.open(folder / "faces" / f"frame_{i}.png")) for i in (4, 5, 6)]
    assert [m.shape for m in masks] == [(SIZE, SIZE)] * 3
    assert set(np.unique(masks[0])) == {0, 255}
    rows, columns = np.nonzero(masks[0])
    assert abs((columns.min() + columns.max()) / 2 - 139.2) < 2
    assert rows.max() < 40
    assert masks[2].min() == 255  # no face: white, as in the published data
    embeddings = np.load(folder / "embeddings.npy")
    assert (embeddings.shape, embeddings.dtype) == ((3, 512), np.float32)
    assert embeddings.any(axis=1).tolist() == [True, True, False]

    before = tree_bytes(folder)
    (folder / "embeddings.npy").unlink()
    (folder / "faces" / "frame_4.png").write_bytes(b"mine")
    assert call("faces", tmp_path, "--insightface-root", model_files["insightface_root"]) == 0
    after = tree_bytes(folder)
    assert after["embeddings.npy"] == before["embeddings.npy"]
    assert after["faces/frame_4.png"] == b"mine"
    (folder / "faces" / "notes.txt").write_bytes(b"mine")
    call("faces", tmp_path, "--insightface-root", model_files["insightface_root"], "--overwrite")
    assert tree_bytes(folder)["faces/notes.txt"] == b"mine"
    assert "notes.txt in it is no frame's mask; move it away" in "".join(capsys.readouterr())
    (folder / "faces" / "notes.txt").unlink()
    assert call("faces", tmp_path, "--insightface-root", model_files["insightface_root"], "--overwrite") == 0
    assert tree_bytes(folder) == before


def test_folders_that_faces_has_completed_can_be_trained_on(model_files, tmp_path):
    write_frames(tmp_path / "one" / "images", scene(18))
    write_frames(tmp_path / "one" / "poses", scene(18, person=False))
    assert call("faces", tmp_path, "--insightface-root", model_files["insightface_root"]) == 0
    (tmp_path / "list.txt").write_text("one\n")
    (clip,) = PublishedLayout(tmp_path / "list.txt", (SIZE, SIZE))
    assert clip.has_face.all()
    assert 0.005 < clip.read_masks([3]).mean() < 0.05


def test_faces_of_one_folder_of_frames(model_files, tmp_path):
    write_frames(tmp_path, scene(2))
    assert call("faces", tmp_path, "--insightface-root", model_files["insightface_root"]) == 0
    assert (tmp_path / "faces" / "frame_1.png").exists()
    assert not (tmp_path / "faces" / "frame_2.png").exists()
    assert np.load(tmp_path / "embeddings.npy").shape == (2, 512)


def test_help_and_a_mistyped_command(capsys):
    assert call("--help") == 0
    assert call("videos", "--help") == 0
    assert "--filters.sharpness" in capsys.readouterr().out
    assert call("vidoes") == 2
    assert "did you mean videos?" in capsys.readouterr().err


def test_a_name_that_is_no_utf8(model_files, tmp_path, in_process, capsys):
    """Such as GBK, which archives of other systems have; also of what cannot be read, and a second time."""
    folder, root = tmp_path / "videos", tmp_path / "root"
    write_video(folder / "good.mkv", scene(20))
    (folder / "good.mkv").rename(folder / os.fsdecode(b"\xd6\xd0.mkv"))
    (folder / os.fsdecode(b"\xb0\xdc.mp4")).write_bytes(b"no video" * 100)
    flagged = ["videos", folder, "--output", root, "--validation", "0", *FLAGS, *flags(model_files)]
    assert call(*flagged) == 0
    assert r"left out: \xb0\xdc.mp4: video \xb0\xdc.mp4 is not a video" in capsys.readouterr().out
    assert PreparedClips(root, "train", "192x192")[0].name == r"\xd6\xd0.mkv-000000"
    data = read_dataset_file(root)
    assert list(data["videos"]) == [r"\xd6\xd0.mkv"]
    assert list(data["failed"]) == [r"\xb0\xdc.mp4"]
    assert r"\\xd6\\xd0.mkv-000000" in (root / "report.md").read_text(encoding="utf-8")
    assert call(*flagged) == 0
    assert "is there already: 1 clip" in capsys.readouterr().out


def test_an_output_that_is_no_utf8_is_refused_before_any_work(tmp_path, capsys):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"x")
    output = tmp_path / os.fsdecode(b"\xd6\xd0")
    assert call("videos", tmp_path / "videos", "--output", output) == 2
    assert r"\xd6\xd0: the name is no UTF-8" in capsys.readouterr().err
    assert not output.exists()

"""Long runs of `sample.py`: interrupted or killed and gone on with, they make the video of one that was not."""

import signal
import time

import numpy as np
import pytest

from stableanimator_jax.data.video import read_frames
from stableanimator_jax.locking import alone_in
from stableanimator_jax.scripts.sample.contact_sheet import ContactSheet
from tests.scripts.sample_script import QUICK, call, photo, pixels, poses, start, tree
from tests.training.mini_model import save_mini_model

FRAMES = 7


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    directory = tmp_path_factory.mktemp("inputs")
    return [
        "--reference", photo(directory / "photo.png"), "--poses", poses(directory / "poses", FRAMES),
        "--checkpoint", save_mini_model(directory / "checkpoint"), *QUICK, "--steps=20", "--keep-every=0",
        "--sampler=dpmpp_2m",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def straight(flags, tmp_path_factory):
    """The frames of a run that nothing interrupts; it leaves no latents."""
    output = tmp_path_factory.mktemp("straight") / "frames"
    assert call(*flags, "--output", output) == 0
    assert {path.name for path in output.parent.iterdir()} == {"frames", "frames.json", "frames.contact_sheet.png"}
    return pixels(output)


def interrupting(monkeypatch, after: int) -> None:
    """From now on an interrupt comes while the frame of this number is written."""
    add = ContactSheet.add

    def added(sheet, frame):
        if sheet.seen == after:
            raise KeyboardInterrupt
        add(sheet, frame)

    monkeypatch.setattr(ContactSheet, "add", added)


@pytest.mark.long
def test_killed_while_it_denoises(flags, straight, tmp_path):
    process = start(*flags, "--output", "film.mp4", cwd=tmp_path)
    kept = tmp_path / ".film.mp4.unfinished" / "latents.npz"
    deadline = time.monotonic() + 300
    while not kept.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert kept.exists()

    assert call(*flags, "--output", tmp_path / "whole.mp4") == 0
    assert call(*flags, "--output", tmp_path / "film.mp4", "--resume") == 0
    left = {name for name in tree(tmp_path) if not name.startswith(".cache")}
    beside = (".mp4", ".mp4.json", ".mp4.contact_sheet.png")
    # What was half-encoded when it was killed has a name of its own.
    assert {name for name in left if not name.endswith(".tmp")} == {a + b for a in ("film", "whole") for b in beside}
    assert (tmp_path / "film.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    with read_frames(tmp_path / "film.mp4") as (_, frames):
        assert len(list(frames)) == FRAMES


def test_interrupted_while_it_writes_the_frames_that_are_there_stay(flags, straight, tmp_path, monkeypatch, capsys):
    output = tmp_path / "frames"
    with monkeypatch.context() as patch:
        interrupting(patch, after=5)
        assert call(*flags, "--output", output) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "interrupted after step 20 of 20: the same command goes on by --resume"
    kept = tmp_path / ".frames.unfinished"
    assert {path.name for path in kept.iterdir()} == {"latents.npz", "frames", ".lock"}
    assert {path.name for path in (kept / "frames").iterdir()} == {f"frame_{i}.png" for i in range(6)}
    (kept / "frames" / ".frame_6.png-0badcafe.tmp").write_bytes(b"cut off")
    written = [(kept / "frames" / f"frame_{i}.png").stat().st_mtime_ns for i in range(6)]

    assert call(*flags, "--output", output, "--resume") == 0
    assert "going on after step 20 of 20" in capsys.readouterr().out
    np.testing.assert_array_equal(pixels(output), straight)
    assert [(output / f"frame_{i}.png").stat().st_mtime_ns for i in range(6)] == written
    assert {path.name for path in output.iterdir()} == {f"frame_{i}.png" for i in range(FRAMES)}
    assert {path.name for path in tmp_path.iterdir()} == {"frames", "frames.json", "frames.contact_sheet.png"}


@pytest.mark.long
def test_what_cannot_be_gone_on_with_is_told_and_nothing_is_lost(flags, straight, tmp_path, monkeypatch, capsys):
    output, kept = tmp_path / "frames", tmp_path / ".frames.unfinished" / "latents.npz"
    with monkeypatch.context() as patch:
        interrupting(patch, after=2)
        assert call(*flags, "--output", output) == 130
    before = kept.read_bytes()

    def refused(*more: object) -> str:
        capsys.readouterr()
        assert call(*flags, "--output", output, *more) == 2
        return capsys.readouterr().err.splitlines()[-1]

    assert "was begun by a run that did not end: go on by --resume, or begin anew by --overwrite" in refused()
    assert "--resume: sampling is not as when" in refused("--resume", "--seed", 5)
    other = photo(tmp_path / "other.png", (70, 70))
    assert "--resume: reference is not as when" in refused("--resume", "--reference", other)
    assert kept.read_bytes() == before
    kept.write_bytes(before[:1000])
    assert f"{kept} is damaged: begin anew by --overwrite without --resume" in refused("--resume")
    other.unlink()

    assert call(*flags, "--output", output, "--overwrite") == 0
    np.testing.assert_array_equal(pixels(output), straight)
    assert {path.name for path in tmp_path.iterdir()} == {"frames", "frames.json", "frames.contact_sheet.png"}


@pytest.mark.slow
def test_interrupted_again_it_keeps_how_far_it_came(flags, straight, tmp_path, monkeypatch, capsys):
    """Though this time it ran for less than a minute."""
    output = tmp_path / "frames"
    for after in (2, 4):
        with monkeypatch.context() as patch:
            interrupting(patch, after)
            assert call(*flags, "--output", output, *["--resume", "--keep-every=60"] * (after > 2)) == 130
        assert "interrupted after step 20 of 20" in capsys.readouterr().err
        assert len(list((tmp_path / ".frames.unfinished" / "frames").iterdir())) == after + 1
    with alone_in(tmp_path / ".frames.unfinished"):
        assert call(*flags, "--output", output, "--resume") == 2
        assert "another run is writing to" in capsys.readouterr().err.splitlines()[-1]
    assert call(*flags, "--output", output, "--resume") == 0
    np.testing.assert_array_equal(pixels(output), straight)


def test_what_somebody_has_in_a_folder_of_that_name_stays(flags, straight, tmp_path):
    notes = tmp_path / ".frames.unfinished" / "notes.txt"
    notes.parent.mkdir()
    notes.write_text("mine")
    assert call(*flags, "--output", tmp_path / "frames") == 0
    assert [path.name for path in notes.parent.iterdir()] == ["notes.txt"]
    np.testing.assert_array_equal(pixels(tmp_path / "frames"), straight)


def test_with_nothing_to_go_on_from_it_begins_and_a_short_run_leaves_nothing(
    flags, straight, tmp_path, monkeypatch, capsys
):
    quick = ["--keep-every=60", "--output", tmp_path / "frames", "--resume"]
    with monkeypatch.context() as patch:
        interrupting(patch, after=5)
        assert call(*flags, *quick) == 130
    told = capsys.readouterr()
    assert "there is nothing to go on from" in told.out
    assert told.err.splitlines()[-1] == "interrupted: nothing half-written is left"
    assert not list(tmp_path.iterdir())
    assert call(*flags, *quick) == 0
    np.testing.assert_array_equal(pixels(tmp_path / "frames"), straight)

"""Runs of `train.py` on data that fails them: damaged clips, and readers that are killed."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.data.published_folders import make_folder
from tests.preparation.test_encoding import spoil
from tests.scripts.test_train import wait_for
from tests.scripts.train_script import finish, losses, start, train, train_together
from tests.training.mini_model import save_mini_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four folders of frames, one of them with damage that shows only when it is decoded, one cut off."""
    folder = tmp_path_factory.mktemp("watch")
    save_mini_model(folder / "mini")
    for name in ("a", "b", "within", "cut"):
        make_folder(folder / name, 9, size=(64, 64))
    for number in range(9):
        spoil(folder / "within" / "images" / f"frame_{number}.png")
    image = folder / "cut" / "poses" / "frame_3.png"
    image.write_bytes(image.read_bytes()[:300])
    (folder / "list.txt").write_text("a\nb\nwithin\ncut\n")
    return folder


@pytest.fixture(scope="module")
def common(folder):
    data = ("--data.lists", str(folder / "list.txt"), "--data.sizes", "64x64", "--validation.every", "0")
    return ("--init-from", str(folder / "mini"), *data)


@pytest.mark.slow
def test_damaged_clips_are_left_out_told_and_listed_and_too_many_end_the_run_saved(folder, common):
    """One process and two train on the same; those that find more than allowed stop together."""
    flags = (*common, "--data.batch-size", "2", "--steps", "8", "--data.damaged", "0.5")
    said, complaint = train(folder, *flags, "--output", "alone")
    assert complaint.count("warning: a damaged clip is left out: ") == 2
    assert f"note: 2 damaged clips were left out; {folder / 'alone' / 'damaged_clips.json'} lists them" in said
    listed = json.loads((folder / "alone" / "damaged_clips.json").read_text())
    assert sorted((e["split"], e["bucket"], e["clip"]) for e in listed) == [("train", 0, 2), ("train", 0, 3)]
    lines = [json.loads(line) for line in (folder / "alone" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["data/damaged_clips"] == 2
    train_together(folder, 2, 1, *flags, "--output", "two")
    assert losses(folder / "two") == pytest.approx(losses(folder / "alone"), rel=1e-5)
    less = (*common, "--data.batch-size", "2", "--steps", "30", "--data.damaged", "0.25", "--data.seed", "1")
    _, complaint = train(folder, *less, "--output", "less", status=2)
    last = complaint.splitlines()[-1]
    assert "2 of 4 clips cannot be read, and --data.damaged 0.25 lets 1 of them be left out: " in last
    saved = [weights.parent.name for weights in (folder / "less" / "checkpoints").glob("*/weights")]
    assert [line.split()[0] for line in last.split("; step ")[1:]] == saved  # a step is named if there is one


@pytest.mark.slow
def test_a_killed_reader_leaves_a_saved_run(folder, common):
    flags = (*common, "--data.workers", "1", "--data.damaged", "0.5", "--steps", "1000", "--output", "killed")
    process = start(folder, *flags)
    wait_for(folder / "killed" / "metrics.jsonl", lambda file: file.read_text().strip())
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(int(child), signal.SIGKILL)
    _, complaint = finish(process, 2)
    last = next(line for line in complaint.splitlines() if line.startswith("error: "))
    assert last.startswith("error: a process that reads training data was killed")
    step = last.split("; step ")[1].split()[0]
    assert last.endswith(f"step {step} is saved, --resume goes on from it")
    assert (folder / "killed" / "checkpoints" / step / "weights").is_dir()
    assert "Traceback" not in complaint

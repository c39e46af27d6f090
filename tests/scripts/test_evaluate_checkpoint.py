"""`evaluate.py --checkpoint`: the weights in this package on drawn people, and on a list."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from examples.drawn_world.dataset import DatasetConfig, write
from stableanimator_jax.shipped import EXAMPLE
from tests.scripts.evaluate_script import call

ROOT = Path(__file__).parents[2]
QUICK = ["--checkpoint=embedded", "--steps=2", "--window=4", "--overlap=1"]

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """Three drawn people, four frames each."""
    place = tmp_path_factory.mktemp("drawn") / "dataset"
    write(DatasetConfig(output=place, people=1, validation=3, frames=4, workers=1, arcface="embedded"))
    return place


def result(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def test_one_command_samples_and_measures_drawn_people(dataset, tmp_path):
    command = [sys.executable, ROOT / "evaluate.py", *QUICK, "--dataset", dataset, "--output", "r", "--clips=2"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "StableAnimator of embedded; 2 videos of validation of" in done.stdout
    found = result(tmp_path / "r")
    assert len(found["videos"]) == 2
    assert set(found["summary"]["frames"].values()) == {4}
    assert found["sampled"]["sampling.steps"] == 2
    assert len(found["sampled"]["checkpoint's sha256"]) == 64
    videos = sorted((tmp_path / "r" / "videos").iterdir())
    assert len(videos) == 2
    frames = np.stack([np.asarray(Image.open(videos[0] / f"frame_{i}.png")) for i in range(4)])
    assert frames.shape == (4, 64, 64, 3)
    assert found["summary"]["metrics"]["psnr"]["value"] > 5
    assert (tmp_path / "r" / "report.html").read_text().count("<figure>") == 2


@pytest.mark.slow
def test_it_goes_on_and_other_settings_are_refused(dataset, tmp_path, capsys):
    flags = [*QUICK, "--dataset", dataset, "--output", tmp_path / "r"]
    assert call(*flags, "--clips=1") == 0
    made = tmp_path / "r" / "videos"
    (first,) = made.iterdir()
    before = first.stat().st_mtime_ns
    capsys.readouterr()
    assert call(*flags, "--clips=1") == 2
    assert "go on by --resume" in capsys.readouterr().err
    assert call(*flags, "--clips=1", "--resume", "--seed=3") == 2
    assert "(sampled: sampling.seed)" in capsys.readouterr().err
    assert call(*flags, "--clips=3", "--resume", "--worst=1") == 0
    assert len(result(tmp_path / "r")["videos"]) == 3
    assert first.stat().st_mtime_ns == before
    assert "1 of 3 videos are measured already" in capsys.readouterr().out
    other = tmp_path / "other"  # clips of the same names, where those were
    write(DatasetConfig(output=other, people=1, validation=3, frames=4, stride=2, workers=1, arcface="embedded"))
    moved = tmp_path / "dataset"
    shutil.copytree(dataset, moved)
    flags = [*QUICK, "--dataset", moved, "--output", tmp_path / "r2", "--clips=1"]
    assert call(*flags) == 0
    once = result(tmp_path / "r2")["videos"][0]["scores"]
    shutil.rmtree(moved)
    other.rename(moved)
    assert call(*flags, "--resume") == 0
    assert result(tmp_path / "r2")["videos"][0]["scores"] != once


def test_a_list_of_photos_and_poses(tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(4):
            pose = Image.open(EXAMPLE / "poses" / f"frame_{i}.png")
            pose.save(tmp_path / name / f"frame_{i}.png")
    rows = [
        {"name": "a", "reference": str(EXAMPLE / "reference.png"), "driving": "a", "truth": "b"},
        {"name": "still", "reference": str(EXAMPLE / "reference.png"), "driving": "", "truth": ""},
    ]
    with (tmp_path / "list.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    flags = [*QUICK, "--dataset", tmp_path / "list.csv", "--width=64", "--height=64", "--output", tmp_path / "r"]
    assert call(*flags) == 2
    assert "1 of 2 videos could not be measured" in capsys.readouterr().err
    found = result(tmp_path / "r")
    assert found["failed"] == {"still": "it has no driving poses"}
    assert found["summary"]["frames"] == {"a": 4}
    assert "psnr" in found["videos"][0]["scores"]

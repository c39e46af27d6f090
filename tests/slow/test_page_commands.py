"""The pages' commands, run as they stand in a folder like a clone: those that need nothing of the reader's; and those
of "Real people, step by step" and the README's, with stand-ins for the published weights and small sizes.

pytest -n 0 -m slow -s tests/slow/test_page_commands.py
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.make_stand_ins import make_stand_ins
from tests.page_commands import PAGES, ROOT, blocks, needs
from tests.perception import standin_models, standin_poses
from tests.perception.standin_models import CELL
from tests.preparation.training_videos import FLAGS, scene, write_video

pytestmark = pytest.mark.slow

PLAIN = {page: found for page in PAGES if (found := [line for line in blocks(page) if needs(line) is None])}
HUBS = {
    "--arcface hf://FrancisRing/StableAnimator": "--arcface hub",
    "hf://FrancisRing/StableAnimator": "hub/Animation",
    "hf://stabilityai/stable-video-diffusion-img2vid-xt": "hub/SVD",
}
SMALL = {
    "stableanimator sample": "--width 64 --height 64 --steps 1 --window 8 --overlap 2 --decode-chunk 2",
    "stableanimator prepare": " ".join(FLAGS),
    "stableanimator train": "--steps 2 --data.batch-size 1 --data.frames 2 --validation.every 0 --checkpoints.every 1",
}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder that has what a clone has, and no more."""
    for name in (
        "configs",
        "examples",
        "sample.py",
        "train.py",
        "convert_weights.py",
        "prepare_data.py",
        "evaluate.py",
    ):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def run(folder: Path, commands: Sequence[str]) -> None:
    """Each as a reader's shell would."""
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": programs, "PYTHONPATH": str(ROOT)}
    for command in commands:
        print("$", command, flush=True)
        subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=folder, env=environment, check=True)


@pytest.mark.parametrize("page", PLAIN, ids=lambda page: page.name)
def test_what_needs_nothing_of_the_readers(page: Path, clone: Path):
    run(clone, PLAIN[page])


@pytest.fixture
def readers(clone: Path) -> Path:
    """A reader's photo and videos, the models that look at them, and what the hubs have."""
    make_stand_ins(clone / "hub", tiny=True)
    standin_poses.write_models(clone / "models/DWPose")
    standin_models.write_models(clone / "models/antelopev2")
    picture = np.full((8 * CELL, 8 * CELL, 3), 35, np.uint8)
    standin_poses.draw_person(picture, (80, 64, 176, 240))
    picture[CELL : 2 * CELL, 3 * CELL : 4 * CELL] = (255, 0, 0)  # their face
    Image.fromarray(picture).save(clone / "person.jpg", format="PNG")  # exact colours, which JPEG has not
    for name in ("dance", "my_videos/a", "my_videos/b", "my_videos/c"):
        write_video(clone / f"{name}.mkv", scene(24, seed=len(name)))
    (clone / "dance.mkv").rename(clone / "dance.mp4")
    return clone


def small(command: str) -> str:
    """The command with what stands in for hubs, and with sizes that take seconds."""
    for hub, place in HUBS.items():
        command = command.replace(hub, place)
    return " ".join([command, *(flags for start, flags in SMALL.items() if command.startswith(start))])


def test_real_people_step_by_step(readers: Path):
    *imports, check = [
        small(line) for line in blocks(ROOT / "docs/real_people.md") if line.startswith("stableanimator")
    ]
    run(readers, [*imports, check])
    assert (readers / "person.mp4.check.html").is_file()
    assert not (readers / "person.mp4").exists()
    run(
        readers, [check.replace("--check ", ""), "stableanimator sample --from-json person.mp4.json --output again.mp4"]
    )
    assert (readers / "again.mp4").read_bytes() == (readers / "person.mp4").read_bytes()


def test_the_readme_from_a_photo_to_training(readers: Path):
    lines = blocks(ROOT / "README.md")
    wanted = [small(line) for line in lines if line.startswith("stableanimator")]
    sample, prepare, train, resume, evaluate = wanted
    imports = [small(line) for line in blocks(ROOT / "docs/real_people.md") if " import " in line]
    run(readers, [*imports, sample, prepare, train, resume.replace("--steps 2", "--steps 3")])
    for folder, seed in (("made", 0), ("truth", 1)):
        for name in ("a", "b"):
            noise = np.random.default_rng(seed).integers(0, 256, (4, 64, 64, 3), np.uint8)
            write_video(readers / folder / f"{name}.mkv", iter(noise.repeat(3, axis=1).repeat(3, axis=2)))
    (readers / "photos").mkdir()
    for name in ("a", "b"):
        (readers / "photos" / f"{name}.png").write_bytes((readers / "person.jpg").read_bytes())
    run(readers, [evaluate])
    assert (readers / "run/checkpoints/3").is_dir()
    assert (readers / "result").is_dir()

"""What the tests of `sample.py` share: inputs, and ways to run the script."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from stableanimator_jax.data.keypoints import Keypoints, save_keypoints
from stableanimator_jax.perception.keypoint_poses import poses_from_keypoints
from stableanimator_jax.scripts.cli import run_script
from stableanimator_jax.scripts.sample.command import main
from stableanimator_jax.shipped import EXAMPLE

ROOT = Path(__file__).parents[2]

# One shape for every test that computes, so that the models are compiled once.
QUICK = [
    "--width=64", "--height=64", "--steps=2", "--window=4", "--overlap=1", "--hjb.iterations=0", "--hjb.every=1",
    "--no-compilation-cache",
]  # fmt: skip


def call(*argv: object) -> int:
    """The script within this process: its exit status."""
    return run_script(main, [str(argument) for argument in argv])


def start(*argv: object, cwd: Path, **environment: str) -> subprocess.Popen[str]:
    """The script as a user runs it, with a home directory of its own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    return subprocess.Popen(
        [sys.executable, ROOT / "sample.py", *map(str, argv)],
        cwd=cwd,
        env={**inherited, "JAX_PLATFORMS": "cpu", "HOME": str(cwd), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def photo(path: Path, size: tuple[int, int] = (80, 96)) -> Path:
    """A colourful picture, larger than the output and not of its aspect."""
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8)).save(path)
    return path


def poses(directory: Path, count: int = 5, size: int = 64) -> Path:
    """The first poses of the example."""
    directory.mkdir()
    for i in range(count):
        with Image.open(EXAMPLE / "poses" / f"frame_{i}.png") as pose:
            pose.resize((size, size)).save(directory / f"frame_{i}.png")
    return directory


def pixels(directory: Path) -> np.ndarray:
    """A directory of PNGs as `[f, h, w, 3]`."""
    files = [directory / f"frame_{i}.png" for i in range(len(list(directory.iterdir())))]
    return np.stack([np.asarray(Image.open(file)) for file in files])


def tree(directory: Path) -> set[str]:
    """Everything below a directory, by name."""
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*")}


def prepare_dance(checkpoint: Path, dance: Keypoints) -> None:
    """Weights as mini, photo.png, dance.json and the skeletons drawn from it, in the working directory."""
    Path("mini").symlink_to(checkpoint)
    photo(Path("photo.png"))
    save_keypoints(Path("dance.json"), dance)
    Path("skeletons").mkdir()
    for i, frame in enumerate(poses_from_keypoints(dance).frames):
        Image.fromarray(frame).save(f"skeletons/frame_{i}.png")

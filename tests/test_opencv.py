"""On a system without the libraries that OpenCV's wheel needs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stableanimator_jax import opencv
from stableanimator_jax.data.prepared import PreparedClips
from stableanimator_jax.errors import InputError
from tests.data.clips import clip, write

ROOT = Path(__file__).parents[1]

# As Python's loader fails where libGL is missing; in place of the real OpenCV from the start.
_WITHOUT_LIBGL = """
import runpy, sys

class Loader:
    def find_spec(self, name, path=None, target=None):
        if name == "cv2":
            raise ImportError("{reason}")

sys.meta_path.insert(0, Loader())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
_LIBGL = "libGL.so.1: cannot open shared object file: No such file or directory"


def run(directory: Path, reason: str, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _WITHOUT_LIBGL.replace("{reason}", reason), str(ROOT / script), *arguments]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    "command",
    [
        ("sample.py", "--insightface-root=d"),
        ("sample.py", "--driving=a.mp4", "--dwpose=d", "--align=off", "--width=64", "--height=64"),
        ("prepare_data.py", "videos", "videos", "--output=root", "--insightface-root=i", "--dwpose=d"),
        ("prepare_data.py", "faces", "videos", "--insightface-root=i"),
    ],
    ids=" ".join,
)
def test_what_to_install_is_one_line(tmp_path, command):
    (tmp_path / "d").mkdir()
    write(tmp_path / "videos" / "a" / "images", clip(1))
    write(tmp_path / "a.mp4", clip(1))
    done = run(tmp_path, _LIBGL, *command)
    assert done.returncode == 2, done.stderr
    assert done.stderr == (
        f"error: OpenCV cannot be loaded ({_LIBGL}); install what it needs of the system: apt-get install "
        "libgl1 libglib2.0-0 (Debian and Ubuntu)\n"
    )


def test_training_data_is_not_begun_on(tmp_path, monkeypatch):
    monkeypatch.setattr(opencv, "cv2", opencv._Missing(ImportError(_LIBGL)))
    with pytest.raises(InputError, match=r"OpenCV cannot be loaded \(libGL.*apt-get install libgl1"):
        PreparedClips(tmp_path, "train", "512x512")


def test_without_the_package(tmp_path):
    done = run(tmp_path, "No module named 'cv2'", "sample.py", "--insightface-root=.")
    assert done.returncode == 2
    assert done.stderr == "error: OpenCV cannot be loaded (No module named 'cv2'); pip install opencv-python\n"


@pytest.mark.parametrize("command", [("sample.py",), ("train.py",), ("prepare_data.py", "videos")], ids=" ".join)
def test_help_needs_none(tmp_path, command):
    done = run(tmp_path, _LIBGL, *command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "--output" in done.stdout

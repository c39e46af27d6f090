"""Files in general: every kind that Git LFS left a pointer of is told as that."""

from collections.abc import Callable
from pathlib import Path

import pytest

from stableanimator_jax.config import read_json
from stableanimator_jax.data.face_track import load_face_boxes
from stableanimator_jax.data.images import load_image
from stableanimator_jax.data.poses import load_poses
from stableanimator_jax.data.video import read_frames
from stableanimator_jax.errors import InputError
from stableanimator_jax.perception.dwpose import DWPose
from stableanimator_jax.perception.faces import FaceAnalyser, load_face_embedding
from stableanimator_jax.weights.onnx_arcface import read_onnx_arcface
from stableanimator_jax.weights.state_dict_files import open_state_dict

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 123456\n".format("ab" * 32)


def _index(file: Path) -> None:
    index = file.with_name("model.safetensors.index.json")
    index.write_text(f'{{"weight_map": {{"a": "{file.name}"}}}}')
    open_state_dict(index)


def _video(file: Path) -> None:
    with read_frames(file):
        pass


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("x.safetensors", open_state_dict),
        ("x.safetensors", _index),
        ("x.pth", open_state_dict),
        ("x.bin", open_state_dict),
        ("x.safetensors.index.json", open_state_dict),
        ("x.onnx", read_onnx_arcface),
        ("det.onnx", lambda file: FaceAnalyser(file.parent)),
        ("yolox_l.onnx", lambda file: DWPose(file, file)),
        ("x.npy", load_face_embedding),
        ("x.png", load_image),
        ("x.jpg", load_image),
        ("x.mp4", _video),
        ("x.mp4", lambda file: load_poses(file, 64, 64)),
        ("frame_0.png", lambda file: load_poses(file.parent, 64, 64)),
        ("config.json", read_json),
        ("x.json", lambda file: load_face_boxes(file, reference_size=(8, 8))),
    ],
)
def test_git_lfs_pointers(name: str, read: Callable[[Path], object], tmp_path: Path):
    file = tmp_path / "models" / "antelopev2" / name
    file.parent.mkdir(parents=True)
    file.write_text(POINTER)
    with pytest.raises(InputError, match=rf"{name} is only a Git LFS pointer to the file: run `git lfs pull`") as error:
        read(file)
    assert len(str(error.value).splitlines()) == 1

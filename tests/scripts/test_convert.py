"""`convert_weights.py` as a person runs it, from a directory of theirs."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from stableanimator_jax.weights.checkpoint import describe
from tests.make_stand_ins import make_stand_ins

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}


# As Ctrl-C does, at the moment when the checkpoint's first folder is made.
INTERRUPTED_WITHIN = """
import os, signal, sys

def interrupt(event, arguments):
    if event == "os.mkdir" and ".c.unfinished/" in str(arguments[0]):
        os.kill(os.getpid(), signal.SIGINT)

sys.addaudithook(interrupt)
"""


def start(directory: Path, *arguments: str, first: str = "") -> subprocess.Popen[str]:
    """The script as a person runs it; `first` is Python that is run before it."""
    script = str(ROOT / "convert_weights.py")
    before = f"{first}\nimport runpy, sys\nsys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, *(["-c", before] if first else []), script, *arguments]
    return subprocess.Popen(
        command,
        cwd=directory,
        env=os.environ | ENVIRONMENT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def run(directory: Path, *arguments: str, first: str = "") -> tuple[int, str, str]:
    process = start(directory, *arguments, first=first)
    out, err = process.communicate(timeout=900)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("files")
    make_stand_ins(root, tiny=True, file_format="safetensors")
    return root


@pytest.mark.long
def test_in_look_and_out(files: Path, tmp_path: Path):
    svd, networks = f"--svd={files / 'SVD'}", f"--stableanimator={files / 'Animation'}"
    status, out, err = run(tmp_path, "import", svd, networks, f"--arcface={files}", "--output=checkpoint")
    assert (status, out) == (0, "wrote checkpoint: unet, vae, image_encoder, face_encoder, pose_net, arcface\n"), err
    assert "unet: 100%" in err  # progress by tensor
    assert describe(tmp_path / "checkpoint").models[0] == "unet"

    status, out, err = run(tmp_path, "inspect", "checkpoint")
    assert status == 0, err
    for model in ("unet", "vae", "image_encoder", "face_encoder", "pose_net", "arcface"):
        assert f"\n{model}: " in f"\n{out}"
    assert "sha256 " in out
    assert out.count("every value is finite") == 6

    status, out, err = run(tmp_path, "export", "--checkpoint=checkpoint", "--output=back", "--format=safetensors")
    assert status == 0, err
    for line in out.splitlines():
        assert (tmp_path / line.removeprefix("wrote ")).is_file()
    vae = "SVD/vae/diffusion_pytorch_model.safetensors"
    found, expected = load_file(tmp_path / "back" / vae), load_file(files / vae)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[key], expected[key]) for key in expected)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["back", "checkpoint"]


def test_a_part_alone_says_what_is_missing_for_sampling(files: Path, tmp_path: Path):
    status, out, _ = run(tmp_path, "import", f"--arcface={files}", "--output=c", "--dtype=bfloat16")
    assert status == 0
    assert "note: sample.py and train.py also need unet, vae, image_encoder, pose_net, face_encoder" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["imprt"], "unknown command 'imprt'; did you mean import? (see convert_weights.py --help)"),
        (["dance"], "unknown command 'dance': give one of import, export, inspect (see convert_weights.py --help)"),
        (["import"], "give --output CHECKPOINT, the directory to make"),
        (["import", "--output", "c"], "nothing to import: give --svd, --stableanimator or --arcface (or several)"),
        (["import", "--outptu", "c"], "--output"),
        (["import", "--dtype", "float8"], "float8"),
        (["export", "--output", "c"], "give --checkpoint CHECKPOINT, a directory or the word embedded"),
        (["export", "--checkpoint", "embedded"], "give --output DIR, the directory to make"),
        (["export", "--checkpoint", "nowhere", "--output", "c"], "nowhere does not exist"),
        (["inspect"], "give the checkpoint to inspect, a directory or the word embedded"),
        (["inspect", "nowhere"], "nowhere does not exist"),
    ],
)
def test_wrong_commands_are_one_line_and_status_2(arguments: list[str], message: str, tmp_path: Path):
    status, out, err = run(tmp_path, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_every_problem_of_a_file_is_in_the_one_line(files: Path, tmp_path: Path):
    for name in ("unet", "pose_net", "face_encoder"):
        tensors = load_file(files / f"Animation/{name}.safetensors")
        if name == "pose_net":
            tensors.pop("scale")
            tensors |= {"extra": np.ones(1, np.float32), "final_proj.bias": np.ones(3, np.float32)}
        save_file(tensors, tmp_path / f"{name}.safetensors")
    status, out, err = run(tmp_path, "import", f"--svd={files / 'SVD'}", "--stableanimator=.", "--output=c")
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    for expected in ("pose_net.safetensors", "extra [1]", "scale [1]", "final_proj.bias is [3], the model takes [32]"):
        assert expected in err
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("arguments", [[], ["--help"], ["import", "--help"], ["export", "-h"], ["inspect", "--help"]])
def test_help(arguments: list[str], tmp_path: Path):
    status, out, err = run(tmp_path, *arguments)
    assert (status, err) == (0, "")
    assert "convert_weights.py" in out
    if arguments[:1] == ["import"]:
        assert "--stableanimator" in out
        assert "Norms, scales" in " ".join(out.split())


@pytest.mark.slow
def test_an_interrupted_import_leaves_nothing_and_can_be_repeated(files: Path, tmp_path: Path):
    arguments = ("import", f"--svd={files / 'SVD'}", f"--arcface={files}", "--output=c")
    status, _, err = run(tmp_path, *arguments, first=INTERRUPTED_WITHIN)
    assert status == 130, err
    assert err.splitlines()[-1].startswith("interrupted")
    assert list(tmp_path.iterdir()) == []
    status, _, err = run(tmp_path, *arguments)
    assert status == 0, err

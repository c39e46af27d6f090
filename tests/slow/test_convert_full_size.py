"""The converter at the published size: stand-ins with exactly the published files' names, shapes and dtypes.

Needs 45 GB of disk under the temporary directory and 16 GB of memory, and takes tens of minutes on two cores. Prints
the time and peak memory of every step; run with `-s` to see them:

    pytest -m slow -s tests/slow/test_convert_full_size.py

Every step is a process of its own, measured by the operating system.
"""

import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from stableanimator_jax.weights.checkpoint import describe
from stableanimator_jax.weights.state_dict_files import open_state_dict

ROOT = Path(__file__).parents[2]
GB = 10**9
UNET_BYTES = 1.554 * 4 * GB  # the largest model, in float32

pytest.importorskip("torch", reason="the published .pth files need torch")
pytestmark = pytest.mark.slow


def measured(title: str, *arguments: str) -> float:
    """Run Python in the repository's root; returns the process's peak memory in bytes."""
    begin = time.monotonic()
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    process = os.posix_spawn(sys.executable, [sys.executable, *arguments], environment)
    _, status, usage = os.wait4(process, 0)
    seconds, peak = time.monotonic() - begin, usage.ru_maxrss * 1024
    print(f"\n{title}: {seconds:.0f} s, peak memory {peak / GB:.2f} GB", flush=True)
    assert os.waitstatus_to_exitcode(status) == 0
    return peak


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory):
    directory = tmp_path_factory.mktemp("full_size")
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def stand_ins(place: Path) -> Path:
    measured("stand-ins", "-m", "tests.make_stand_ins", "--output", str(place / "files"))
    return place / "files"


@pytest.fixture(scope="module")
def checkpoint(stand_ins: Path, place: Path) -> Path:
    peak = measured(
        "import",
        str(ROOT / "convert_weights.py"),
        *("import", "--svd", str(stand_ins / "SVD"), "--stableanimator", str(stand_ins / "Animation")),
        *("--arcface", str(stand_ins / "Animation/glintr100_torch.pth"), "--output", str(place / "checkpoint")),
    )
    # No model is ever held whole.
    assert peak < 5 * GB
    assert len(describe(place / "checkpoint").models) == 6
    return place / "checkpoint"


SHARDED = """
import sys, jax
jax.config.update("jax_num_cpu_devices", 8)
from stableanimator_jax.parallel import fsdp_shardings, make_mesh
from stableanimator_jax.models.catalogue import blueprint
from stableanimator_jax.weights.checkpoint import describe, load_params
abstract = blueprint(describe(sys.argv[1]).config, "unet").abstract_params()
shardings = fsdp_shardings(abstract, make_mesh())
wanted = jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), abstract, shardings)
params = jax.block_until_ready(load_params(sys.argv[1], "unet", wanted))
devices = [sum(a.addressable_shards[i].data.nbytes for a in jax.tree.leaves(params)) for i in range(8)]
print(f"on each device {min(devices) / 1e9:.2f} to {max(devices) / 1e9:.2f} GB")
assert max(devices) < 1.05 * sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(abstract)) / 8
"""


def test_loading_onto_eight_devices_holds_no_second_copy(checkpoint: Path):
    peak = measured("UNet onto 8 devices", "-c", SHARDED, str(checkpoint))
    assert peak < 1.5 * UNET_BYTES


def test_inspect(checkpoint: Path):
    assert measured("inspect", str(ROOT / "convert_weights.py"), "inspect", str(checkpoint)) < 5 * GB


def test_sampling_from_it(checkpoint: Path, place: Path):
    example = ROOT / "stableanimator_jax/assets/example"
    poses = place / "poses"
    poses.mkdir()
    for i in range(2):
        shutil.copy(example / f"poses/frame_{i}.png", poses)
    measured(
        "sample.py, 2 frames of 64x64, 2 steps",
        str(ROOT / "sample.py"),
        *("--checkpoint", str(checkpoint), "--reference", str(example / "reference.png"), "--poses", str(poses)),
        *("--width", "64", "--height", "64", "--steps", "2", "--window", "2", "--overlap", "1", "--rows-at-once", "1"),
        *("--dtype", "bfloat16", "--output", str(place / "animation.mp4")),
    )
    assert (place / "animation.mp4").stat().st_size > 0


def test_export_gives_the_files_back_bit_for_bit(checkpoint: Path, stand_ins: Path, place: Path):
    peak = measured(
        "export",
        str(ROOT / "convert_weights.py"),
        *("export", "--checkpoint", str(checkpoint), "--output", str(place / "exported")),
    )
    assert peak < UNET_BYTES + 2 * GB  # torch.save takes a whole model
    files = sorted(
        path.relative_to(stand_ins) for path in stand_ins.rglob("*") if path.suffix in (".pth", ".safetensors")
    )
    assert len(files) == 7
    for file in files:
        expected, found = open_state_dict(stand_ins / file), open_state_dict(place / "exported" / file)
        assert found.shapes == expected.shapes
        for key in expected:
            one, other = expected[key], found[key]
            assert one.dtype == other.dtype
            assert np.array_equal(one.view(np.uint8), other.view(np.uint8)) if one.ndim else one == other, (file, key)

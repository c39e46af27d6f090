"""What is told about a checkpoint is what is in it."""

from pathlib import Path

import jax
import numpy as np
import pytest

from stableanimator_jax.config import Dtype, StableAnimatorConfig
from stableanimator_jax.errors import InputError
from stableanimator_jax.models.catalogue import blueprint
from stableanimator_jax.weights.checkpoint import save_checkpoint
from stableanimator_jax.weights.inspecting import inspect_checkpoint

TINY = StableAnimatorConfig.tiny()
ORIGIN = {"files": [{"name": "a/vae.safetensors", "bytes": 1234, "sha256": "ab" * 32}], "note": "half of it"}


def params(model: str, dtype: Dtype = "float32") -> dict:
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), blueprint(TINY, model, dtype).abstract_params())


def test_every_model_is_reported(tmp_path: Path):
    pose_net = params("pose_net", "bfloat16")
    pose_net["scale"][0] = np.nan
    pose_net["final_proj"]["bias"][1] = np.inf
    save_checkpoint(
        tmp_path / "c", TINY, {"vae": params("vae"), "pose_net": pose_net}, {"vae": ORIGIN, "pose_net": "a test"}
    )
    vae, pose = inspect_checkpoint(str(tmp_path / "c"))
    assert (vae.model, pose.model) == ("vae", "pose_net")
    count = sum(leaf.size for leaf in jax.tree.leaves(params("vae")))
    assert vae.parameters == count
    assert vae.dtypes == {"float32": count}
    assert vae.bytes_on_disk == sum(f.stat().st_size for f in (tmp_path / "c/vae").rglob("*") if f.is_file())
    assert vae.not_finite == ()
    assert vae.config["scaling_factor"] == 0.18215
    assert pose.dtypes == {"bfloat16": pose.parameters - 1, "float32": 1}
    assert pose.not_finite == ("final_proj.bias", "scale")

    told = "\n".join([*vae.lines(), *pose.lines()])
    for expected in (
        f"vae: {count:,} parameters ({count:,} in float32), ",
        " MB on disk\n  every value is finite\n",
        '"scaling_factor": 0.18215',
        f"from a/vae.safetensors, 1,234 bytes, sha256 {'ab' * 32}\n  (half of it)",
        "NOT FINITE: final_proj.bias, scale\n",
        "origin: a test",
    ):
        assert expected in told


def test_what_is_no_checkpoint(tmp_path: Path):
    with pytest.raises(InputError, match=r"c does not exist"):
        inspect_checkpoint(str(tmp_path / "c"))


def test_weights_of_a_training_run_say_which(tmp_path: Path):
    source = {"run": "/runs/dance", "step": 700, "ema": True, "trained_from": "/start"}
    save_checkpoint(tmp_path / "copy", TINY, {"pose_net": params("pose_net")}, source)
    run = tmp_path / "run"
    save_checkpoint(run / "checkpoints/5/weights", TINY, {"pose_net": params("pose_net")}, {"step": 5, "ema": False})
    for place, expected in (
        (tmp_path / "copy", "step 700 of the training run /runs/dance, running mean, begun from /start"),
        (run, f"step 5 of the training run {run}"),
        (run / "checkpoints/5/weights", f"step 5 of the training run {run}"),
    ):
        (report,) = inspect_checkpoint(str(place))
        assert list(report.lines())[-1] == f"  origin: {expected}"

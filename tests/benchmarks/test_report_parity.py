"""What the report compares with: torch's stages run, on models with the same parameters as ours."""

import math
from dataclasses import asdict

import jax
import pytest

from benchmarks import report
from benchmarks._case import TINY
from stableanimator_jax.config import ArcFaceConfig
from stableanimator_jax.models.arcface import ArcFace
from stableanimator_jax.models.functional import Blueprint
from stableanimator_jax.models.layers import Precision
from stableanimator_jax.models.unet import UNet
from stableanimator_jax.training.config import TrainableConfig
from stableanimator_jax.training.trainable import split_abstract

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytestmark = pytest.mark.parity


@pytest.mark.slow
def test_torch_is_measured(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # its threads wait for one another on a busy machine
    names = [name for name in report.KINDS if report.STAGES[name].needs == report.TORCH]
    rows = list(report.rows_of(names, tiny=True, seconds=600))
    assert not [row for row in rows if "error" in row]
    found = {(row["stage"], row["what"]): row for row in rows}
    wanted = {slower for _, slower in report.RATIOS.values() if slower[0] in names}
    assert wanted <= set(found)
    assert all(seconds > 0 for row in rows for seconds in row["seconds"])
    before, after = found["torch-hjb-512x512", "HJB step of 3 iterations, float32, whole frames"]["similarity"]
    assert before < after


def test_torch_iresnet_has_arcfaces_parameters():
    from benchmarks._torch_hjb import iresnet

    config = ArcFaceConfig()
    with torch.device("meta"):
        tensors = iresnet(asdict(config)).state_dict()
    wanted = jax.tree.leaves(Blueprint(ArcFace, config, Precision()).abstract_params())
    counts = (math.prod(p.shape) for name, p in tensors.items() if not name.endswith("num_batches_tracked"))
    assert sorted(counts) == sorted(math.prod(leaf.shape) for leaf in wanted)


@pytest.mark.parametrize(("unet", "named"), [("attentions", "attentions"), ("all", "")])
def test_torch_trains_the_same_parameters_but_the_adapters(unet, named):
    from benchmarks._torch_training import trained_parameters
    from benchmarks._torch_unet import random_unet

    ours, _ = split_abstract({"unet": Blueprint(UNet, TINY.unet, Precision())}, TrainableConfig(unet))
    wanted = [math.prod(leaf.shape) for name, leaf in ours["unet"].items() if ".id_to_" not in name]
    theirs = trained_parameters(random_unet(asdict(TINY.unet), 2, "meta", torch.float32), named, torch.bfloat16)
    assert all(parameter.device.type == "meta" for parameter in theirs)  # the blending factors too
    assert sorted(parameter.numel() for parameter in theirs) == sorted(wanted)

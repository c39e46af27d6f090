"""The step that the training benchmark compares with: it runs, and trains the same parameters of the UNet."""

import math
import re
from dataclasses import asdict

import pytest

from stableanimator_jax.models.functional import Blueprint
from stableanimator_jax.models.layers import Precision
from stableanimator_jax.models.unet import UNet
from stableanimator_jax.training.config import TrainableConfig
from stableanimator_jax.training.trainable import split_abstract
from tests.training.mini_model import MINI

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytestmark = pytest.mark.parity

UNET = MINI.unet


def test_torch_is_timed_beside_jax(train, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # its threads wait for one another on a busy machine
    for dtype in ("float32", "bfloat16"):
        rows = dict(train.measure_torch(train.Options(config="tiny", frames=2, steps=1, dtype=dtype, against="torch")))
        assert re.fullmatch(r"\d+\.\d{4} s", rows["diffusers, a step (median)"])


@pytest.mark.parametrize(("unet", "named"), [("attentions", "attentions"), ("all", "")])
def test_torch_trains_the_same_parameters_but_the_adapters(unet, named):
    from benchmarks.torch_train import trained_parameters
    from benchmarks.torch_unet import random_unet

    ours, _ = split_abstract({"unet": Blueprint(UNet, UNET, Precision())}, TrainableConfig(unet))
    wanted = [math.prod(leaf.shape) for name, leaf in ours["unet"].items() if ".id_to_" not in name]
    theirs = trained_parameters(random_unet(asdict(UNET), 2, "meta", torch.float32), named, torch.bfloat16)
    assert sorted(parameter.numel() for parameter in theirs) == sorted(wanted)

"""The face optimisation's benchmark against torch, run small; and torch's model is the one it is compared with."""

import dataclasses
import math

import jax
import pytest

from stableanimator_jax.config import ArcFaceConfig
from stableanimator_jax.models.arcface import ArcFace
from stableanimator_jax.models.functional import Blueprint
from stableanimator_jax.models.layers import Precision
from tests.benchmarks.test_hjb import NOISE, SECONDS, TINY, run, table

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytestmark = pytest.mark.parity


def test_torch_is_timed_beside_jax():
    rows = table(run(*TINY, "--against", "torch", before="import sys;"))
    assert rows["an iteration"] == NOISE or SECONDS.fullmatch(rows["an iteration"])
    assert SECONDS.fullmatch(rows["torch, an iteration (median)"])
    before, after = map(float, rows["torch, similarity before and after"].split(", "))
    assert after > before


def test_torch_iresnet_has_arcfaces_parameters():
    from benchmarks.torch_hjb import iresnet

    config = ArcFaceConfig()
    with torch.device("meta"):
        tensors = iresnet(dataclasses.asdict(config)).state_dict()
    wanted = jax.tree.leaves(Blueprint(ArcFace, config, Precision()).abstract_params())
    counts = (math.prod(p.shape) for name, p in tensors.items() if not name.endswith("num_batches_tracked"))
    assert sorted(counts) == sorted(math.prod(leaf.shape) for leaf in wanted)

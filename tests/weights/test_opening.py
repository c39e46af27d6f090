"""The checkpoint that ships in this package."""

from pathlib import Path

import jax
import numpy as np

from stableanimator_jax.sampling.pipeline import Animator
from stableanimator_jax.shipped import is_shipped
from stableanimator_jax.weights.checkpoint import STABLEANIMATOR
from stableanimator_jax.weights.inspecting import inspect_checkpoint
from stableanimator_jax.weights.opening import open_checkpoint
from stableanimator_jax.weights.run_folder import checkpoint_path

WEIGHTS = checkpoint_path("embedded")


def test_it_is_whole_small_and_finite():
    reports = inspect_checkpoint("embedded")
    assert tuple(report.model for report in reports) == STABLEANIMATOR
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) <= 20_000_000
    for report in reports:
        assert not report.not_finite
        # Kernels and biases, so nearly all of it.
        assert report.dtypes["bfloat16"] > 0.95 * report.parameters


def test_loading_leaves_the_package_as_it_is():
    def state() -> dict[Path, tuple[int, int]]:
        return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in (WEIGHTS, *WEIGHTS.rglob("*"))}

    before = state()
    animator = Animator.from_pretrained(dtype="float32", arcface=True)
    assert all(np.asarray(leaf).dtype == np.float32 for leaf in jax.tree.leaves(animator.unet.params))
    assert state() == before


def test_names():
    assert open_checkpoint("embedded").path == WEIGHTS
    assert is_shipped(WEIGHTS)
    assert checkpoint_path("a/b") == Path("a/b")
    assert not is_shipped(Path("a/b").absolute())

"""What the README says a Python user writes, run as it stands."""

import re
from pathlib import Path

import numpy as np
import pytest

import stableanimator_jax
from stableanimator_jax import Animator, SamplingConfig
from stableanimator_jax.shipped import EXAMPLE

ROOT = Path(__file__).parents[1]


def python_block(text: str) -> str:
    block = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert block is not None
    return block[1]


@pytest.mark.long
def test_the_python_example_runs(monkeypatch: pytest.MonkeyPatch):
    code = python_block((ROOT / "README.md").read_text(encoding="utf-8"))
    code = code.replace('"CHECKPOINT"', '"embedded"').replace('"poses/"', repr(str(EXAMPLE / "poses")))
    code = code.replace('"person.jpg"', repr(str(EXAMPLE / "reference.png"))).replace("512", "64")
    monkeypatch.setitem(Animator.animate.__kwdefaults__, "sampling", SamplingConfig(steps=1))  # one shows as much
    names: dict[str, object] = {}
    exec(code, names)
    video = names["video"]
    assert isinstance(video, np.ndarray)
    assert video.shape == (32, 64, 64, 3)
    assert video.dtype == np.uint8


def test_the_package_shows_the_same_example():
    lines = python_block((ROOT / "README.md").read_text(encoding="utf-8")).splitlines()
    shown = stableanimator_jax.__doc__ or ""
    for line in lines:
        assert line in shown

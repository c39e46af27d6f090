"""The training benchmark's own names, for its tests and those against torch."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.training.mini_model import MINI

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def train(monkeypatch) -> SimpleNamespace:
    """`benchmarks/train.py`, its model the smallest; not imported, because there is another `train`."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    names = SimpleNamespace(**runpy.run_path(str(BENCHMARKS / "train.py")))
    names.Options.model = MINI
    return names

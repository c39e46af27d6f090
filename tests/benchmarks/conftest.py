"""The training benchmark's own names, for its tests and those against torch."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.random_params import random_params
from tests.training.mini_model import MINI

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def train(monkeypatch) -> SimpleNamespace:
    """`benchmarks/train.py`, its model the smallest; not imported, because there is another `train`."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    names = SimpleNamespace(**runpy.run_path(str(BENCHMARKS / "train.py")))
    names.Options.model = MINI
    # Drawn on the host, which compiles nothing; the benchmark of sampling draws on the device in its tests.
    names.main.__globals__["random_model"] = lambda blueprint: SimpleNamespace(
        params=random_params(blueprint.abstract_params(), seed=0)
    )
    return names

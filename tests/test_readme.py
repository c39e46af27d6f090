"""What the README says a Python user writes, run as it stands; and that what its map names is there."""

import re
from functools import reduce
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import stableanimator_jax
from stableanimator_jax import Animator, SamplingConfig
from stableanimator_jax.shipped import EXAMPLE

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *(str(p.relative_to(ROOT)) for top in ("docs", "examples") for p in ROOT.glob(f"{top}/**/*.md"))]


def python_block(text: str) -> str:
    block = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert block is not None
    return block[1]


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
        if "CHECKPOINT" not in line and "poses/" not in line:
            assert line in shown


def test_the_map_names_what_is_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Where things are")[2]
    places = re.findall(r"`((?:[\w.]+/)*[\w.]+(?:/|\.py))`", text)
    assert len(places) > 30
    assert not [p for p in places if not (ROOT / p).exists() and not (ROOT / "stableanimator_jax" / p).exists()]
    folders = {path.name for path in (ROOT / "stableanimator_jax").iterdir() if (path / "__init__.py").exists()}
    assert folders <= {place.rstrip("/") for place in places}

    named = re.findall(r"`([\w/]+)\.py`: `([\w.]+)`", text)
    assert len(named) > 10
    for file, name in named:
        module = import_module(f"stableanimator_jax.{file.replace('/', '.')}")
        assert callable(reduce(getattr, name.split("."), module)), f"{file}.py: {name}"


@pytest.mark.parametrize("page", sorted(PAGES))
def test_links_between_pages_lead_somewhere(page: str):
    text = (ROOT / page).read_text(encoding="utf-8")
    places = [place for place in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) if "://" not in place]
    assert not [place for place in places if not (ROOT / page).parent.joinpath(place).exists()]

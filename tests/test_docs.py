"""The pages of documentation: that what the README's map names is there, and that links lead somewhere."""

import re
from functools import reduce
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *(str(p.relative_to(ROOT)) for top in ("docs", "examples") for p in ROOT.glob(f"{top}/**/*.md"))]


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

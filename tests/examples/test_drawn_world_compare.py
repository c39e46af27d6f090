"""Evaluations beside each other: differences pair by pair, and a picture."""

import json

import numpy as np
import pytest
from PIL import Image

from examples.drawn_world.compare import CompareConfig, compare
from stableanimator_jax.errors import InputError

SETTINGS = {"pairs": 3, "first_pair": 2000, "frames": 3, "stride": 3, "size": 32, "checkpoint": "embedded"}


@pytest.fixture
def evaluations(tmp_path):
    """Two, which differ little pair by pair, while the pairs differ much."""
    for name, better in (("plain", 0.0), ("other", 0.01)):
        folder = tmp_path / name
        (folder / "videos").mkdir(parents=True)
        scores = {"csim": [0.2 + better, 0.5 + better, 0.8 + better], "psnr": [20.0, 21.0 - better, 22.0 + better]}
        result = {"settings": SETTINGS, "pairs": [0, 1, 2], "conditions": {"videos": scores}}
        (folder / "results.json").write_text(json.dumps(result))
        for number in range(3):
            strip = np.full((32, 3 * 32, 3), 200 if better else 50, np.uint8)
            Image.fromarray(strip).save(folder / "videos" / f"{number:04}-abc.png")
    return tmp_path / "plain", tmp_path / "other"


def test_differences_are_of_pairs_and_shown_beside_each_other(evaluations, tmp_path, capsys):
    compare(CompareConfig(work=evaluations, people=2, picture=tmp_path / "people.png"))
    header, _, row = capsys.readouterr().out.splitlines()
    assert header == "| less plain | CSIM | PSNR, dB |"
    assert row.startswith("| other | **+0.010 [+0.010, +0.010]** | +0.000 [-0.010, +0.010] |")
    with Image.open(tmp_path / "people.png") as sheet:
        colours = {tuple(colour) for colour in np.asarray(sheet).reshape(-1, 3).tolist()}
    assert {(200, 200, 200), (50, 50, 50)} <= colours


def test_what_cannot_be_compared_is_refused(evaluations, tmp_path):
    with pytest.raises(InputError, match="--work needs two folders or more"):
        compare(CompareConfig(work=evaluations[:1]))
    with pytest.raises(InputError, match=r"nowhere holds no results\.json"):
        compare(CompareConfig(work=(evaluations[0], tmp_path / "nowhere")))
    result = json.loads((evaluations[1] / "results.json").read_text())
    result["settings"]["first_pair"] = 0
    (evaluations[1] / "results.json").write_text(json.dumps(result))
    with pytest.raises(InputError, match="other and plain differ in --first-pair"):
        compare(CompareConfig(work=evaluations))

"""Evaluations beside each other: differences pair by pair, and a picture."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

from examples.drawn_world.ablations import VIDEOS, EvaluationConfig
from examples.drawn_world.compare import CompareConfig, compare
from examples.drawn_world.pairs import draw_pair, unseen_pairs
from examples.drawn_world.study import Condition, make_videos
from stableanimator_jax.errors import InputError
from stableanimator_jax.sampling.config import HJBConfig


class _Painter:
    """An animator whose every frame is of one grey."""

    def __init__(self, grey: int):
        self.grey = grey

    def embed_face(self, *_):
        return np.ones(512, np.float32)

    def animate(self, reference, poses, **_):
        return np.full((len(poses), *reference.shape), self.grey, np.uint8)


@pytest.fixture
def evaluations(tmp_path):
    """Two, which differ little pair by pair, while the pairs differ much."""
    for name, better, grey in (("plain", 0.0, 50), ("other", 0.01, 200)):
        settings = EvaluationConfig(
            pairs=3, first_pair=2000, frames=3, size=32, work=tmp_path / name, hjb=HJBConfig(iterations=grey // 50)
        )
        pairs = [draw_pair(pair, frames=3, stride=3, size=32) for pair in unseen_pairs(3, 2000)]
        condition = Condition(VIDEOS, name, settings.checkpoint, settings.hjb.adam_iterations)
        make_videos(condition, lambda _, grey=grey: _Painter(grey), pairs, settings)
        scores = {"csim": [0.2 + better, 0.5 + better, 0.8 + better], "psnr": [20.0, 21.0 - better, 22.0 + better]}
        result = {"settings": asdict(settings), "conditions": {VIDEOS: scores}, "judges": {"csim": "one"}}
        (tmp_path / name / "results.json").write_text(json.dumps(result, default=str))
    return tmp_path / "plain", tmp_path / "other"


def test_differences_are_of_pairs_and_shown_beside_each_other(evaluations, tmp_path, capsys):
    compare(CompareConfig(work=evaluations, people=2, picture=tmp_path / "people.png"))
    header, _, row = capsys.readouterr().out.splitlines()
    assert header == "| less plain | CSIM | PSNR, dB |"
    assert row.startswith("| other | **+0.010 [+0.010, +0.010]** | +0.00 [-0.01, +0.01] |")
    with Image.open(tmp_path / "people.png") as sheet:
        colours = {tuple(colour) for colour in np.asarray(sheet).reshape(-1, 3).tolist()}
    assert {(200, 200, 200), (50, 50, 50)} <= colours


def test_what_cannot_be_compared_is_refused(evaluations, tmp_path):
    with pytest.raises(InputError, match="--work needs two folders or more"):
        compare(CompareConfig(work=evaluations[:1]))
    with pytest.raises(InputError, match=r"nowhere holds no results\.json"):
        compare(CompareConfig(work=(evaluations[0], tmp_path / "nowhere")))
    with pytest.raises(InputError, match="two folders of one name"):
        compare(CompareConfig(work=(evaluations[0], evaluations[0])))
    file = evaluations[1] / "results.json"
    result = json.loads(file.read_text())
    for change, message in (
        ({"settings": result["settings"] | {"first_pair": 0}}, "other and plain differ in --first-pair"),
        ({"conditions": {"full": {}}}, "other holds no results.json"),
        ({"settings": []}, "other holds no results.json"),
        ({"judges": None}, "other holds no results.json"),
        ({"conditions": {VIDEOS: {"csim": [0.5]}}}, "has not one csim for each of 3 pairs"),
        ({"judges": {"csim": "another"}}, "CSIM of other and of plain is by different networks"),
        ({"settings": result["settings"] | {"pears": 3}}, "pears"),
    ):
        file.write_text(json.dumps(result | change))
        with pytest.raises(InputError, match=message):
            compare(CompareConfig(work=evaluations))


def test_videos_that_are_gone_are_named(evaluations, tmp_path):
    for video in (evaluations[1] / VIDEOS).iterdir():
        video.unlink()
    with pytest.raises(InputError, match="videos of embedded are not among the files any more"):
        compare(CompareConfig(work=evaluations, picture=tmp_path / "people.png"))
    assert not (tmp_path / "people.png").exists()

"""Which conditions are asked, what is kept of a stopped run, and what the report says of the numbers."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from examples.drawn_world import ablations
from examples.drawn_world.ablation_report import Claim, claims, table, verdict
from examples.drawn_world.ablation_sheet import draw_sheet
from examples.drawn_world.ablations import AblationConfig, ablate, found_conditions
from examples.drawn_world.intervals import Estimate, draw_pairs, frechet, mean
from examples.drawn_world.model import CONFIG
from examples.drawn_world.pairs import draw_pair, unseen_pairs
from examples.drawn_world.study import SAMPLING, Condition, Measured, Study, StudyConfig, alike, make_videos, run_study
from stableanimator_jax.errors import InputError
from stableanimator_jax.models.catalogue import blueprint
from stableanimator_jax.models.functional import Model
from stableanimator_jax.sampling.config import HJBConfig, SamplingConfig
from stableanimator_jax.shipped import EMBEDDED
from stableanimator_jax.weights.checkpoint import STABLEANIMATOR, save_checkpoint
from stableanimator_jax.weights.opening import open_checkpoint
from tests.random_params import random_params

CONFIGS = {
    "full": CONFIG,
    "no_masks": CONFIG,
    "no_refinement": dataclasses.replace(CONFIG, face_encoder=dataclasses.replace(CONFIG.face_encoder, refine=False)),
    "addition": dataclasses.replace(CONFIG, unet=dataclasses.replace(CONFIG.unet, id_injection="addition")),
    "no_id": dataclasses.replace(CONFIG, unet=dataclasses.replace(CONFIG.unet, id_injection="none")),
}


def save(place, config, value=0.0, step=30, **models):
    """A checkpoint with one number in each model: nothing here computes with it."""
    numbers = dict.fromkeys(STABLEANIMATOR, value) | models
    params = {model: {"number": np.full(1, number, np.float32)} for model, number in numbers.items()}
    save_checkpoint(place, config, params, {"step": step})


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for k, name in enumerate(("full", "addition", "no_id")):
        save(folder / name / "checkpoint", CONFIGS[name], unet=float(k))
    return folder


@pytest.fixture(scope="module")
def pairs():
    return [draw_pair(pair, frames=3, stride=1, size=64) for pair in unseen_pairs(3)]


class CountingAnimator:
    """Gives the truth's size in one colour."""

    def __init__(self):
        self.made = 0

    def __call__(self, checkpoint):
        return self

    def embed_face(self, image, face):
        return np.ones(512, np.float32)

    def animate(self, reference, poses, *, sampling, **_):
        self.made += 1
        if self.made == 3 and sampling.steps == 7:
            raise KeyboardInterrupt
        return np.full_like(poses, 10 + sampling.seed)


def test_conditions_that_are_there_in_the_order_of_the_tables(runs, capsys):
    found = found_conditions(runs, (10, 0, 3))
    assert [c.name for c in found] == ["full", "hjb_3", "hjb_10", "addition", "no_id"]
    assert [c.iterations for c in found] == [0, 3, 10, 0, 0]
    assert len({c.checkpoint for c in found[:3]}) == 1
    said = capsys.readouterr().out
    assert "no face masks" in said
    assert "plain addition" not in said


@pytest.mark.parametrize(("name", "other"), [("addition", "full"), ("no_id", "addition"), ("no_refinement", "full")])
def test_a_checkpoint_of_another_condition_is_not_taken(tmp_path, name, other):
    save(tmp_path / name / "checkpoint", CONFIGS[other])
    with pytest.raises(InputError, match=f"is not {name}"):
        found_conditions(tmp_path, ())


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"unet": 1.0, "step": 40}, "was trained for 30 steps, .* for 40"),
        ({"unet": 1.0, "vae": 1.0}, "have different models, vae"),
        ({"unet": 1.0, "arcface": 1.0}, "have different models, arcface"),
        ({}, "have the same UNet"),
    ],
)
def test_conditions_that_differ_in_more_than_what_is_asked(tmp_path, other, told):
    save(tmp_path / "full" / "checkpoint", CONFIG)
    save(tmp_path / "no_masks" / "checkpoint", CONFIG, **other)
    with pytest.raises(InputError, match=told):
        found_conditions(tmp_path, ())


def test_a_checkpoint_without_arcface_is_not_taken(tmp_path):
    params = {model: {"number": np.zeros(1, np.float32)} for model in STABLEANIMATOR if model != "arcface"}
    save_checkpoint(tmp_path / "full" / "checkpoint", CONFIG, params)
    with pytest.raises(InputError, match="has no arcface"):
        found_conditions(tmp_path, ())


def test_settings_that_make_no_sense():
    with pytest.raises(InputError, match="--pairs must be at least 2"):
        StudyConfig(pairs=1)
    with pytest.raises(InputError, match="--hjb-iterations"):
        AblationConfig(hjb=HJBConfig(iterations=3))
    with pytest.raises(InputError, match="--people must be at least 1"):
        AblationConfig(people=0)
    with pytest.raises(InputError, match="iterations"):
        AblationConfig(hjb_iterations=(3, 2000))
    with pytest.raises(InputError, match="--first-pair must be at least 0"):
        AblationConfig(first_pair=-1)


def test_steps_to_optimise_that_do_not_exist_are_found_before_anything_is_made():
    config = StudyConfig(sampling=SamplingConfig(steps=5), hjb=HJBConfig(start=7, end=8))
    with pytest.raises(InputError, match="the last of 5 denoising steps"):
        run_study([Condition("hjb_3", "HJB", "nowhere", 3)], config)


def test_no_checkpoint_at_all(tmp_path):
    with pytest.raises(InputError, match="no checkpoint"):
        found_conditions(tmp_path, (3,))


def test_videos_are_kept_and_a_stopped_run_goes_on(runs, pairs, tmp_path):
    condition = Condition("full", "full", str(runs / "full" / "checkpoint"), 0)
    config = StudyConfig(work=tmp_path, pairs=3, sampling=SamplingConfig(steps=7, window=4, overlap=1, seed=5))
    stopped = CountingAnimator()
    with pytest.raises(KeyboardInterrupt):
        make_videos(condition, stopped, pairs, config)
    going_on = CountingAnimator()
    videos, seconds = make_videos(condition, going_on, pairs, config)
    assert going_on.made == 1
    assert videos.shape == (3, 3, 64, 64, 3)
    assert videos[:, 0, 0, 0, 0].tolist() == [15, 16, 17]  # each pair has noise of its own
    assert seconds.shape == (3,)
    again = CountingAnimator()
    np.testing.assert_array_equal(make_videos(condition, again, pairs, config)[0], videos)
    assert again.made == 0


def test_another_setting_checkpoint_or_drawing_makes_other_videos(runs, pairs, tmp_path):
    def made(checkpoint="full", iterations=0, drawn=None, **settings):
        animator = CountingAnimator()
        config = dataclasses.replace(StudyConfig(work=tmp_path, pairs=3), **settings)
        place = str(runs / checkpoint / "checkpoint")
        make_videos(Condition("one", "one", place, iterations), animator, drawn or pairs, config)
        return animator.made

    assert made() == 3
    assert made() == 0
    assert made(sampling=SamplingConfig(steps=3)) == 3
    assert made("addition") == 3
    assert made(iterations=3) == 3
    redrawn = dataclasses.replace(pairs[1], poses=pairs[1].poses // 2)
    assert made(drawn=[pairs[0], redrawn, pairs[2]]) == 1
    save(runs / "other" / "checkpoint", CONFIG, value=1.0)
    assert made("other") == 3
    assert made() == 0


def estimate(value):
    """With an interval from 0.0099 below to 0.0091 above; the difference of two of them has no width."""
    return Estimate(value, value + np.linspace(-0.0104, 0.0096, 101))


@pytest.mark.parametrize(
    ("metric", "better", "worse", "expected"),
    [
        ("csim", 0.8, 0.6, "holds here"),
        ("csim", 0.6, 0.8, "the opposite holds here"),
        ("l1", 2.0, 5.0, "holds here"),
        ("l1", 5.0, 2.0, "the opposite holds here"),
    ],
)
def test_verdicts_follow_the_numbers(metric, better, worse, expected):
    claim = Claim("It helps", "full", "no_id", metric)
    _, sentence = verdict(claim, {"full": {metric: estimate(better)}, "no_id": {metric: estimate(worse)}})
    assert f"**{expected}**" in sentence
    assert sentence.startswith("It helps: ")


def test_a_difference_within_its_interval_is_none():
    wide = Estimate(0.6, 0.6 + 0.5 * np.linspace(1, -1, 101))
    found, sentence = verdict(
        Claim("It helps", "full", "no_id", "csim"), {"full": {"csim": estimate(0.7)}, "no_id": {"csim": wide}}
    )
    assert found == "open"
    assert "cannot be told apart" in sentence


def test_the_second_arcface_must_be_another_one():
    source = open_checkpoint(EMBEDDED)
    one = source.load("arcface", blueprint(source.config, "arcface"))
    rounded = jax.tree.map(lambda array: (array * 128).astype(jnp.bfloat16).astype(jnp.float32) / 128.3, one.params)
    random = random_params(one.blueprint.abstract_params(), seed=1)
    assert alike(one, Model(rounded, one.blueprint))
    assert not alike(one, Model(random, one.blueprint))


def test_faces_are_judged_by_the_second_arcface_where_there_is_one():
    claim = Claim("It helps", "full", "no_id", "face")
    one = {"csim": estimate(0.9), "csim_second": estimate(0.5)}
    other = {"csim": estimate(0.2), "csim_second": estimate(0.6)}
    assert verdict(claim, {"full": one, "no_id": other})[0] == "lower"
    del one["csim_second"], other["csim_second"]
    assert verdict(claim, {"full": one, "no_id": other})[0] == "higher"


def test_only_claims_that_can_be_decided():
    assert {(c.better, c.worse) for c in claims(["full", "no_id"])} == {("full", "no_id")}
    assert claims(["no_id", "addition"]) == []
    assert {(c.better, c.worse) for c in claims(["full", "hjb_3"])} == {("hjb_3", "full")}


def test_the_table_marks_differences_that_leave_zero_out():
    estimates = {"full": {"csim": estimate(0.8)}, "no_id": {"csim": estimate(0.6)}}
    text = table(estimates, {"full": "full", "no_id": "no ID"})
    assert "| CSIM | 0.800 [0.790, 0.809] | 0.600 [0.590, 0.609] |" in text
    assert "**-0.200 [-0.200, -0.200]**" in text


def synthetic_study(conditions, pairs):
    """Made of the truth with more noise for each condition after the first."""
    random = np.random.default_rng(0)
    n = len(pairs)
    drawn = draw_pairs(n, 100)
    truth_features = random.normal(size=(n, 3, 4))
    measured, estimates = {}, {}
    for k, condition in enumerate(conditions):
        scores = {name: 0.8 - 0.1 * k + 0.01 * random.random(n) for name in ("csim", "csim_second")}
        scores |= {
            name: 0.5 + 0.01 * random.random(n)
            for name in ("psnr", "face_psnr", "ssim", "l1", "skin_iou", "person_iou")
        }
        scores |= {name: 0.2 + 0.01 * random.random(n) for name in ("skin_iou_chance", "person_iou_chance")}
        features = truth_features + 1 + k
        videos = np.stack([pair.truth + np.uint8(k) for pair in pairs])
        measured[condition.name] = Measured(scores, features, videos, np.full(n, 2.0 + k))
        estimates[condition.name] = {name: mean(values, drawn) for name, values in scores.items()}
        estimates[condition.name]["frechet"] = frechet(truth_features, features, drawn)
    truth = {
        f"{name}{end}": np.full(n, 0.9 if not end else 0.1)
        for name in ("csim", "csim_second")
        for end in ("", "_chance")
    }
    estimates["truth"] = {name: mean(values, drawn) for name, values in truth.items()}
    return Study(pairs, {c.name: c for c in conditions}, measured, truth, estimates)


def test_the_report_of_what_is_there(runs, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(ablations, "run_study", lambda conditions, config: synthetic_study(conditions, pairs))
    config = AblationConfig(
        runs=runs,
        second_arcface=None,
        pairs=3,
        frames=3,
        sampling=dataclasses.replace(SAMPLING, steps=9),
        work=tmp_path,
        output=tmp_path / "docs" / "ablations.md",
        sheet=tmp_path / "docs" / "images" / "people.png",
    )
    ablate(config)
    text = config.output.read_text()
    assert "python -m examples.drawn_world ablate --pairs 3 --frames 3 --sampling.steps 9\n" in text
    assert str(tmp_path) not in text
    assert "plain addition" in text
    assert "no face masks" not in text
    assert "HJB, 10 iterations" in text
    assert "ID tokens at all makes faces more like the reference's: **holds here**" in text
    assert "10 iterations, makes faces more like the reference's: **the opposite holds here**" in text
    assert "the intervals do not overlap" in text
    assert "they follow the poses" in text
    assert "images/people.png" in text
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results["conditions"]["no_id"]["csim"]) == 3
    assert results["pairs"][2]["person"] == pairs[2].pair.person
    with Image.open(config.sheet) as sheet:
        assert sheet.height > 3 * 128


def test_the_sheet_shows_whom_it_says(pairs):
    conditions = [Condition("full", "full", "x", 0), Condition("no_id", "no ID tokens", "y", 0)]
    study = synthetic_study(conditions, pairs)
    sheet = np.asarray(draw_sheet(study, ["full", "no_id"], people=2))
    assert len(sheet) < 24 + 3 * 132
    enlarged = pairs[1].reference.repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(sheet[24 + 132 : 24 + 132 + 128, 4 : 4 + 128], enlarged)
    made = study.measured["no_id"].videos[0, 2].repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(sheet[24 : 24 + 128, -132:-4], made)

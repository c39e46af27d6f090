"""Runs of `train.py`: stopped, killed and gone on with, they end as if nothing had happened."""

import json
import signal
import time

import jax.numpy as jnp
import numpy as np
import pytest

from stableanimator_jax.weights.checkpoint import STABLEANIMATOR, describe, save_checkpoint, stream_params
from tests.scripts.train_script import assert_same_state, finish, losses, saved_state, start, train
from tests.training.drawn_clips import write_drawn_dataset
from tests.training.mini_model import MINI, mini_params, save_mini_model

pytestmark = pytest.mark.long
STEPS = "12"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("train")


@pytest.fixture(scope="module")
def common(folder):
    write_drawn_dataset(folder / "data")
    save_mini_model(folder / "mini")
    return ("--init-from", str(folder / "mini"), "--data.dataset", str(folder / "data"))


@pytest.fixture(scope="module")
def straight(folder, common):
    """A run that nothing happened to, with validation."""
    flags = ("--validation.every", STEPS, "--validation.steps", "2", "--validation.clips", "2")
    said, _ = train(folder, *common, *flags, "--output", "straight", "--steps", STEPS)
    return folder / "straight", said


def test_what_a_run_leaves(straight):
    output, said = straight
    assert f"checkpoints/{STEPS}/weights" in said.splitlines()[-1]
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    curves = {name for line in lines for name in line}
    for name in ("train/loss", "train/loss_inside_face", "train/loss_outside_face", "train/gradient_norm"):
        assert name in curves
    assert any(name.startswith("train/loss_by_noise/") for name in curves)
    validated = next(line for line in lines if "validation/loss" in line)
    assert -1 <= validated["validation/csim"] <= 1
    assert [line["train/learning_rate"] for line in lines[:4]] == pytest.approx([0, 5e-5, 1e-4, 1e-4])
    assert len(list((output / "tensorboard").glob("events*"))) == 1
    videos = list((output / "validation" / STEPS).glob("*.mp4"))
    assert len(videos) == 1
    assert videos[0].stat().st_size > 0
    assert losses(output).keys() == set(range(1, int(STEPS) + 1))


def test_the_weights_are_a_checkpoint_of_all_models_with_the_trained_parameters(straight, folder):
    output, _ = straight
    weights = output / "checkpoints" / STEPS / "weights"
    described = describe(weights)
    assert described.config == MINI
    assert described.models == STABLEANIMATOR
    state = saved_state(output, int(STEPS))
    before, after = (dict(stream_params(path, "unet")) for path in (folder / "mini", weights))
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    # Biases without a gradient do not move; weight decay moves every kernel of the attention layers, nothing else.
    assert all(".attentions." in name for name in changed)
    assert {name for name in after if ".attentions." in name and name.endswith("kernel")} <= changed
    for name in changed:
        np.testing.assert_array_equal(after[name], state[f"params.unet.{name}"])
    for model in ("vae", "image_encoder", "arcface"):
        for (name, old), (_, new) in zip(
            stream_params(folder / "mini", model), stream_params(weights, model), strict=True
        ):
            np.testing.assert_array_equal(old, new, err_msg=name)


@pytest.mark.slow
def test_stopped_by_sigterm_then_killed_while_it_saves_and_gone_on_with(folder, common, straight):
    flags = (*common, "--output", "ended", "--validation.every", "0", "--steps", STEPS, "--checkpoints.every", "3")
    process = start(folder, *flags)
    wait_for(folder / "ended" / "metrics.jsonl", lambda file: file.read_text().strip())
    process.send_signal(signal.SIGTERM)
    said, complaint = finish(process, 130)
    assert "Traceback" not in complaint
    step = int(said.splitlines()[-1].split()[3].rstrip(","))
    assert said.splitlines()[-1] == f"stopped after step {step}, which is saved; --resume goes on from it"
    assert step < int(STEPS)
    process = start(folder, *flags, "--resume")
    wait_for(folder / "ended" / "checkpoints", lambda place: any(place.glob("*orbax-checkpoint-tmp*")))
    process.kill()
    said, _ = finish(process, -signal.SIGKILL)
    assert f"going on from step {step}" in said
    said, _ = train(folder, *flags, "--resume")
    assert "going on from step" in said
    assert_same_state(folder / "ended", straight[0], int(STEPS))
    assert losses(folder / "ended") == losses(straight[0])


@pytest.mark.slow
def test_a_loss_that_is_not_a_number_stops_the_run_and_leaves_the_checkpoints(folder, common):
    params = {name: mini_params(name) for name in STABLEANIMATOR}
    params["unet"]["conv_out"]["bias"] = np.full_like(params["unet"]["conv_out"]["bias"], jnp.nan)
    save_checkpoint(folder / "broken", MINI, params)
    flags = (*common, "--init-from", "broken", "--validation.every", "0", "--output", "nan", "--steps", STEPS)
    _, complaint = train(folder, *flags, status=2)
    last = complaint.splitlines()[-1]
    assert last.startswith("error: the loss of step 1 is nan, with clips person ")
    assert "Traceback" not in complaint
    assert not list((folder / "nan" / "checkpoints").glob("[0-9]*"))


def wait_for(path, seen, seconds=900):
    end = time.monotonic() + seconds
    while not (path.exists() and seen(path)):
        assert time.monotonic() < end, f"{path} did not come"
        time.sleep(0.005)

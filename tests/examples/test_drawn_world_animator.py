"""Training StableAnimator on drawn people for some minutes: what it is told, what it leaves, that it goes on."""

import dataclasses
import json
import signal
from pathlib import Path

import pytest

from examples.drawn_world.animator import AnimatorTraining, train, training_settings
from stableanimator_jax.errors import InputError
from stableanimator_jax.weights.checkpoint import STABLEANIMATOR, describe, save_checkpoint
from tests.training.mini_model import MINI, mini_params, save_mini_model


def test_settings_follow_the_device():
    config = AnimatorTraining(minutes=7.0, output=Path("out"))
    on_cpu, on_gpu = (training_settings(config, backend) for backend in ("cpu", "gpu"))
    assert (on_cpu.data.loader.batch_size, on_cpu.data.loader.frames, on_cpu.validation.every) == (16, 8, 100)
    assert on_gpu.data.loader.batch_size > 16
    assert on_gpu.validation.every > 100
    assert training_settings(dataclasses.replace(config, batch=5, every=3), "gpu").data.loader.batch_size == 5
    for settings in (on_cpu, on_gpu):
        assert settings.max_minutes == 7
        assert settings.optimizer.schedule == "timed"
        assert settings.resume
        assert settings.output == Path("out/run")


def test_another_run_is_not_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.setattr("examples.drawn_world.animator._share_out", lambda batch: None)
    monkeypatch.setattr("examples.drawn_world.animator._make_data", lambda config: None)
    config = AnimatorTraining(minutes=0.0, output=tmp_path / "fit", people=2)
    with pytest.raises(InputError, match="nowhere"):
        train(dataclasses.replace(config, checkpoint="nowhere"))
    assert not config.output.exists()  # a mistyped word is no run's
    train(config)
    with pytest.raises(InputError, match="is of a run with --people 2, not 3"):
        train(dataclasses.replace(config, people=3))
    (config.output / "checkpoint").mkdir()
    (config.output / "checkpoint" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="checkpoint"):
        train(config)


def test_the_best_weights_are_written_when_it_is_stopped(tmp_path, monkeypatch, capsys):
    config = AnimatorTraining(output=tmp_path / "fit", minutes=1.0)
    monkeypatch.setattr("examples.drawn_world.animator._share_out", lambda batch: None)
    monkeypatch.setattr("examples.drawn_world.animator._make_data", lambda config: None)

    def stopped(settings):
        params = {name: mini_params(name) for name in STABLEANIMATOR}
        save_checkpoint(settings.output / "best", MINI, params, {"validation_loss": 0.25, "step": 7})
        (settings.output / "metrics.jsonl").write_text("")  # before the first validation's line
        raise KeyboardInterrupt

    monkeypatch.setattr("examples.drawn_world.animator.run", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    assert "validation loss: 0.2500 at best, after step 7" in capsys.readouterr().out
    assert set(describe(config.output / "checkpoint").models) == set(STABLEANIMATOR)


def test_what_cannot_be_trained_on_is_said_before_it_is_drawn():
    with pytest.raises(InputError, match=r"--clip-frames must be more than --frames, 24, .* got 24"):
        AnimatorTraining(frames=24)
    with pytest.raises(InputError, match="--first-person and --people must end below 1000000"):
        AnimatorTraining(first_person=999_000)
    with pytest.raises(InputError, match="--minutes must be 0 or more"):
        AnimatorTraining(minutes=float("nan"))


@pytest.mark.slow
def test_it_trains_for_some_time_and_goes_on(tmp_path, capsys):
    save_mini_model(tmp_path / "mini")
    config = AnimatorTraining(
        minutes=0.0,
        checkpoint=str(tmp_path / "mini"),
        output=tmp_path / "fit",
        people=3,
        validation=1,
        clip_frames=4,
        frames=2,
        batch=2,
        every=2,
        workers=1,
        learning_rate=1e-4,
    )
    train(config)
    assert "4 clips" in capsys.readouterr().out
    assert not (config.output / "run").exists()  # the data alone

    config = dataclasses.replace(config, minutes=1e-6)
    handlers = signal.getsignal(signal.SIGINT)
    train(config)
    said = capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) == handlers
    assert "0 of them encoded now" in said
    assert "trained 1 steps" in said  # over before the first one ended
    first = describe(config.output / "checkpoint")
    assert set(first.models) == set(STABLEANIMATOR)
    assert max(first.files.values()) <= 16 * 2**20

    train(config)
    said = capsys.readouterr().out
    assert "going on from step 1" in said
    assert "trained 2 steps" in said
    lines = [json.loads(line) for line in (config.output / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["validation/loss"] for line in lines if "validation/loss" in line}
    assert set(losses) == {0, 1, 2}  # what it began from, too
    source = describe(config.output / "checkpoint").source
    assert source["validation_loss"] == min(losses.values()) == losses[source["step"]]
    assert f"{losses[0]:.4f} at the beginning, {min(losses.values()):.4f} at best" in said

"""The training benchmark, run with the smallest model."""

import re
from functools import partial
from typing import NamedTuple

import jax
import pytest

from stableanimator_jax.parallel import make_mesh
from stableanimator_jax.scripts.cli import run_script
from stableanimator_jax.training.config import OptimizerConfig
from stableanimator_jax.training.optimizer import make_optimizer
from stableanimator_jax.training.state import begin
from stableanimator_jax.training.step import make_step

TINY = ("--config", "tiny", "--frames", "2", "--steps", "2", "--dtype", "float32")


class Loss(NamedTuple):
    loss: jax.Array


def idle_step(task, optimizer, mesh):
    """In place of `make_step`: nothing is trained, nothing takes long to compile."""

    def step(state, frozen, batch):
        return state._replace(step=state.step + 1), Loss(batch.id_embedding.sum()), 0.0

    return step


def check_table(train, capsys, *flags: str) -> None:
    assert run_script(train.main, flags) == 0
    out = capsys.readouterr().out
    lines = [line.strip("| ") for line in out.splitlines() if line.startswith("| ")]
    rows = dict(line.split(" | ") for line in lines if line)
    assert re.fullmatch(r"\d+\.\d{4} s", rows["a step (median)"])  # what it says is the machine's affair
    assert re.fullmatch(r"\d+\.\d%", rows["share of it"])
    assert any(name.startswith("peak memory") for name in rows)
    assert f"Command: python benchmarks/train.py {' '.join(flags)}" in out


def test_a_run_prints_its_table_and_the_command(train, capsys, monkeypatch):
    monkeypatch.setitem(train.main.__globals__, "make_step", idle_step)
    check_table(train, capsys, *TINY, "--encoded")


@pytest.mark.slow
def test_a_run_of_the_production_step(train, capsys):
    check_table(train, capsys, *TINY)


def test_the_production_step_takes_clips_of_pixels_too(train):
    options = train.Options(config="tiny", frames=2, batch=2, trainable="lora", dtype="float32")
    task, mesh = options.task, make_mesh(data=1)
    optimizer = make_optimizer(OptimizerConfig(), steps=10)
    trained, frozen = jax.eval_shape(partial(train.random_parameters, task, mesh))
    state = jax.eval_shape(lambda: begin(train.random_parameters(task, mesh)[0], optimizer, mesh, ema=False, seed=0))
    batch = jax.eval_shape(partial(train.random_batch, options, mesh))
    assert state.params == trained
    after, metrics, _ = jax.eval_shape(make_step(task, optimizer, mesh), state, frozen, batch)
    assert after == state
    assert metrics.loss.shape == ()


def test_bad_options_are_refused_in_one_line(train, capsys):
    for flags, message in (
        (("--width", "60"), "the output size 60x512 does not work"),
        (("--batch", "0"), "batch must be at least 1, got 0"),
        (("--steps", "0"), "steps must be at least 1"),
        (("--trainable", "attention"), "invalid choice 'attention' for argument '--trainable'"),
        (("--trainable", "lora", "--against", "torch"), "--against torch goes with --trainable attentions or all"),
    ):
        assert run_script(train.main, flags) == 2
        out, error = capsys.readouterr()
        assert out == ""
        assert error.startswith("error: ")
        assert message in error
        assert error.count("\n") == 1

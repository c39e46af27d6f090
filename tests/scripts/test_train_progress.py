"""The training bar and its speeds, by a clock of the test's own."""

import re
from contextlib import suppress

import jax
import pytest

from stableanimator_jax import interrupts
from stableanimator_jax.scripts.train.progress import TrainProgress


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def advance(progress, clock, steps, seconds, *, loss=1.0, flops: float | None = 4e12):
    """Some steps of the same length; what the last one showed."""
    shown = {}
    for step in steps:
        clock.now += seconds
        shown = progress.update(step, loss=loss, learning_rate=1e-5, frames=32, flops=flops)
    return shown


def test_speeds_leave_compilation_and_pauses_out_and_follow_the_window():
    clock = Clock()
    with TrainProgress(100, peak=8e12, window=4, clock=clock) as progress:
        first = advance(progress, clock, [1], 60.0)  # which compiled
        assert set(first) == {"loss_smoothed"}
        steady = {"steps_per_second": 0.5, "frames_per_second": 16.0, "tflops": 2.0, "share_of_peak": 0.25}
        assert advance(progress, clock, [2, 3], 2.0) == {"loss_smoothed": pytest.approx(1.0), **steady}
        with progress.paused("saving"):
            clock.now += 1000
        assert advance(progress, clock, [4], 2.0)["steps_per_second"] == 0.5
        with suppress(ZeroDivisionError), progress.paused("validating"):
            clock.now += 1000
            _ = 1 / 0
        assert advance(progress, clock, [5], 2.0)["steps_per_second"] == 0.5
        faster = advance(progress, clock, range(6, 10), 1.0)
        assert (faster["steps_per_second"], faster["share_of_peak"]) == (1.0, 0.5)
        skipped = advance(progress, clock, [19], 7.0)  # ten steps at once
        assert skipped["steps_per_second"] == 1.3


def test_a_step_that_is_looked_at_late_or_in_a_pause_has_the_speed_that_it_had():
    """As before a save: the step under way and the one before it are looked at together."""
    clock = Clock()

    def step_of_two_seconds() -> float:
        clock.now += 2
        return progress.when(jax.numpy.zeros(()))

    with TrainProgress(100, clock=clock) as progress:
        finished = [step_of_two_seconds() for _ in range(3)]
        shown = [progress.update(n + 1, loss=1.0, learning_rate=0, frames=1, at=at) for n, at in enumerate(finished)]
        assert [values.get("steps_per_second") for values in shown] == [None, 0.5, 0.5]
        clock.now += 2
        with progress.paused("saving"):
            clock.now += 500
            during = progress.when(jax.numpy.zeros(()))
            clock.now += 500
        assert progress.update(4, loss=1.0, learning_rate=0, frames=1, at=during)["steps_per_second"] == 0.5
        assert progress.update(5, loss=1.0, learning_rate=0, frames=1, at=step_of_two_seconds())[
            "steps_per_second"
        ] == pytest.approx(0.5)


def test_what_is_not_known_is_left_out():
    clock = Clock()
    with TrainProgress(10, window=2, clock=clock) as progress:
        assert "share_of_peak" not in advance(progress, clock, [1, 2], 1.0)
        assert "tflops" not in advance(progress, clock, [3], 1.0, flops=None)
        assert "tflops" not in advance(progress, clock, [4], 1.0)
        assert advance(progress, clock, [5], 1.0)["tflops"] == 4.0


def test_the_loss_is_smoothed_from_the_first_step_on():
    with TrainProgress(1000) as progress:

        def smoothed(step, loss):
            return progress.update(step, loss=loss, learning_rate=1e-5, frames=1)["loss_smoothed"]

        assert smoothed(1, 8.0) == pytest.approx(8.0)
        assert smoothed(2, 4.0) == pytest.approx(6.0, rel=0.02)
        assert [smoothed(step, 1.0) for step in range(3, 400)][-1] == pytest.approx(1.0, rel=0.01)


def test_the_bar_shows_it_on_process_0_only(capsys, monkeypatch):
    for process in (0, 1):
        clock = Clock()
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        with TrainProgress(40, done=10, peak=8e12, clock=clock) as progress:
            shown = advance(progress, clock, range(11, 21), 2.0, loss=0.25)
            with progress.paused("saving"):
                pass
        assert shown["share_of_peak"] == 0.25
        text = capsys.readouterr().err
        if process:
            assert text == ""
            continue
        assert "training:  50%" in text
        assert re.search(
            r"20/40 \[.*, loss 0.25, lr 1e-05, 0.5 steps/s, 16 frames/s, 2 TFLOP/s \(25.0% of peak\)\]",
            text.split("\r")[-1],
        )
        assert ", saving]" in text


def test_an_interrupt_that_was_lost_comes_through(monkeypatch):
    monkeypatch.setattr(interrupts, "_asked", True)
    with TrainProgress(10) as progress, pytest.raises(KeyboardInterrupt):
        progress.update(1, loss=1.0, learning_rate=1e-5, frames=1)

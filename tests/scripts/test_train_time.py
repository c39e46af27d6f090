"""A run by the clock: when it is over, how its learning rate falls, and which weights it keeps."""

import math

import jax
import numpy as np
import pytest

from stableanimator_jax.errors import InputError
from stableanimator_jax.scripts.train.best import Best
from stableanimator_jax.scripts.train.time_limit import TimeLimit
from stableanimator_jax.training.config import OptimizerConfig, TrainConfig, ValidationConfig
from stableanimator_jax.training.optimizer import learning_rate
from stableanimator_jax.weights.checkpoint import describe
from stableanimator_jax.weights.checkpoint_item import SaveModels
from tests.training.mini_model import MINI


class Clock:
    """A clock that is set by hand."""

    seconds = 1000.0

    def __call__(self):
        return self.seconds

    def at(self, minutes: float):
        self.seconds = 1000.0 + 60 * minutes


def test_the_rate_stays_and_falls_to_nothing_over_the_last_fifth():
    clock = Clock()
    limit = TimeLimit(10, timed=True, clock=clock)
    scales = []
    for minutes in (0, 4, 7.9, 8.5, 9, 9.5, 10, 11):
        clock.at(minutes)
        scales.append(limit.rate_scale())
        assert limit.over() == (minutes >= 10)
    falling = [(1 + math.cos(math.pi * share)) / 2 for share in (0.25, 0.5, 0.75)]
    np.testing.assert_allclose(scales, [1, 1, 1, *falling, 0, 0], atol=1e-6)
    assert all(scale.dtype == np.float32 for scale in scales)


def test_without_a_limit_or_another_schedule_the_clock_says_nothing():
    clock = Clock()
    endless, constant = TimeLimit(0, timed=False, clock=clock), TimeLimit(1, timed=False, clock=clock)
    clock.at(5)
    assert not endless.over()
    assert constant.over()
    assert endless.rate_scale() == constant.rate_scale() == 1


def test_by_the_clock_steps_do_not_decide_the_rate():
    rate = learning_rate(OptimizerConfig(schedule="timed", learning_rate=2.0, warmup_steps=4), steps=10)
    assert [float(rate(step)) for step in (0, 2, 4, 10, 500)] == [0, 1, 2, 2, 2]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"optimizer": OptimizerConfig(schedule="timed")}, "schedule timed needs --max-minutes"),
        ({"validation": ValidationConfig(every=0, keep_best=True)}, "keep-best needs validation"),
        ({"max_minutes": -1.0}, "max.minutes must be at least 0"),
    ],
)
def test_settings_that_cannot_be(settings, told):
    with pytest.raises(InputError, match=told):
        TrainConfig(**settings)


def test_the_best_weights_are_kept_and_a_resumed_run_knows_their_loss(tmp_path):
    def weights(number: float) -> SaveModels:
        return SaveModels(MINI, {"vae": {"number": jax.numpy.full((2,), number)}}, {"step": int(number)})

    best = Best(tmp_path, resumed=False)
    assert best.loss == math.inf
    best.keep(0.5, weights(1))
    best.keep(0.25, weights(2))
    assert best.loss == 0.25
    assert describe(tmp_path / "best").source == {"step": 2, "validation_loss": 0.25}
    assert Best(tmp_path, resumed=True).loss == 0.25
    assert Best(tmp_path, resumed=False).loss == math.inf  # an earlier run's


def test_what_is_no_checkpoint_is_not_replaced(tmp_path):
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "letter.txt").write_text("mine")
    with pytest.raises(InputError, match="will not replace"):
        Best(tmp_path, resumed=False)

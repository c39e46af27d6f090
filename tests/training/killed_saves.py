"""Saves that are killed or interrupted at random moments, each in a process of its own, and what they left behind."""

import os
import random
import signal
import time
from pathlib import Path

from stableanimator_jax.errors import InputError
from stableanimator_jax.interrupts import check_interrupted, interruptible
from stableanimator_jax.training.checkpoints import CheckpointConfig, Checkpoints
from stableanimator_jax.weights.checkpoint import describe, load_params
from tests.training.checkpoint_states import abstract, data_state, require_equal, train_state, weights


def main(directory: str, kills: int) -> None:
    """Stop a process that saves step after step, and print the latest step that it left; `kills` times over."""
    delays = random.Random(0)
    # Forked, because a new Python takes a second to import everything; JAX starts only in the forks.
    for number in range(kills):
        reads, writes = os.pipe()
        saver = os.fork()
        if saver == 0:
            _save_on_and_on(directory, writes)
        os.read(reads, 1)  # it has begun
        time.sleep(delays.uniform(0, 0.5))
        sent = signal.SIGTERM if number % 4 == 3 else signal.SIGKILL
        os.kill(saver, sent)
        status = os.waitpid(saver, 0)[1]
        assert status == (0 if sent == signal.SIGTERM else sent), status
        checker = os.fork()
        if checker == 0:
            _check(directory)
        assert os.waitpid(checker, 0)[1] == 0


def _save_on_and_on(directory: str, begun: int) -> None:
    try:
        with interruptible(), Checkpoints(directory, CheckpointConfig(keep=1)) as checkpoints:
            step = max(checkpoints.steps(), default=0)
            if step:
                checkpoints.restore(abstract(train_state(step)))
            else:
                checkpoints.save(step := 1, train_state(1), data_state(1), weights(1))
                checkpoints.wait()
            os.write(begun, b"!")
            while True:
                step += 1
                checkpoints.save(step, train_state(step), data_state(step), weights(step))
                check_interrupted()
    except KeyboardInterrupt:
        os._exit(0)
    finally:
        os._exit(1)


def _check(directory: str) -> None:
    # Before anything is cleaned up: whatever can be taken for a checkpoint of models is one.
    for place in Path(directory).rglob("weights*"):
        try:
            step = describe(place).source["step"]
        except InputError:
            continue
        params = weights(step).models["unet"]
        require_equal(load_params(place, "unet", abstract(params)), params)
    with Checkpoints(directory) as checkpoints:
        for step in checkpoints.steps():
            found, state, loader = checkpoints.restore(abstract(train_state(step)), step)
            assert (found, loader) == (step, data_state(step))
            require_equal(state, train_state(step))
        print(max(checkpoints.steps(), default=None), flush=True)
    os._exit(0)

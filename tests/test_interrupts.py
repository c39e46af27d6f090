"""Interrupts that Python would lose."""

import gc
import os
import signal

import pytest

from stableanimator_jax.interrupts import check_interrupted, interruptible


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_unwinds_at_once(number):
    with pytest.raises(KeyboardInterrupt), interruptible():
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_python_swallows_is_remembered(number):
    def callback(phase, info):
        if phase == "start" and not sent:
            sent.append(number)
            os.kill(os.getpid(), number)

    sent = []
    with interruptible():
        check_interrupted()
        gc.callbacks.append(callback)
        try:
            gc.collect()  # Python drops what is raised in a callback of its own
        finally:
            gc.callbacks.remove(callback)
        assert sent
        with pytest.raises(KeyboardInterrupt):
            check_interrupted()
    check_interrupted()


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with interruptible():
        pass
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before

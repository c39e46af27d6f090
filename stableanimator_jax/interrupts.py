"""Interrupts that get through: Ctrl-C and a job manager's SIGTERM unwind the program, so that nothing is half-written.

Python discards an exception that is raised while it runs a callback of its own, such as a garbage collector's; JAX
installs one. A signal that arrives just then would be lost. So it is remembered, and long work asks.
"""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NoReturn

_asked = False
_asked_here: ContextVar[Callable[[], bool]] = ContextVar("asked_here", default=lambda: False)


def check_interrupted() -> None:
    """Raise `KeyboardInterrupt` if one was asked for and has not come through; for callbacks of long work."""
    if _asked or _asked_here.get()():
        raise KeyboardInterrupt


@contextmanager
def interrupted_where(asked: Callable[[], bool]) -> Iterator[None]:
    """Within the block, in its thread, `check_interrupted` also raises where `asked()`: of several jobs one ends."""
    token = _asked_here.set(asked)
    try:
        yield
    finally:
        _asked_here.reset(token)


@contextmanager
def interruptible() -> Iterator[None]:
    """Within the block SIGINT and SIGTERM raise `KeyboardInterrupt`, at once or at the next `check_interrupted`."""
    global _asked
    _asked = False

    def interrupt(signum: int, frame: object) -> NoReturn:
        global _asked
        _asked = True
        raise KeyboardInterrupt

    def unraisable(problem: "sys.UnraisableHookArgs") -> None:
        if problem.exc_type is not KeyboardInterrupt:  # which is remembered, and no news
            report(problem)

    try:
        before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not in the main thread
        yield
        return
    report, sys.unraisablehook = sys.unraisablehook, unraisable
    try:
        yield
    finally:
        _asked = False
        sys.unraisablehook = report
        for number, handler in before.items():
            signal.signal(number, handler)

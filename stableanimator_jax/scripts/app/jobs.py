"""One check or animation: in a thread of its own, alone on the device, watched and ended from elsewhere."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from stableanimator_jax.interrupts import interrupted_where
from stableanimator_jax.progress import looked_on


@dataclass(frozen=True)
class Standing:
    """How far a job is."""

    label: str
    """What is being done."""
    done: int = 0
    total: int = 0
    """0 where it is not known."""
    note: str = ""
    since: float = 0.0
    """When `label` began, by `time.monotonic`."""
    frame: UInt8[np.ndarray, "h w 3"] | None = None
    """The latest of the video."""

    @property
    def seconds_left(self) -> float | None:
        """Of what is being done; None while nothing tells."""
        if not 0 < self.done < self.total:
            return None
        return (time.monotonic() - self.since) * (self.total - self.done) / self.done


class Job:
    """Work that one device does for one visitor.

    Args:
        work: called with the job; may raise, `KeyboardInterrupt` where it was cancelled.
        device: only who holds it computes.
    """

    def __init__(self, work: "Callable[[Job], Any]", device: threading.Lock):
        self._work, self._device = work, device
        self._cancelled, self._ended = threading.Event(), threading.Event()
        self.standing = Standing("waiting for the device")
        self.result: Any = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def cancel(self) -> None:
        """End it at the next step."""
        self._cancelled.set()

    def join(self) -> None:
        """Wait until it has ended, if it was begun."""
        if self._thread.ident is not None:
            self._thread.join()

    def standings(self, every: float = 0.5) -> Iterator[Standing]:
        """Begin it, and tell how far it is every so many seconds until it ends, and whenever that changes what is done.

        Raises:
            BaseException: whatever the work raised.
        """
        self._thread.start()
        while True:
            yield self.standing
            if self._ended.wait(every):
                break
        if self.error is not None:
            raise self.error

    def frame(self, frame: UInt8[np.ndarray, "h w 3"]) -> None:
        """Hear of a frame of the video."""
        now = self.standing
        self.standing = Standing(now.label, now.done, now.total, now.note, now.since, frame)

    def _hear(self, label: str, done: int, total: int, note: str) -> None:
        now = self.standing
        since = now.since if now.label == label else time.monotonic()
        self.standing = Standing(label, done, total, note, since, now.frame)

    def _run(self) -> None:
        try:
            while not self._device.acquire(timeout=0.1):
                if self._cancelled.is_set():
                    raise KeyboardInterrupt
            try:
                self.standing = Standing("preparing", since=time.monotonic())
                with looked_on(self._hear), interrupted_where(self._cancelled.is_set):
                    if self._cancelled.is_set():
                        raise KeyboardInterrupt
                    self.result = self._work(self)
            finally:
                self._device.release()
        except BaseException as e:  # it is raised where the job is watched
            self.error = e
        finally:
            self._ended.set()

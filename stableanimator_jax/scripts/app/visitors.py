"""Who is on the page, and their files: kept while they are, and no longer."""

import contextlib
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from stableanimator_jax.scripts.app.jobs import Job

KEPT_SECONDS = 4 * 3600
"""After which files go although their visitor is silent."""


@dataclass
class Visitor:
    """One open page."""

    uploads: set[Path] = field(default_factory=set)
    results: set[Path] = field(default_factory=set)
    """Of the last check and the last video."""
    job: Job | None = None
    """That is running, or the last one."""
    seen: float = field(default_factory=time.monotonic)


class Visitors:
    """All of them, by their sessions' names.

    Args:
        cache: the folder of uploads and results: files `cache/DIGEST/NAME`, which visitors with the same file share.
    """

    def __init__(self, cache: Path):
        self.cache = cache
        self.shipped: set[Path] = set()
        """Files of the page's own, which stay."""
        self._visitors: dict[str, Visitor] = {}
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._visitors)

    def of(self, session: str) -> Visitor:
        """The visitor of a session, who may be new. Those who have been silent for long are taken to have left."""
        with self._lock:
            now = time.monotonic()
            for name, other in list(self._visitors.items()):
                if now - other.seen > KEPT_SECONDS and (other.job is None or other.job.ended):
                    self.leave(name)
            visitor = self._visitors.setdefault(session, Visitor())
            visitor.seen = now
            return visitor

    def upload(self, session: str, paths: Iterable[Path]) -> None:
        """Hear of files that a visitor uploaded."""
        with self._lock:
            self.of(session).uploads |= set(paths)

    def results(self, session: str, visitor: Visitor, paths: Iterable[Path]) -> None:
        """Put a visitor's new results in the place of the old ones; of one who has left, delete them."""
        with self._lock:
            gone, visitor.results = visitor.results, set(paths)
            if self._visitors.get(session) is not visitor:
                gone, visitor.results = gone | visitor.results, set()
            self._delete(gone)

    def leave(self, session: str) -> None:
        """End a visitor's job, and delete their files."""
        with self._lock:
            visitor = self._visitors.pop(session, None)
            if visitor is None:
                return
            if visitor.job is not None:
                visitor.job.cancel()
            self._delete(visitor.uploads | visitor.results)

    def all_leave(self) -> None:
        """End all jobs, and wait for the one that computes."""
        jobs = [visitor.job for visitor in self._visitors.values() if visitor.job is not None]
        for session in list(self._visitors):
            self.leave(session)
        for job in jobs:
            job.join()

    def _delete(self, paths: set[Path]) -> None:
        used = self.shipped.union(*(v.uploads | v.results for v in self._visitors.values()))
        for path in paths - used:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
                path.parent.rmdir()

"""Videos prepared in parallel by processes of this machine; what happens to one does not touch the others."""

import functools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from typing import Any

from tqdm import tqdm

from stableanimator_jax.errors import InputError, printable
from stableanimator_jax.opencv import cv2
from stableanimator_jax.preparation.config import ModelFiles
from stableanimator_jax.preparation.perceiving import Perception
from stableanimator_jax.preparation.sources import Source
from stableanimator_jax.preparation.staging import StagedVideo, Staging, StagingError

_DIED = "the process that prepared it died twice: not enough memory, or a crash in a library"


@dataclass(frozen=True)
class FailedVideo:
    """A video that could not be prepared."""

    name: str
    why: str


Outcome = StagedVideo | FailedVideo


def stage_all(sources: Sequence[Source], staging: Staging, models: ModelFiles, workers: int) -> list[Outcome]:
    """Stage every video; bad ones, also those that crash their process, are told in their place.

    Each of `workers` processes has its share of the cores, and loads `models` once. Outcomes are in the sources' order.

    Raises:
        StagingError: the work folder cannot be written to.
    """
    outcomes: dict[str, Outcome] = {}
    with tqdm(total=len(sources), desc="preparing", unit="video") as bar:

        def finish(source: Source, outcome: Outcome) -> None:
            outcomes[source.name] = outcome
            bar.update()

        waiting = deque(sources)
        while waiting:
            # A crash breaks the pool for all that are in it. Each of them alone shows whose fault it was.
            for suspect in _run_pool(waiting, staging, models, workers, finish):
                if _run_pool(deque([suspect]), staging, models, 1, finish):
                    finish(suspect, FailedVideo(suspect.name, _DIED))
    return [outcomes[source.name] for source in sources]


def _run_pool(
    waiting: deque[Source],
    staging: Staging,
    models: ModelFiles,
    workers: int,
    finish: Callable[[Source, Outcome], None],
) -> list[Source]:
    """Stage videos out of `waiting` until there are no more or a process dies; those that were then in work."""
    context = multiprocessing.get_context("spawn")  # ONNX Runtime's threads do not survive a fork
    stop = context.Event()
    threads = max(1, (os.cpu_count() or 1) // workers)
    running: dict[Future[Outcome], Source] = {}
    with ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(stop, threads)) as pool:
        try:
            while waiting or running:
                # No more than there are processes, so that what is in the pool is in work.
                while waiting and len(running) < workers:
                    running[pool.submit(stage_one, waiting[0], staging, models)] = waiting[0]
                    waiting.popleft()
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    outcome = future.result()
                    finish(running.pop(future), outcome)
        except BrokenProcessPool:
            finished = [f for f in running if f.done() and f.exception() is None]
            for future in finished:
                finish(running.pop(future), future.result())
            return list(running.values())
        except BaseException:
            stop.set()  # else the pool waits until every video that is in work is done
            raise
    return []


def stage_one(source: Source, staging: Staging, models: ModelFiles) -> Outcome:
    """Stage one video, with models that stay loaded in this process.

    Raises:
        StagingError: the work folder cannot be written to.
    """
    try:
        return staging.stage(source, _perception(models))
    except StagingError:
        raise
    except InputError as e:
        return FailedVideo(source.name, str(e).replace(printable(str(source.path)), source.name))
    except Exception as e:  # whatever a library thinks of a strange file
        reason = " ".join(str(e).split())
        return FailedVideo(source.name, printable(f"{type(e).__name__}: {reason}"))


@functools.cache
def _perception(models: ModelFiles) -> Perception:
    return Perception(models)


def _start_worker(stop: Event, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then stops this process
    threading.Thread(target=_end_with_parent, args=(stop,), daemon=True).start()
    cv2.setNumThreads(threads)
    limit_onnx_threads(threads)


def _end_with_parent(stop: Event) -> None:
    parent = multiprocessing.parent_process()
    while not stop.wait(0.5) and parent is not None and parent.is_alive():
        pass
    os._exit(1)


def limit_onnx_threads(threads: int) -> None:
    """Let ONNX Runtime's sessions, from now on, compute with so many threads each.

    By default each takes all cores, and InsightFace has no way to pass options on to its own.
    """
    import onnxruntime

    session: Any = onnxruntime.InferenceSession
    plain = session.__init__

    def limited(self: Any, model: Any, sess_options: Any = None, *args: Any, **options: Any) -> None:
        if sess_options is None:
            sess_options = onnxruntime.SessionOptions()
            sess_options.intra_op_num_threads = threads
        plain(self, model, sess_options, *args, **options)

    session.__init__ = limited

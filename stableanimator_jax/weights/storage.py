"""What all that Orbax writes and reads here has in common: lists of files with their sizes, and quiet failures."""

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from etils import epath

from stableanimator_jax.files import LFS_POINTER, is_lfs_pointer


def file_sizes(directory: epath.PathLike) -> dict[str, int]:
    """Every file below a directory, by its path from there with slashes, with its size in bytes."""
    sizes = {}
    for path in sorted(epath.Path(directory).iterdir()):
        if path.is_dir():
            sizes |= {f"{path.name}/{name}": size for name, size in file_sizes(path).items()}
        else:
            sizes[path.name] = path.stat().length
    return sizes


def forget_place(directory: Path) -> None:
    """Take the directory's own path out of what Orbax leaves in it: a checkpoint is moved, and given to others.

    Only that this file is there counts (Orbax: `COMMIT_SUCCESS_FILE`), not what it says.
    """
    for file in directory.rglob("commit_success.txt"):
        file.write_text("Checkpoint commit was successful\n")


def damage(directory: epath.PathLike, sizes: Mapping[str, int]) -> str | None:
    """What is wrong with the first file that is not as `file_sizes` found it, in words that go after "is"; or None.

    Files cut short are looked for because Orbax answers one with tracebacks of its own threads, and with several
    processes perhaps in one of them only.

    Raises:
        OSError: the directory cannot be read, or a name is too long for a file.
    """
    for name, size in sizes.items():
        file = epath.Path(directory) / name
        try:
            found = file.stat().length
        except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a name that no file can have
            return f"incomplete: {name} is missing"
        if found != size and is_lfs_pointer(file):
            return f"incomplete: {name} is {LFS_POINTER}"
        if found != size:
            return f"damaged: {name} has {found} bytes, not {size}"
    return None


class _NotOrbax(logging.Filter):
    """Drops what Orbax says, and what others say about an exception that came out of it."""

    def filter(self, record: logging.LogRecord) -> bool:
        _, error, traceback = record.exc_info or (None, None, None)
        return not (_of_orbax(record.pathname) or _from_orbax(traceback) or _from_tensorstore(error))


_QUIET = _NotOrbax()


def _of_orbax(file: str) -> bool:
    return "/orbax/" in file.replace("\\", "/")


def _from_orbax(traceback: TracebackType | None) -> bool:
    while traceback is not None:
        if _of_orbax(traceback.tb_frame.f_code.co_filename):
            return True
        traceback = traceback.tb_next
    return False


def _from_tensorstore(error: BaseException | None) -> bool:
    """Whether it is what a write of an array came to that nobody waited for, since another one had failed before."""
    return isinstance(error, ValueError) and error.__traceback__ is None and "OCDBT database" in str(error)


@contextmanager
def orbax_silenced() -> Iterator[None]:
    """Within the block Orbax logs nothing: a traceback for every thread that an error passes through, as it would."""
    logger, quiet = logging.getLogger("absl"), _NotOrbax()
    report = sys.unraisablehook

    def unraisable(problem: "sys.UnraisableHookArgs") -> None:
        # The second: what TensorStore's threads meet when one of Orbax's gave up before them.
        if not (_from_orbax(problem.exc_traceback) or str(problem.exc_value) == "Event loop is closed"):
            report(problem)

    logger.addFilter(quiet)
    # For good: a failed write's futures live as long as its error, and asyncio complains when they are cleared away.
    logging.getLogger("asyncio").addFilter(_QUIET)
    sys.unraisablehook = unraisable
    try:
        yield
    finally:
        sys.unraisablehook = report
        logger.removeFilter(quiet)

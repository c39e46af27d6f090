"""Files in general: the first check on every input, writing all or nothing."""

import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from stableanimator_jax.errors import InputError, printable, reason_of

if TYPE_CHECKING:
    from etils import epath

_LFS_MARK = b"version https://git-lfs.github.com/spec/"
LFS_POINTER = "only a Git LFS pointer to the file: run `git lfs pull` in its repository, or download the file itself"


def require_file(path: Path, what: str) -> None:
    """Raise `InputError` unless `path` is a non-empty file, and no Git LFS pointer to one.

    `what` names it in the message, as in "video".
    """
    try:
        if path.is_dir():
            raise InputError(f"{what} {path} is a directory; give a file")
        size = path.stat().st_size
        if not path.is_file():
            raise InputError(f"{what} {path} is a pipe or a device; give a file, because it is read more than once")
        pointer = is_lfs_pointer(path)
    except FileNotFoundError:
        raise InputError(f"{what} {path} does not exist") from None
    except OSError as e:
        raise InputError(f"cannot read {what} {path}: {reason_of(e)}") from e
    if size == 0:
        raise InputError(f"{what} {path} is empty (0 bytes)")
    if pointer:
        raise InputError(f"{what} {path} is {LFS_POINTER}")


def is_lfs_pointer(path: "Path | epath.Path") -> bool:
    """Whether a file is the few lines of text that Git leaves in place of a large one. Raises `OSError`."""
    with path.open("rb") as file:
        return file.read(len(_LFS_MARK)) == _LFS_MARK


def require_utf8(path: str | os.PathLike[str], what: str) -> None:
    """Raise `InputError` for a name with bytes that are no UTF-8, where a library that opens it takes no such name."""
    if printable(os.fspath(path)) != os.fspath(path):
        raise InputError(f"{what} {path}: the name is no UTF-8, which what opens it does not take; give it another")


def is_directory(path: Path) -> bool:
    """Whether `path` is a directory. A path that the system refuses to look at, as one too long, is none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def real_path(path: Path) -> Path:
    """`path` absolute, without links; unlike `Path.resolve`, a loop of links is no error here, but left as it is."""
    return Path(os.path.realpath(path))


def ffmpeg_name(path: Path) -> str:
    """`path` for FFmpeg, which would take what stands before a relative name's colon for a protocol."""
    return f"file:{path}"


def neighbour(path: Path) -> Path:
    """A place beside `path` that nothing else takes, for what is to be put into `path` when it is whole."""
    return path.with_name(f".{path.name[:60]}-{uuid.uuid4().hex[:8]}.tmp")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary neighbour of `path`, to be written in the `with` block, that takes its name when the block ends well.

    Raises:
        InputError: it cannot be written.
    """
    temporary = neighbour(path)
    try:
        yield temporary
        temporary.replace(path)
    except OSError as e:
        raise InputError(f"cannot write {path}: {reason_of(e)}") from e
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_directory(place: Path, *, overwrite: bool = False, label: str | None = None) -> Iterator[Path]:
    """As `replacing` a directory, which is made and to be filled; of one that is there what is in it is not kept.

    The neighbour is always `unfinished_directory(place)`: what a run that was killed left there is removed.

    Args:
        overwrite: whether it may take the place of a directory with something in it.
        label: what an error calls it; by default its path.

    Raises:
        InputError: it cannot be written.
    """
    unfinished, replaced = unfinished_directory(place), place.with_name(f".{place.name}.replaced")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        yield unfinished
        if overwrite and place.exists():
            shutil.rmtree(replaced, ignore_errors=True)
            place.rename(replaced)
        unfinished.rename(place)  # an empty directory gives way, another one is an error
        shutil.rmtree(replaced, ignore_errors=True)
    except OSError as e:
        raise InputError(f"cannot write {label or place}: {reason_of(e)}") from e
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def unfinished_directory(place: Path) -> Path:
    """Where a directory is while it is written."""
    return place.with_name(f".{place.name}.unfinished")


def require_room(output: Path, needed: int) -> None:
    """Check that `output` can be made and that its disk has `needed` bytes left.

    Raises:
        InputError: the nearest directory that exists cannot be written, or is on a disk that is too full.
    """
    place = output.resolve().parent
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"cannot write {output}: {place} is not a directory that can be written; choose another")
    free = shutil.disk_usage(place).free
    if free < needed:
        raise InputError(
            f"{output} needs up to {needed / 1e6:,.0f} MB, but {place} has {free / 1e6:,.0f} MB free: make room, or "
            "choose another --output"
        )


def url_scheme(path: str | os.PathLike[str]) -> str | None:
    """The scheme of a URL, as "gs" of `gs://bucket`, of which `Path` leaves `gs:/bucket`; None for a path."""
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", os.fspath(path))
    return match and match[1]


def require_local(path: str | os.PathLike[str]) -> None:
    """Raise `InputError` for a URL, which would else be taken for a folder of that name."""
    if (scheme := url_scheme(path)) is not None:
        url = f"{scheme}://{os.fspath(path)[len(scheme) + 1 :].lstrip('/')}"
        raise InputError(f"{url} is a URL: give a file or folder of this machine, to which it is copied or mounted")


def absolute_path(path: Path) -> Path:
    """Also of `~/file`, which the shell leaves as it is in `--flag=~/file`. Raises `InputError` for a URL."""
    require_local(path)
    with suppress(RuntimeError):  # nobody's home is known
        path = path.expanduser()
    return path.absolute()

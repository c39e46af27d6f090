"""What a result came from: hashes of files, versions of packages."""

import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path

from stableanimator_jax.errors import InputError, reason_of

_PACKAGES = (
    "stableanimator-jax",
    "jax",
    "jaxlib",
    "flax",
    "orbax-checkpoint",
    "numpy",
    "pillow",
    "av",
    "insightface",
    "onnxruntime",
    "opencv-python",
)


def sha256_of(files: Sequence[Path], directory: Path | None = None) -> str:
    """SHA-256 of one file's bytes (as `sha256sum` prints it), or of a directory's listing of them.

    Args:
        files: the files, in an order that does not change.
        directory: where `files` lie; the listing then has each one's relative name and sha256.

    Raises:
        InputError: a file cannot be read.
    """
    try:
        digests = [file_sha256(file) for file in files]
    except OSError as e:
        raise InputError(f"cannot read {e.filename}: {reason_of(e)}") from e
    if directory is None:
        (digest,) = digests
        return digest
    lines = (f"{d}  {f.relative_to(directory).as_posix()}\n" for f, d in zip(files, digests, strict=True))
    return hashlib.sha256(os.fsencode("".join(lines))).hexdigest()


def file_sha256(path: Path, on_bytes: Callable[[int], object] = lambda count: None) -> str:
    """SHA-256 of a file's bytes, as `sha256sum` prints it; `on_bytes` hears how many are read. Raises `OSError`."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**22):
            digest.update(block)
            on_bytes(len(block))
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages whose results go into a video."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # run from a source tree
            found[name] = "not installed"
    return found

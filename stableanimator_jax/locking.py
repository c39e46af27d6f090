"""One run at a time in a directory."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stableanimator_jax.errors import InputError, reason_of


@contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Within the block no other run gets into `directory`, which is made if need be.

    The lock is on a file in it, `.lock`, and the system's own: it goes with the process, however that ends. On a file
    system without locks there is none.

    Raises:
        InputError: another run is in it, or nothing can be written there.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = (directory / ".lock").open("a+", encoding="utf-8")
    except OSError as e:
        raise InputError(f"cannot write to {directory}: {reason_of(e)}; name another directory") from e
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise InputError(
                f"another run is writing to {directory} ({file.read()}): wait for it or stop it, or name another "
                "directory"
            ) from None
        except OSError:
            pass  # no locks here
        else:
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
        yield

"""The one exception for bad input, which the scripts print as one line and exit with status 2, and its words."""

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Input that a person can mend: a file, a flag, a checkpoint, a configuration.

    The message is one line that says what is wrong and what to do about it; names in it are made `printable`.
    """

    def __init__(self, message: str):
        super().__init__(printable(message))


def printable(text: str) -> str:
    """The same with bytes that are no UTF-8 as `\\xd6`.

    A file's name may have such bytes, from an archive of another system; Python keeps them as surrogates, which no
    file in UTF-8 and no protocol takes. To be used on names that are written somewhere.
    """
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # surrogates that stand for no byte, as JSON may have them
        return text.encode("utf-8", "backslashreplace").decode()


@contextmanager
def as_input_error(what: str, *kinds: type[Exception]) -> Iterator[None]:
    """What the system refuses in the block, and errors of `kinds`, are `InputError`s: `what`, and the reason.

    `what` is what could not be done, with the file's name, as in "cannot write a.png".
    """
    try:
        yield
    except InputError:
        raise
    except (OSError, *kinds) as e:
        raise InputError(f"{what}: {reason_of(e)}") from e


def first_line(error: BaseException) -> str:
    """The first line of what an error says, for a message of one line; its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def reason_of(error: BaseException) -> str:
    """As `first_line`, but of the system's errors without number and file, for a message that names the file itself."""
    return getattr(error, "strerror", None) or first_line(error)

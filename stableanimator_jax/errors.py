"""The one exception for bad input, which the scripts print as one line and exit with status 2, and its words."""


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


def reason_of(error: BaseException) -> str:
    """Why, in one line, for a message that names the file itself: what the system says, as "No space left on device",
    else the first line of the error's own words, else its kind."""
    lines = (getattr(error, "strerror", None) or str(error)).strip().splitlines()
    return lines[0] if lines else type(error).__name__

"""The one exception for bad input: the scripts print it as one line and exit with status 2."""


class InputError(ValueError):
    """Input that a person can mend: a file, a flag, a checkpoint, a configuration.

    The message is one line that says what is wrong and what to do about it.
    """

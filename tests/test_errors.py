import os

import pytest

from stableanimator_jax.errors import first_line, reason_of


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, os.strerror(28), "/some/file"), "No space left on device"),
        (OSError("no such thing"), "no such thing"),
        (ValueError("\nfirst\nsecond"), "first"),
        (EOFError(), "EOFError"),
    ],
)
def test_a_reason_is_one_line_without_the_file(error, reason):
    assert reason_of(error) == reason


def test_a_first_line_keeps_the_file():
    assert first_line(OSError(2, "No such file", "/a/b")) == "[Errno 2] No such file: '/a/b'"

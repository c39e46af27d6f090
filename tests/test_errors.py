import os

import pytest

from stableanimator_jax.errors import reason_of


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

"""The family's table is made for each of its systems."""

import pytest

from benchmarks.family import CASES, main


@pytest.mark.slow
def test_a_row_for_each(capsys):
    assert main(["--tiny"]) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [line.split(" | ")[0].removeprefix("| ") for line in rows] == [case[0] for case in CASES]

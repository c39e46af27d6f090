"""The evaluation's table has a row for each metric that is asked for."""

from benchmarks.evaluation import main


def test_a_row_for_each(capsys):
    assert main(["--videos", "1", "--side", "32", "--only", "L1", "SSIM", "suspicions"]) == 0
    rows = capsys.readouterr().out.splitlines()[3:]
    assert [row.split(" | ")[0] for row in rows] == ["| L1", "| SSIM", "| suspicions"]

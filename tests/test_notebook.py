"""The notebook, executed from the first cell to the last in a kernel of its own, but for fewer steps."""

from pathlib import Path

import pytest
from PIL import Image

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytestmark = pytest.mark.long

NOTEBOOK = Path(__file__).parents[1] / "notebooks/stableanimator.ipynb"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_it_runs_and_shows_a_video(tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    (steps,) = (cell for cell in notebook.cells if "STEPS = 10" in cell.source)
    steps.source = steps.source.replace("STEPS = 10", "STEPS = 2")
    nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    with Image.open(tmp_path / "animation.gif") as video:
        assert (video.size, video.n_frames) == ((64, 64), 32)
    shown = [output.data for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    assert [next(iter(set(data) - {"text/plain"})) for data in shown] == ["image/png", "image/gif"]


def test_it_is_kept_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)

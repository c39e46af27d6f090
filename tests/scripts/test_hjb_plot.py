"""The plot of the face optimisation: what it draws, where nothing is to be drawn, and that it shows up in the file."""

import math
import sys
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from stableanimator_jax.scripts.sample.hjb_plot import plot_similarity, similarity_figure

BLUE, RED = (27, 108, 168), (209, 73, 91)


class Report(NamedTuple):
    """What the plot reads of a step's report."""

    step: int
    similarity_before: float
    similarity_after: float
    faces: int


NO_FACE = (math.nan, math.nan, 0)
RUN = [Report(0, 0.1, 0.2, 4), Report(2, 0.3, 0.5, 4), Report(4, *NO_FACE), Report(6, 0.4, 0.7, 1)]


def line(figure, label: str) -> np.ndarray:
    """The points of the line with this label, `[points, 2]`."""
    (axes,) = figure.axes
    (found,) = (line for line in axes.get_lines() if line.get_label() == label)
    return found.get_xydata()


def pixels(path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.size == (1200, 675)
        return np.asarray(picture.convert("RGB")).astype(int)


def near(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((np.abs(picture - colour).max(-1) < 12).sum())


def test_lines_hold_the_reports():
    figure = similarity_figure(RUN)
    nan = math.nan
    np.testing.assert_array_equal(line(figure, "before"), [[0, 0.1], [2, 0.3], [4, nan], [6, 0.4]])
    np.testing.assert_array_equal(line(figure, "after the optimisation"), [[0, 0.2], [2, 0.5], [4, nan], [6, 0.7]])
    (axes,) = figure.axes
    assert axes.get_xlim() == (-0.5, 6.5)
    assert all(float(tick).is_integer() for tick in axes.get_xticks())
    assert "step" in axes.get_xlabel()
    assert "cosine" in axes.get_ylabel()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["after the optimisation", "before"]


def test_the_file_shows_both_lines_with_a_gap(tmp_path):
    path = tmp_path / "any.name"
    plot_similarity(RUN, path)
    picture = pixels(path)
    assert near(picture, BLUE) > 500
    assert near(picture, RED) > 200

    plot_similarity([r if r.faces else r._replace(similarity_before=0.35, similarity_after=0.6) for r in RUN], path)
    without_gap = pixels(path)
    assert near(without_gap, BLUE) > near(picture, BLUE) + 200


@pytest.mark.parametrize("alone", [[Report(5, 0.25, 0.5, 3)], [Report(3, *NO_FACE), Report(5, 0.25, 0.5, 3)]])
def test_one_step_is_visible(tmp_path, alone):
    path = tmp_path / "one.png"
    plot_similarity(alone, path)
    picture = pixels(path)
    assert near(picture, BLUE) > 60
    assert near(picture, RED) > 40
    (axes,) = similarity_figure(alone).axes
    assert all(float(tick).is_integer() for tick in axes.get_xticks())


@pytest.mark.parametrize("reports", [[], [Report(0, *NO_FACE)], [Report(3, *NO_FACE), Report(4, *NO_FACE)]])
def test_without_any_face(tmp_path, reports):
    path = tmp_path / "none.png"
    plot_similarity(reports, path)
    picture = pixels(path)
    assert near(picture, BLUE) == near(picture, RED) == 0
    middle = picture[250:450, 400:800]
    assert (middle < 200).all(-1).sum() > 100  # the words that say so
    (axes,) = similarity_figure(reports).axes
    assert [text.get_text() for text in axes.texts] == ["no face was found"]


def test_small_differences_are_labelled_in_full():
    figure = similarity_figure([Report(0, 0.900001, 0.900004, 1), Report(1, 0.900002, 0.900005, 1)])
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert axes.yaxis.get_offset_text().get_text() == ""


def test_no_global_state(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it is an error
    plot_similarity(RUN, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size

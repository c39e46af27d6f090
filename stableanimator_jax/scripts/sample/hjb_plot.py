"""A picture of what the face optimisation did: similarity to the reference, before and after, step by step."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from stableanimator_jax.sampling.face_control import StepReport


def plot_similarity(reports: "Sequence[StepReport]", path: Path) -> None:
    """Write `similarity_figure` as a PNG file, whatever `path` is called.

    Raises:
        OSError: it cannot be written.
    """
    similarity_figure(reports).savefig(path, format="png")


def similarity_figure(reports: "Sequence[StepReport]") -> "Figure":
    """Mean cosine to the reference before and after the optimisation, by denoising step.

    Args:
        reports: of the optimised steps, in order. Steps where no face was found leave a gap.

    Returns:
        a figure of 1200x675 pixels, which belongs to no window and no global state.
    """
    from matplotlib.figure import Figure  # takes a second to import
    from matplotlib.ticker import MaxNLocator

    steps = [report.step for report in reports]
    before = np.array([report.similarity_before for report in reports], np.float64)
    after = np.array([report.similarity_after for report in reports], np.float64)
    seen = np.isfinite(before) & np.isfinite(after)

    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(steps, after, "o-", color="#1b6ca8", markersize=5, label="after the optimisation")
    axes.plot(steps, before, "s--", color="#d1495b", markersize=4, label="before")
    axes.fill_between(steps, before, after, where=seen.tolist(), color="#1b6ca8", alpha=0.12, linewidth=0)
    axes.set_title("Faces' similarity to the reference")
    axes.set_xlabel("denoising step, counted from 0")
    axes.set_ylabel("mean cosine to the reference face")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if steps:
        axes.set_xlim(min(steps) - 0.5, max(steps) + 0.5)  # steps without a face at either end are shown as empty
    if seen.any():
        axes.legend(frameon=False)
    else:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no face was found", transform=axes.transAxes, ha="center", va="center", color="0.4")
    return figure

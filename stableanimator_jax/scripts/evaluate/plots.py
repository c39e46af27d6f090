"""Plots of an evaluation: how a measure is spread over the videos, and how it goes along their frames."""

import base64
import io
from typing import TYPE_CHECKING

import numpy as np

from stableanimator_jax.evaluation.measures import METRICS, Measured
from stableanimator_jax.evaluation.summary import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BLUE, _RED, _GREY, _GREEN = "#1b6ca8", "#b3261e", "0.45", "#2e7d32"


def distribution(name: str, videos: list[Measured], estimate: Estimate) -> "Figure":
    """Every video a dot, over a histogram; the mean with its interval, and what the truth and a baseline get."""
    from matplotlib.ticker import MaxNLocator  # takes a second to import

    metric = METRICS[name]
    values = np.array([v.scores[name] for v in videos if np.isfinite(v.scores.get(name, np.nan))])
    figure, axes = _figure(3.6, 2.3)
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-12:  # all alike: a bar of some width
        low, high = low - max(abs(low), 1) * 0.01, high + max(abs(high), 1) * 0.01
    axes.hist(
        values, bins=np.linspace(low, high, min(24, max(6, len(values) // 3)) + 1).tolist(), color=_BLUE, alpha=0.3
    )
    top = axes.get_ylim()[1]
    jitter = np.random.default_rng(0).uniform(0.05, 0.2, len(values)) * top
    axes.plot(values, jitter, "o", color=_BLUE, markersize=3.5, alpha=0.7)
    if estimate.interval is not None and np.isfinite(estimate.interval).all():
        axes.axvspan(*estimate.interval, color=_RED, alpha=0.15, linewidth=0)
    axes.axvline(estimate.value, color=_RED, linewidth=1.5, label=f"mean {estimate.value:.{metric.digits}f}")
    for value, label, colour, style in (
        (estimate.truth, "truth", _GREEN, "--"),
        (estimate.baseline, "baseline", _GREY, ":"),
    ):
        if value is not None and np.isfinite(value):
            axes.axvline(
                value, color=colour, linewidth=1.5, linestyle=style, label=f"{label} {value:.{metric.digits}f}"
            )
    shown = [
        v for v in (low, high, estimate.value, estimate.truth, estimate.baseline) if v is not None and np.isfinite(v)
    ]
    edge = 0.05 * (max(shown) - min(shown))
    axes.set_xlim(min(shown) - edge, max(shown) + edge)  # a wide interval of few videos would leave them no room
    axes.set_ylabel("videos", fontsize=8)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    better = {True: " (higher is better)", False: " (lower is better)", None: ""}[metric.higher_is_better]
    axes.set_title(metric.title + better, fontsize=8)
    axes.legend(frameon=False, fontsize=7, loc="best")
    return figure


def along_frames(name: str, videos: list[Measured], worst: str | None) -> "Figure | None":
    """The median over videos frame by frame, the middle 80 % of them, and one video; None where no curve is long."""
    from matplotlib.ticker import MaxNLocator

    curves = {v.name: np.array(v.frames[name], np.float64) for v in videos if name in v.frames}
    length = max((len(curve) for curve in curves.values()), default=0)
    if length < 3 or not any(np.isfinite(curve).any() for curve in curves.values()):
        return None
    padded = np.full((len(curves), length), np.nan)
    for row, curve in zip(padded, curves.values(), strict=True):
        row[: len(curve)] = curve
    known = np.flatnonzero(np.isfinite(padded).any(axis=0))
    low, middle, high = np.nanquantile(padded[:, known], [0.1, 0.5, 0.9], axis=0)
    figure, axes = _figure(3.6, 2.3)
    axes.fill_between(known, low, high, color=_BLUE, alpha=0.2, linewidth=0, label="middle 80 % of videos")
    axes.plot(known, middle, color=_BLUE, linewidth=1.8, label="median")
    if worst in curves and len(curves) > 1:
        axes.plot(curves[worst], color=_RED, linewidth=1.2, linestyle="--", label=_short(worst))
    axes.set_xlabel("frame", fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_title(METRICS[name].title, fontsize=9)
    axes.legend(frameon=False, fontsize=7, loc="best")
    return figure


def as_uri(figure: "Figure") -> str:
    """An image for a page, whatever else is on it."""
    from matplotlib import rc_context

    file = io.BytesIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "evaluation"}):  # text stays text, the same file each time
        figure.savefig(file, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()


def _figure(width: float, height: float):
    from matplotlib.figure import Figure  # takes a second to import

    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.14, 0.17, 0.83, 0.71))  # laying it out takes longer than drawing it
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    return figure, axes


def _short(name: str) -> str:
    return (name if len(name) <= 24 else f"…{name[-23:]}").replace("$", r"\$").lstrip("_")

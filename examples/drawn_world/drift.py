"""One long video, measured hundred frames by hundred frames: does it drift away from the person and the place?"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from tqdm import tqdm

from examples.drawn_world.dataset import embed_faces
from examples.drawn_world.metrics import similarity
from examples.drawn_world.pairs import DrawnPair, draw_pair, unseen_pairs
from examples.drawn_world.settings import make_folder
from examples.drawn_world.study import SAMPLING
from stableanimator_jax.data.face_track import Face
from stableanimator_jax.errors import InputError
from stableanimator_jax.files import replacing
from stableanimator_jax.interrupts import check_interrupted
from stableanimator_jax.models.arcface import ArcFace
from stableanimator_jax.models.catalogue import blueprint
from stableanimator_jax.models.functional import Model
from stableanimator_jax.sampling.config import SamplingConfig
from stableanimator_jax.sampling.pipeline import Animator
from stableanimator_jax.shipped import EMBEDDED
from stableanimator_jax.weights.opening import open_checkpoint

_EMBEDDED_AT_ONCE = 100


@dataclass(frozen=True)
class DriftConfig:
    """What is made and measured."""

    pair: int = 2000
    """Number of the unseen person and motion."""
    frames: int = 2000
    """Of the video."""
    every: int = 100
    """Frames that one number is the mean of."""
    size: int = 64
    """Of the frames in pixels."""
    checkpoint: str = EMBEDDED
    """What animates."""
    arcface: Path | None = None
    """A checkpoint whose ArcFace measures, other than the one that `checkpoint` knows; by default that one."""
    sampling: SamplingConfig = field(default_factory=lambda: SAMPLING)
    """How the video is made."""
    work: Path = Path("outputs/drawn_world/drift")
    """Where drift.json, drift.md and drift.png are written."""

    def __post_init__(self):
        for name, low in {"pair": 0, "frames": 2, "every": 1, "size": 16}.items():
            if getattr(self, name) < low:
                raise InputError(f"--{name} must be at least {low}, got {getattr(self, name)}")


def drift(config: DriftConfig) -> None:
    """Make the video, measure it and its truth, and write table, numbers and curves."""
    make_folder(config.work)
    animator = Animator.from_pretrained(config.checkpoint, dtype="float32", arcface=True)
    assert animator.arcface is not None
    judge = animator.arcface
    if config.arcface is not None:
        other = open_checkpoint(str(config.arcface))
        judge = other.load("arcface", blueprint(other.config, "arcface"))
    pair = draw_pair(unseen_pairs(1, config.pair)[0], frames=config.frames, stride=1, size=config.size)
    with tqdm(desc="denoising", unit="call") as bar:

        def denoised(done: int, total: int) -> None:
            check_interrupted()
            bar.total = total
            bar.update(done - bar.n)

        made = animator.animate(
            pair.reference,
            pair.poses,
            id_embedding=animator.embed_face(pair.reference, Face(pair.reference_box)),
            sampling=config.sampling,
            on_denoise=denoised,
        )
    measured = {
        "video": measure(made, pair, judge, config.every),
        "truth": measure(pair.truth, pair, judge, config.every),
    }
    with replacing(config.work / "drift.json") as path:
        path.write_text(json.dumps({"settings": asdict(config), "measured": measured}, indent=2, default=str) + "\n")
    with replacing(config.work / "drift.md") as path:
        path.write_text(table(measured, config.every))
    with replacing(config.work / "drift.png") as path:
        _plot(measured, config.every).savefig(path, format="png", dpi=110)
    print(table(measured, config.every))


def measure(
    frames: UInt8[np.ndarray, "f h w 3"], pair: DrawnPair, arcface: Model[ArcFace], every: int
) -> dict[str, list[float]]:
    """Means over every so many frames.

    Returns:
        `csim`: cosine of the faces to the reference's; `colour`: how far the mean colour is from the truth's, in 8-bit
        levels; `sharpness`: mean size of the steps from pixel to pixel, in 8-bit levels.
    """
    reference = embed_faces(arcface, pair.reference[None], pair.reference_box[None])[0]
    starts = range(0, len(frames), _EMBEDDED_AT_ONCE)
    faces = np.concatenate(
        [
            embed_faces(arcface, frames[s : s + _EMBEDDED_AT_ONCE], pair.faces.boxes[s : s + _EMBEDDED_AT_ONCE])
            for s in starts
        ]
    )
    found: dict[str, list[float]] = {"csim": [], "colour": [], "sharpness": []}
    for start in range(0, len(frames), every):
        part = slice(start, start + every)
        found["csim"].append(similarity(faces[part], reference, pair.faces.valid[part]))
        colours = (pictures[part].astype(float).mean((0, 1, 2)) for pictures in (frames, pair.truth))
        found["colour"].append(float(np.abs(np.subtract(*colours)).mean()))
        found["sharpness"].append(_sharpness(frames[part]))
    return found


def _sharpness(frames: UInt8[np.ndarray, "f h w 3"]) -> float:
    levels: Float[np.ndarray, "f h w 3"] = frames.astype(float)
    return float(np.mean([np.abs(np.diff(levels, axis=axis)).mean() for axis in (1, 2)]))


def table(measured: dict[str, dict[str, list[float]]], every: int) -> str:
    """As Markdown."""
    lines = [
        "| frames | CSIM | of the truth | colour off by, levels | sharpness | of the truth |",
        "|---|---|---|---|---|---|",
    ]
    video, truth = measured["video"], measured["truth"]
    columns = (video["csim"], truth["csim"], video["colour"], video["sharpness"], truth["sharpness"])
    for number, (csim, true_csim, colour, sharp, true_sharp) in enumerate(zip(*columns, strict=True)):
        first = number * every
        lines.append(
            f"| {first} to {first + every - 1} | {csim:.3f} | {true_csim:.3f} | {colour:.1f} | {sharp:.2f} | "
            f"{true_sharp:.2f} |"
        )
    return "\n".join(lines) + "\n"


def _plot(measured: dict[str, dict[str, list[float]]], every: int) -> Figure:
    figure = Figure(figsize=(9, 3), layout="constrained")
    titles = {"csim": "CSIM", "colour": "colour off by, levels", "sharpness": "sharpness, levels"}
    for axes, (name, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
        for label, numbers in measured.items():
            middles: Sequence[float] = [every * (i + 0.5) for i in range(len(numbers[name]))]
            axes.plot(middles, numbers[name], label=label)
        axes.set_title(title)
        axes.set_xlabel("frame")
        axes.set_ylim(bottom=0)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure

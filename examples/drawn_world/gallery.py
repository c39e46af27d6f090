"""One moving picture: unseen people, each in the same unseen motions, whatever became of them."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from examples.drawn_world.pairs import DrawnPair, draw_pair, unseen_pairs
from examples.drawn_world.settings import require_counts
from examples.drawn_world.study import Condition, OneAnimator, StudyConfig, make_videos
from stableanimator_jax.data.video import check_writable, held_fps, open_writer
from stableanimator_jax.scripts.sample.settings import DRAWN_PEOPLE
from stableanimator_jax.shipped import EMBEDDED

_GAP = 2  # pixels between pictures, before these are enlarged
_PAPER = 255
_FPS = 8


@dataclass(frozen=True)
class GalleryConfig:
    """Who is shown, and how they move."""

    checkpoint: str = EMBEDDED
    """A checkpoint directory, or "embedded" for the one in this package."""
    people: int = 12
    motions: int = 3
    """That each of them makes, the same ones."""
    first_pair: int = 3000
    """The number of the first person, and of the first motion."""
    frames: int = 16
    """Of each video, every third of its motion."""
    columns: int = 2
    """Of people, beside each other."""
    scale: int = 2
    """Pixels of the picture for each of a video's, in either direction."""
    size: int = 64
    """Of the videos in pixels."""
    work: Path = Path("outputs/drawn_world/gallery")
    """Where videos are kept: a run that was stopped goes on."""
    picture: Path = Path("docs/images/gallery.webp")
    """To be written, .webp or .gif; replaced if it is there."""

    def __post_init__(self):
        require_counts(self)


def gallery(config: GalleryConfig) -> None:
    """Animate everybody as `python sample.py` would, face optimisation and all, and write the picture: each person's
    reference, and beside it their videos.

    Raises:
        InputError: the checkpoint or a setting cannot be used, or the picture cannot be written.
    """
    study = StudyConfig(size=config.size, work=config.work)
    check_writable(config.picture)  # rather than after minutes
    height, width = (config.scale * n for n in _extent(config.people, config.motions, config.size, config.columns))
    fps = held_fps(config.picture, width, height, _FPS)
    pairs = draw_everybody(config)
    condition = Condition("videos", "animating", config.checkpoint, DRAWN_PEOPLE.hjb.adam_iterations)
    videos, _ = make_videos(condition, OneAnimator(), pairs, study)
    references = np.stack([pair.reference for pair in pairs[:: config.motions]])
    made = videos.reshape(config.people, config.motions, *videos.shape[1:])
    frames = arranged(references, made, config.columns).repeat(config.scale, axis=1).repeat(config.scale, axis=2)
    with open_writer(config.picture, width, height, fps, overwrite=True) as picture:
        for frame in frames:
            picture.write(frame)
    print(f"gallery: {config.picture}")


def draw_everybody(config: GalleryConfig) -> list[DrawnPair]:
    """Each person's pairs, one after the other: the person of one number in the motions of the first ones."""
    motions = [pair.driving_motion for pair in unseen_pairs(config.motions, config.first_pair)]
    pairs = [
        dataclasses.replace(pair, driving_motion=motion)
        for pair in unseen_pairs(config.people, config.first_pair)
        for motion in motions
    ]
    return [draw_pair(pair, frames=config.frames, stride=3, size=config.size) for pair in pairs]


def _extent(people: int, motions: int, size: int, columns: int) -> tuple[int, int]:
    """Height and width of the whole picture, before it is enlarged."""
    return -(-people // columns) * (size + _GAP) - _GAP, columns * _width(motions, size) - 3 * _GAP


def _width(motions: int, size: int) -> int:
    """From one column to the next."""
    return (motions + 1) * (size + _GAP) + 2 * _GAP


def arranged(
    references: UInt8[np.ndarray, "people size size 3"],
    videos: UInt8[np.ndarray, "people motions f size size 3"],
    columns: int,
) -> UInt8[np.ndarray, "f h w 3"]:
    """Frames of the whole picture: so many people beside each other, each a row of the reference and all videos."""
    people, motions, frames, size = videos.shape[:4]
    step, wide = size + _GAP, _width(motions, size)
    picture = np.full((frames, *_extent(people, motions, size, columns), 3), _PAPER, np.uint8)
    for number, (reference, own) in enumerate(zip(references, videos, strict=True)):
        row, column = divmod(number, columns)
        still = np.broadcast_to(reference, own.shape[1:])
        for place, cell in enumerate([still, *own]):
            top, left = row * step, column * wide + place * step
            picture[:, top : top + size, left : left + size] = cell
    return picture

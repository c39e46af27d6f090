"""Driving people who stand elsewhere, are another size or tilted: what each way of aligning them makes of the video."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
from tqdm import tqdm

from examples.drawn_world.ablation_sheet import draw_sheet
from examples.drawn_world.clips import SKELETON_SIDE, DrawnClip, draw_frames
from examples.drawn_world.intervals import Estimate, draw_pairs, mean
from examples.drawn_world.pairs import DrawnPair, Pair, draw_pair, unseen_pairs
from examples.drawn_world.settings import make_folder
from examples.drawn_world.study import (
    Condition,
    OneAnimator,
    Study,
    StudyConfig,
    load_judges,
    make_videos,
    measure,
    measure_truth,
)
from stableanimator_jax.data.images import fit
from stableanimator_jax.data.keypoints import LEAST_SCORE, Keypoints
from stableanimator_jax.files import replacing
from stableanimator_jax.perception import similarity
from stableanimator_jax.perception.alignment import Align
from stableanimator_jax.perception.alignment import align as align_linearly
from stableanimator_jax.perception.driving_poses import drawn as drawn_skeletons
from stableanimator_jax.perception.driving_poses import fitted_keypoints
from stableanimator_jax.perception.face_points import track_from_keypoints
from stableanimator_jax.perception.skeleton import BODY
from stableanimator_jax.shipped import EMBEDDED


@dataclass(frozen=True)
class Misalignment:
    """What lies between the person's own keypoints and those that drive, in a picture of the same height."""

    scale: float = 1.0
    """About the picture's middle."""
    degrees: float = 0.0
    """Of the camera's roll."""
    offset: tuple[float, float] = (0.0, 0.0)
    """To the right and down, as a share of the height."""
    aspect: float = 1.0
    """Width over height of the driving frames."""
    other_person: bool = False
    """Driven by the next pair's person: another head, another hair."""
    shoulders_only: bool = False
    """The driving video ends below the shoulders."""


CASES = {
    "none": Misalignment(),
    "scale 0.4": Misalignment(scale=0.4),
    "scale 2.5": Misalignment(scale=2.5),
    "offset 0.3": Misalignment(offset=(0.3, -0.1)),
    "16:9": Misalignment(aspect=16 / 9),
    "roll 15°": Misalignment(degrees=15.0),
    "roll 30°": Misalignment(degrees=-30.0),
    "another person": Misalignment(other_person=True),
    "head and shoulders": Misalignment(scale=1.6, offset=(0.0, 0.3), shoulders_only=True),
}
SHOWN = "roll 15°"
"""On the picture."""
_SHOULDERS_AND_ABOVE = {0, 1, 2, 5, *range(14, 18), *range(24, 92)}


@dataclass(frozen=True)
class AlignmentConfig(StudyConfig):
    """What is made and measured; videos are made without the face optimisation."""

    pairs: int = 8
    """Of an unseen person and an unseen motion."""
    first_pair: int = 2000
    """Its number."""
    checkpoint: str = EMBEDDED
    """What animates."""
    work: Path = Path("outputs/drawn_world/alignment")
    """Where videos are kept, and alignment.json, alignment.md and alignment.png."""


@dataclass(frozen=True)
class Driver:
    """A pair, and what is known of it as keypoints."""

    pair: DrawnPair
    standing: Keypoints
    """Of the reference, one frame."""
    own: Keypoints
    """Of the truth: what driving it without any misalignment gives."""


def alignment(config: AlignmentConfig) -> None:
    """Make the videos that are not there yet, measure them, and write the table and a picture of two people.

    Raises:
        InputError: a checkpoint or a setting cannot be used.
    """
    make_folder(config.work)
    judges = load_judges(config.checkpoint, config)
    drivers = [still_reference(pair, config) for pair in unseen_pairs(config.pairs, config.first_pair)]
    pairs = [driver.pair for driver in drivers]
    _, _, references = measure_truth(judges, pairs)
    resampled = draw_pairs(config.pairs, config.resamples)
    animator_of, rows, rolled = OneAnimator(), {}, {}
    for case, how in tqdm(CASES.items(), "misalignments", unit="case"):
        driving = [_driving(number, drivers, how, config) for number in range(len(drivers))]
        for method in get_args(Align):
            aligned = [_align(d, driver.standing, method) for d, driver in zip(driving, drivers, strict=True)]
            driven = [_driven_by(pair, keypoints) for pair, keypoints in zip(pairs, aligned, strict=True)]
            condition = Condition(f"{list(CASES).index(case)}-{method}", method, config.checkpoint, 0)
            videos, seconds = make_videos(condition, animator_of, driven, config)
            found = measure(judges, driven, references, videos, seconds, f"{case}, {method}")
            errors = [joint_error(k, driver.own) for k, driver in zip(aligned, drivers, strict=True)]
            scores = {
                "error": np.array(errors),
                "csim": np.nan_to_num(found.scores["csim"]),  # no face anywhere in the picture
                "person_iou": found.scores["person_iou"],
            }
            rows[case, method] = {name: mean(values, resampled) for name, values in scores.items()}
            if case == SHOWN:
                rolled[method] = found
    titles = {method: Condition(method, f"{SHOWN}, {method}", config.checkpoint, 0) for method in rolled}
    picture = draw_sheet(Study(pairs, titles, rolled, {}, {}), list(rolled), min(2, len(pairs)))
    numbers = {
        f"{case}, {method}": {name: [e.value, *e.interval] for name, e in row.items()}
        for (case, method), row in rows.items()
    }
    with replacing(config.work / "alignment.png") as path:
        picture.save(path, format="PNG")
    with replacing(config.work / "alignment.json") as path:
        path.write_text(json.dumps(numbers, indent=1) + "\n")
    with replacing(config.work / "alignment.md") as path:
        path.write_text(table(rows))
    print(table(rows))


def still_reference(pair: Pair, config: StudyConfig) -> Driver:
    """The pair with a frame of the driving motion itself as the reference: that in which the person is nearest to where
    they are on the median, so that who is aligned well is where the truth has them."""
    moments = range(0, config.frames * config.stride, config.stride)
    own = _keypoints(draw_frames(pair.person, pair.driving_motion, pair.wall, moments, config.size))
    places = own.points[:, BODY].mean(axis=1)
    nearest = int(np.square(places - np.median(places, axis=0)).sum(axis=1).argmin())
    standing = replace(own, points=own.points[nearest : nearest + 1], scores=own.scores[nearest : nearest + 1])
    still = replace(pair, reference_motion=pair.driving_motion, reference_frame=moments[nearest])
    return Driver(draw_pair(still, frames=config.frames, stride=config.stride, size=config.size), standing, own)


def misaligned(keypoints: Keypoints, how: Misalignment) -> Keypoints:
    """As another camera would see them, in frames of `SKELETON_SIDE` pixels' height."""
    width = round(SKELETON_SIDE * how.aspect)
    zoom = how.scale * SKELETON_SIDE / keypoints.height
    angle = np.deg2rad(how.degrees)
    turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centred = keypoints.points - [keypoints.width / 2, keypoints.height / 2]
    middle = np.array([width / 2, SKELETON_SIDE / 2]) + SKELETON_SIDE * np.array(how.offset)
    scores = keypoints.scores.copy()
    if how.shoulders_only:
        scores[:, [row for row in range(scores.shape[1]) if row not in _SHOULDERS_AND_ABOVE]] = 0
    points = (centred @ turn.T + middle).astype(np.float32)
    return Keypoints(points, scores, width, SKELETON_SIDE, keypoints.fps)


def joint_error(aligned: Keypoints, own: Keypoints) -> float:
    """Mean distance of the body's joints that both have from where the truth has them, in % of the picture's height."""
    seen = (aligned.scores[:, BODY] >= LEAST_SCORE) & (own.scores[:, BODY] >= LEAST_SCORE)
    shares = [k.points[:, BODY] / [k.width, k.height] for k in (aligned, own)]
    return float(100 * np.linalg.norm(shares[0] - shares[1], axis=-1)[seen].mean())


def table(rows: Mapping[tuple[str, str], Mapping[str, Estimate]]) -> str:
    """As Markdown: a row a misalignment, and of each way the joints' error in %, CSIM and the person's IoU."""
    methods = get_args(Align)
    lines = ["| misalignment | " + " | ".join(methods) + " |", "|---" * (len(methods) + 1) + "|"]
    for case in dict.fromkeys(case for case, _ in rows):
        found = [rows[case, method] for method in methods]
        cells = [f"{r['error'].value:.1f} %, {r['csim'].value:.2f}, {r['person_iou'].value:.2f}" for r in found]
        lines.append(f"| {case} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _driving(number: int, drivers: Sequence[Driver], how: Misalignment, config: StudyConfig) -> Keypoints:
    """What the driving video shows for a pair."""
    keypoints = drivers[number].own
    if how.other_person:
        pair, other = drivers[number].pair.pair, drivers[(number + 1) % len(drivers)].pair.pair
        moments = range(0, config.frames * config.stride, config.stride)
        keypoints = _keypoints(draw_frames(other.person, pair.driving_motion, pair.wall, moments, config.size))
    return misaligned(keypoints, how)


def _align(driving: Keypoints, standing: Keypoints, method: Align) -> Keypoints:
    if method == "off":
        return fitted_keypoints(driving, standing.width, standing.height, "crop")
    if method == "linear":
        return align_linearly(driving, standing).keypoints
    return similarity.align(driving, standing, limbs=method == "limbs").keypoints


def _keypoints(clip: DrawnClip) -> Keypoints:
    """At the skeletons' size."""
    size = clip.frames.shape[1]
    return Keypoints(clip.points * np.float32(SKELETON_SIDE / size), clip.scores, SKELETON_SIDE, SKELETON_SIDE, None)


def _driven_by(pair: DrawnPair, keypoints: Keypoints) -> DrawnPair:
    """The pair with other skeletons, and the faces where these have them."""
    size = pair.truth.shape[1]
    pictures = drawn_skeletons(keypoints)
    small = np.stack([fit(picture, size, size, "crop", filter="bicubic", fill=(0, 0, 0)) for picture in pictures])
    faces = track_from_keypoints(keypoints.points, keypoints.scores)
    return replace(pair, poses=small, faces=faces.fitted((keypoints.width, keypoints.height), size, size, "crop"))

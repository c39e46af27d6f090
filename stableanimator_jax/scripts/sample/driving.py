"""Poses from a driving video: found by DWPose, aligned to the reference's person, drawn, and kept where asked."""

import shutil
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from stableanimator_jax.data.frame_rate import exact_rate
from stableanimator_jax.data.images import FitMode, aspect_window, fit
from stableanimator_jax.data.keypoints import Keypoints, save_keypoints
from stableanimator_jax.data.poses import Poses
from stableanimator_jax.data.resampling import DrivingInfo, Frame, read_driving
from stableanimator_jax.data.sound import check_sound
from stableanimator_jax.errors import InputError
from stableanimator_jax.perception.alignment import align
from stableanimator_jax.perception.dwpose import People, PoseEstimator
from stableanimator_jax.perception.person_choice import (
    HOW_TO_CHOOSE,
    PersonChoice,
    check_choice,
    choose,
    parse_choice,
    pick,
)
from stableanimator_jax.perception.preview import write_preview
from stableanimator_jax.perception.scenes import CutDetector, thumbnail
from stableanimator_jax.perception.skeleton import draw_skeletons
from stableanimator_jax.perception.tracking import Track, follow
from stableanimator_jax.progress import ProgressBars
from stableanimator_jax.scripts.sample.settings import SampleConfig

_FLAG = "--driving-person"
_CHUNK = 16  # frames that wait for DWPose at once


@dataclass(frozen=True)
class DrivenPoses:
    """What was found in a driving video."""

    found: Keypoints
    """In pixels of the video."""
    keypoints: Keypoints
    """Where the person of the reference is to be, in pixels of the output."""
    poses: Poses
    """Drawn from `keypoints`."""


def open_estimator(config: SampleConfig) -> PoseEstimator:
    """DWPose for a run with `driving` and `dwpose`. Raises `InputError` where it, or the sound, cannot be used."""
    assert config.driving is not None  # the caller's choice
    assert config.dwpose is not None  # SampleConfig sees to it
    if config.sound:
        check_sound(config.driving, config.output)  # whether the output can hold it; that there is none is said later
    return PoseEstimator.from_folder(config.dwpose)


def find_reference_person(
    estimator: PoseEstimator, reference: UInt8[np.ndarray, "h w 3"], choice: PersonChoice | None
) -> Keypoints:
    """Of one person in the photo, in its pixels: the one who is meant, or the largest, with a warning of the others.

    Raises:
        InputError: nobody is there, or not whom `choice` means.
    """
    (people,) = estimator.people([reference])
    if not len(people.boxes):
        raise InputError(
            "DWPose finds nobody in the reference image, to whom the poses could be aligned; take another photo, or "
            "--no-align to leave the poses where they are in the driving video"
        )
    height, width = reference.shape[:2]
    one = slice(i := choose(choice, people.boxes, (width, height), "the reference image", "--reference-person"), i + 1)
    return Keypoints(people.keypoints[one], people.scores[one], width, height, None)


def extract_poses(
    config: SampleConfig, estimator: PoseEstimator, standing: Keypoints | None, width: int, height: int
) -> DrivenPoses:
    """Find the poses of one person in the driving video, and draw them at the output's size.

    Says on stderr what is not as it should be: nobody in some frames, other people, new scenes, a poor fit to the
    reference.

    Args:
        config: with `driving`.
        estimator: as `open_estimator` gives it.
        standing: the reference's person, to whom poses are aligned; None where they are not.
        width, height: of the output.

    Raises:
        InputError: the video cannot be used, or nobody is in it, or not who is meant.
    """
    assert config.driving is not None  # the caller's choice
    with _open(config) as (info, frames):
        if info.fps_note:
            _warn(f"the driving video {config.driving} {info.fps_note}; --driving-fps chooses another")
        if config.sound and config.output_fps is not None and exact_rate(config.output_fps) != exact_rate(info.fps):
            raise InputError(
                f"--sound keeps time only at the driving video's {info.fps:g} frames a second: leave --output-fps out, "
                "or set both by --driving-fps"
            )
        track = _follow(config, info, *_people(estimator, info, frames))
    _warn_of_track(config, track, info)

    driving = Keypoints(track.points, track.scores, info.width, info.height, info.fps)
    placed = driving if standing is None else _align_scenes(driving, standing, track.scenes, info)
    keypoints = _fitted(placed, width, height, config.fit)
    _warn_of_cut_off(driving, keypoints)
    return DrivenPoses(driving, keypoints, Poses(drawn(keypoints), info.fps))


def driving_fps(config: SampleConfig) -> float:
    """Frames a second that come of the driving video.

    Raises:
        InputError: as `read_driving`.
    """
    with _open(config) as (info, _):
        return info.fps


def _open(config: SampleConfig):
    assert config.driving is not None
    return read_driving(
        config.driving,
        start=config.driving_start,
        end=config.driving_end,
        fps=config.driving_fps,
        max_frames=config.driving_max_frames,
    )


def _people(estimator: PoseEstimator, info: DrivingInfo, frames: Iterator[Frame]) -> tuple[list[People], list[int]]:
    """The people in each frame, and the frames that look like scene cuts."""
    found: list[People] = []
    cuts: list[int] = []
    detector = CutDetector()
    with ProgressBars() as bars:
        progress = bars.begin("finding poses", "frame")
        chunk: list[Frame] = []
        last, before = None, 0.0
        for i, frame in enumerate(frames):
            # A frame that is shown again would make the next one's change look unusual.
            if frame is not last:
                cut = detector.is_cut(thumbnail(frame))
                if cuts and 3 * detector.change > before > 0:
                    cuts.pop()  # what goes on changing is motion, and what goes back a flash
                before = detector.change if cut else 0.0
                if cut:
                    cuts.append(i)
            last = frame
            chunk.append(frame)
            if len(chunk) == _CHUNK:
                found += estimator.people(chunk)
                chunk = []
                progress(len(found), max(info.frame_count or 0, len(found)))
        found += estimator.people(chunk)
        progress(len(found), len(found))
    return found, cuts


def _follow(config: SampleConfig, info: DrivingInfo, people: list[People], cuts: list[int]) -> Track:
    first = next((i for i, here in enumerate(people) if len(here.boxes)), None)
    if first is None:
        raise InputError(f"DWPose finds nobody in the driving video {config.driving}")
    choice = parse_choice(config.driving_person or "largest", _FLAG)
    where = f"the driving video at {_second(info, first):.2f} s, where it first shows anybody"
    check_choice(choice, len(people[first].boxes), (info.width, info.height), where, _FLAG)
    return follow(people, fps=info.fps, choose=lambda boxes: pick(choice, boxes, info.width), cuts=cuts)


def _align_scenes(driving: Keypoints, standing: Keypoints, scenes: list[int], info: DrivingInfo) -> Keypoints:
    """Each scene by itself: after a cut the camera is another, and one fit for all would suit none."""
    aligned = []
    for first, end in pairwise([0, *scenes, len(driving.points)]):
        scene = replace(driving, points=driving.points[first:end], scores=driving.scores[first:end])
        alignment = align(scene, standing)
        if alignment.poor and scene.scores.any():
            _warn(alignment.poor + (f" (from {_second(info, first):.2f} s)" if scenes else ""))
        aligned.append(alignment.keypoints)
    return replace(aligned[0], points=np.concatenate([k.points for k in aligned]), scores=driving.scores)


def _second(info: DrivingInfo, frame: int) -> float:
    return info.start + frame / info.fps


def _warn_of_track(config: SampleConfig, track: Track, info: DrivingInfo) -> None:
    who = "the largest" if config.driving_person is None else f"--driving-person {config.driving_person}"
    if track.gaps:
        times = [(_second(info, first), _second(info, last + 1)) for first, last in track.gaps]
        others = any(track.others[first : last + 1].any() for first, last in track.gaps)
        shown = ", ".join(f"{begin:.2f} to {end:.2f} s" for begin, end in times[:5])
        more = f" and {len(times) - 5} more times" if len(times) > 5 else ""
        _warn(
            f"the person is not found in the driving video at {shown}{more}: those skeletons are empty"
            + ("; others who are in view there are not followed instead (--driving-end ends earlier)" if others else "")
        )
    if track.scenes:
        shown = ", ".join(f"{_second(info, first):.2f}" for first in track.scenes[:5])
        more = f" s and {len(track.scenes) - 5} more times" if len(track.scenes) > 5 else " s"
        _warn(
            f"the driving video begins a new scene at {shown}{more}, where {who} in view is followed from then on, and "
            "aligned anew; --driving-start and --driving-end take one scene"
        )
    if track.others.any() and config.driving_person is None:
        _warn(
            f"the driving video shows other people in {int((track.others > 0).sum())} of {len(track.others)} frames; "
            f"the one followed was the largest when first seen; {_FLAG} chooses: {HOW_TO_CHOOSE}"
        )


def _warn_of_cut_off(driving: Keypoints, keypoints: Keypoints) -> None:
    """Of points that the driving video shows, but the output does not."""
    seen = (driving.scores > 0) & _inside(driving)
    lost = seen & ~_inside(keypoints)
    if lost.any():
        _warn(
            f"{int(lost.sum())} of {int(seen.sum())} keypoints lie outside of the picture ({keypoints.width}x"
            f"{keypoints.height}), in {int(lost.any(axis=1).sum())} of {len(lost)} frames: those parts of the person "
            "are cut off; --fit pad or a --width and --height nearer to the reference's aspect show more"
        )


def _inside(keypoints: Keypoints) -> Bool[np.ndarray, "f 134"]:
    x, y = np.moveaxis(keypoints.points, -1, 0)
    return (x >= 0) & (y >= 0) & (x < keypoints.width) & (y < keypoints.height)


def _fitted(keypoints: Keypoints, width: int, height: int, mode: FitMode) -> Keypoints:
    """As `data.images.fit` moves the pixels."""
    window = aspect_window(keypoints.width, keypoints.height, width, height, mode)
    present = np.any(keypoints.scores, axis=1, keepdims=True)[..., None]
    moved = (keypoints.points - [window.left, window.top]) * (width / window.width, height / window.height)
    points = np.where(present, moved, 0).astype(np.float32)
    return Keypoints(points, keypoints.scores, width, height, keypoints.fps)


def drawn(keypoints: Keypoints) -> UInt8[np.ndarray, "f h w 3"]:
    """All skeletons, one by one into one array: a list would need the memory twice."""
    picture = np.dtype((np.uint8, (keypoints.height, keypoints.width, 3)))
    return np.fromiter(_draw(keypoints), picture, len(keypoints.points))


def _draw(keypoints: Keypoints) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    shares = keypoints.points / np.array([keypoints.width, keypoints.height])
    for points, scores in zip(shares, keypoints.scores, strict=True):
        yield draw_skeletons(points[None], scores[None], keypoints.height, keypoints.width)


def save_poses(place: Path, config: SampleConfig, reference: UInt8[np.ndarray, "h w 3"], driven: DrivenPoses) -> None:
    """Write skeletons, keypoints.json and preview.mp4 into a directory: all of them, or nothing.

    Args:
        place: the directory; new, or empty.
        config: the run's.
        reference: the photo at its own size.
        driven: what to write.

    Raises:
        InputError: it cannot be written.
    """
    keypoints, poses = driven.keypoints, driven.poses.frames
    temporary = place.with_name(f".{place.name[:60]}-{uuid.uuid4().hex[:8]}.tmp")
    try:
        temporary.mkdir(parents=True)
        for i, pose in enumerate(poses):
            Image.fromarray(pose).save(temporary / f"frame_{i}.png")
        save_keypoints(temporary / "keypoints.json", keypoints)
        shown = fit(reference, keypoints.width, keypoints.height, config.fit, filter="lanczos")
        with _open(config) as (info, frames):
            write_preview(temporary / "preview.mp4", frames, _draw(driven.found), shown, iter(poses), info.fps)
        if place.is_dir():
            place.rmdir()  # empty, as was checked before
        temporary.rename(place)
    except OSError as e:
        raise InputError(f"cannot write {place}: {e.strerror or e}") from e
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    print(f"wrote {place} (skeletons, keypoints.json, preview.mp4)")


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)

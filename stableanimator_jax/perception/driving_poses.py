"""A driving video's person as poses: found, followed, aligned to the reference's person, and drawn."""

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import get_args

import numpy as np
from jaxtyping import Bool, UInt8

from stableanimator_jax.data.images import (
    BLACK,
    FitMode,
    ImageLike,
    as_image,
    aspect_window,
    automatic_size,
    fit,
)
from stableanimator_jax.data.keypoints import Keypoints, missing_joints
from stableanimator_jax.data.poses import Poses
from stableanimator_jax.data.resampling import DrivingInfo, Frame, read_driving
from stableanimator_jax.data.timing import Timing, at_rate, checked_rates
from stableanimator_jax.errors import InputError
from stableanimator_jax.perception import alignment as linear
from stableanimator_jax.perception import similarity
from stableanimator_jax.perception.alignment import Align
from stableanimator_jax.perception.people import People, PoseEstimator
from stableanimator_jax.perception.person_choice import (
    HOW_TO_CHOOSE,
    PersonChoice,
    check_choice,
    choose,
    parse_choice,
    pick,
)
from stableanimator_jax.perception.scenes import CutDetector, thumbnail
from stableanimator_jax.perception.skeleton import DWPOSE_STYLE, SkeletonStyle, draw_skeletons
from stableanimator_jax.perception.tracking import Track, follow
from stableanimator_jax.progress import ProgressBars

_FLAG, _REFERENCE_FLAG = "--driving-person", "--reference-person"
_SKELETON_SIDE = 512  # of pictures that DWPose's lines are made for
_CHUNK = 16  # frames that wait for the estimator at once


@dataclass(frozen=True, eq=False)
class DrivenPoses:
    """What was found in a driving video."""

    found: Keypoints
    """In pixels of the video."""
    keypoints: Keypoints
    """Where the person of the reference is to be, in pixels of the output and at its rate."""
    poses: Poses
    """Drawn from `keypoints`."""
    timing: Timing
    """Which frames of the video those of the output are."""


def poses_from_video(
    video: Path | str,
    estimator: PoseEstimator,
    reference: ImageLike | None = None,
    *,
    width: int | None = None,
    height: int | None = None,
    fit: FitMode = "crop",
    start: float | None = None,
    end: float | None = None,
    fps: float | None = None,
    max_frames: int | None = None,
    output_fps: float | None = None,
    person: str | None = None,
    reference_person: str | None = None,
    align: Align = "linear",
    style: SkeletonStyle = DWPOSE_STYLE,
) -> Poses:
    """Poses out of a video of anybody, ready for `Animator.animate`.

    Says on stderr what is not as it should be, as `extract_poses`.

    Args:
        video: a plain video.
        estimator: what finds people and their keypoints.
        reference: photo of the person to be animated, to whose place and size the poses are brought; None leaves them
            where they are in the video, as `align="off"` does.
        width, height: of the output; by default of the reference's aspect, or else of the video's.
        fit: how reference or video are brought to the output's aspect, as `Animator.animate` is told.
        start, end, fps, max_frames: what to take of the video, as `data.resampling.read_driving`.
        output_fps: frames a second of the poses, which take as long as those of the video: more of them than are taken
            of the video are interpolated between its poses, of fewer some are left out. By default as many.
        person: whom to follow: "largest" (the default), "left", "right", "centre", a number counted from the left, or a
            point "X,Y", where the video first shows anybody and after each scene cut.
        reference_person: who in the photo it is, in the same words.
        align: how the poses are brought to the person in the reference: "linear" as published, "similarity", "limbs"
            (docs/alignment.md), or "off".
        style: what skeletons show of the face and the hands.

    Raises:
        InputError: a file that cannot be used, nobody in it, or not who is meant.
    """
    if (width is None) != (height is None):
        raise InputError("give both width and height, or neither")
    if align not in get_args(Align):
        raise InputError(f"align must be {', '.join(get_args(Align))}, got {align}")
    video = Path(video)
    standing = None
    if reference is not None:
        image = as_image(reference, what="reference image")
        choice = None if reference_person is None else parse_choice(reference_person, _REFERENCE_FLAG)
        if align != "off":
            standing = find_reference_person(estimator, image, choice)
        if width is None or height is None:
            width, height = automatic_size(image.shape[1], image.shape[0])
    if width is None or height is None:
        with read_driving(video, start=start, end=end, fps=fps, max_frames=1) as (info, _):
            width, height = automatic_size(info.width, info.height)
    return extract_poses(
        video,
        estimator,
        standing,
        width,
        height,
        fit=fit,
        start=start,
        end=end,
        fps=fps,
        max_frames=max_frames,
        output_fps=output_fps,
        person=person,
        align=align,
        style=style,
    ).poses


def find_reference_person(
    estimator: PoseEstimator,
    reference: UInt8[np.ndarray, "h w 3"],
    choice: PersonChoice | None,
    needed: str | None = None,
) -> Keypoints:
    """Of one person in the photo, in its pixels: the one who is meant, or the largest, with a warning of the others.

    `needed` says in errors what for and what to do, where it is not to align poses.

    Raises:
        InputError: nobody is there, or not whom `choice` means.
    """
    (people,) = estimator.people([reference])
    if not len(people.boxes):
        raise InputError(
            f"{type(estimator).__name__} finds nobody in the reference image, "
            + (
                needed
                or "to whom the poses could be aligned; take another photo, or --align off to leave the poses where "
                "they are in the driving video"
            )
        )
    height, width = reference.shape[:2]
    one = slice(i := choose(choice, people.boxes, (width, height), "the reference image", _REFERENCE_FLAG), i + 1)
    return Keypoints(people.keypoints[one], people.scores[one], width, height, None)


def extract_poses(
    video: Path,
    estimator: PoseEstimator,
    standing: Keypoints | None,
    width: int,
    height: int,
    *,
    fit: FitMode = "crop",
    start: float | None = None,
    end: float | None = None,
    fps: float | None = None,
    max_frames: int | None = None,
    poses_fps: float | None = None,
    output_fps: float | None = None,
    person: str | None = None,
    align: Align = "linear",
    style: SkeletonStyle = DWPOSE_STYLE,
) -> DrivenPoses:
    """Find the poses of one person in a video, and draw them at the output's size.

    Says on stderr what is not as it should be: nobody in some frames, other people, new scenes, a poor fit to the
    reference.

    Args:
        video: the driving video.
        estimator: what finds people and their keypoints.
        standing: the reference's person, to whom poses are aligned; None where they are not.
        width, height: of the output.
        fit: how the video is brought to the output's aspect.
        start, end, fps, max_frames: what to take of it, as `read_driving`.
        poses_fps: how fast what is taken is to be played; as the video where None.
        output_fps: frames a second of the output, in which poses are interpolated or left out; `poses_fps` where None.
        person: whom to follow, as `parse_choice` takes it; None for the largest.
        align: how they are aligned.
        style: how they are drawn.

    Raises:
        InputError: the video cannot be used, or nobody is in it, or not who is meant.
    """
    checked_rates(poses_fps, output_fps)
    with read_driving(video, start=start, end=end, fps=fps, max_frames=max_frames) as (info, frames):
        if info.fps_note:
            _warn(f"the driving video {video} {info.fps_note}; --driving-fps chooses another")
        people, cuts = _people(estimator, info, frames)
    if not any(len(here.boxes) for here in people):
        raise InputError(f"{type(estimator).__name__} finds nobody in the driving video {video}")
    track = _follow(person, info, people, cuts)
    _warn_of_track(person, track, info)

    driving = Keypoints(track.points, track.scores, info.width, info.height, info.fps, tuple(track.scenes))
    placed = driving
    if standing is not None and align != "off":
        placed = _align_scenes(driving, standing, track.scenes, info, align)
    keypoints = fitted_keypoints(placed, width, height, fit)
    warn_of_cut_off(driving, keypoints)
    rate = poses_fps or info.fps
    timing = at_rate(len(keypoints.points), rate, output_fps or rate, keypoints.cuts)
    keypoints = keypoints.at(timing, output_fps or rate)
    return DrivenPoses(driving, keypoints, Poses(drawn(keypoints, style), keypoints.fps), timing)


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


def _follow(person: str | None, info: DrivingInfo, people: list[People], cuts: list[int]) -> Track:
    first = next(i for i, here in enumerate(people) if len(here.boxes))
    choice = parse_choice(person or "largest", _FLAG)
    where = f"the driving video at {_second(info, first):.2f} s, where it first shows anybody"
    check_choice(choice, len(people[first].boxes), (info.width, info.height), where, _FLAG)
    return follow(people, fps=info.fps, choose=lambda boxes: pick(choice, boxes, info.width), cuts=cuts)


def _align_scenes(
    driving: Keypoints, standing: Keypoints, scenes: list[int], info: DrivingInfo, how: Align
) -> Keypoints:
    """Each scene by itself: after a cut the camera is another, and one fit for all would suit none."""
    aligned = []
    for first, end in pairwise([0, *scenes, len(driving.points)]):
        scene = replace(driving, points=driving.points[first:end], scores=driving.scores[first:end])
        if how == "linear":
            alignment = linear.align(scene, standing)
        else:
            alignment = similarity.align(scene, standing, limbs=how == "limbs")
        if alignment.poor and scene.scores.any():
            _warn(alignment.poor + (f" (from {_second(info, first):.2f} s)" if scenes else ""))
        aligned.append(alignment.keypoints)
    points = np.concatenate([k.points for k in aligned])
    return replace(aligned[0], points=points, scores=driving.scores, cuts=driving.cuts)


def _second(info: DrivingInfo, frame: int) -> float:
    return info.start + frame / info.fps


def _warn_of_track(person: str | None, track: Track, info: DrivingInfo) -> None:
    who = "the largest" if person is None else f"{_FLAG} {person}"
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
    if track.others.any() and person is None:
        _warn(
            f"the driving video shows other people in {int((track.others > 0).sum())} of {len(track.others)} frames; "
            f"the one followed was the largest when first seen; {_FLAG} chooses: {HOW_TO_CHOOSE}"
        )


def warn_of_cut_off(driving: Keypoints, keypoints: Keypoints) -> None:
    """Say on stderr which points the driving picture shows, but the output does not."""
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


def fitted_keypoints(keypoints: Keypoints, width: int, height: int, mode: FitMode) -> Keypoints:
    """As `data.images.fit` moves the pixels. Joints that are missing, (0, 0) with score 0, stay there, undrawn."""
    window = aspect_window(keypoints.width, keypoints.height, width, height, mode)
    present = np.any(keypoints.scores, axis=1, keepdims=True) & ~missing_joints(keypoints.points, keypoints.scores)
    moved = (keypoints.points - [window.left, window.top]) * (width / window.width, height / window.height)
    points = np.where(present[..., None], moved, 0).astype(np.float32)
    return replace(keypoints, points=points, width=width, height=height)


def drawn(keypoints: Keypoints, style: SkeletonStyle = DWPOSE_STYLE) -> UInt8[np.ndarray, "f h w 3"]:
    """All skeletons, one by one into one array: a list would need the memory twice."""
    picture = np.dtype((np.uint8, (keypoints.height, keypoints.width, 3)))
    return np.fromiter(skeletons(keypoints, style), picture, len(keypoints.points))


def skeletons(keypoints: Keypoints, style: SkeletonStyle = DWPOSE_STYLE) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """One by one, at the keypoints' size.

    Lines are as wide in pictures of any size: those of much less than 512x512 pixels are drawn as large as that, and
    made small as pictures of skeletons are.
    """
    width, height = keypoints.width, keypoints.height
    larger = max(1, round(_SKELETON_SIDE / math.sqrt(width * height)))
    shares = keypoints.points / np.array([width, height])
    for points, scores in zip(shares, keypoints.scores, strict=True):
        picture = draw_skeletons(points[None], scores[None], larger * height, larger * width, style)
        yield picture if larger == 1 else fit(picture, width, height, "crop", filter="bicubic", fill=BLACK)


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)

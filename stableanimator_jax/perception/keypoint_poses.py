"""Keypoints that somebody else found, as poses: one person of them, at the output's size, drawn."""

import sys
from pathlib import Path

import numpy as np

from stableanimator_jax.data.images import FitMode
from stableanimator_jax.data.keypoint_formats import KeypointFile, Size, read_keypoint_file
from stableanimator_jax.data.keypoints import POINTS, Keypoints
from stableanimator_jax.data.poses import Poses
from stableanimator_jax.data.timing import at_rate, checked_rates
from stableanimator_jax.errors import InputError
from stableanimator_jax.perception.driving_poses import drawn, fitted_keypoints, warn_of_cut_off
from stableanimator_jax.perception.people import People
from stableanimator_jax.perception.skeleton import DWPOSE_STYLE, SkeletonStyle
from stableanimator_jax.perception.tracking import follow

_USUAL_FPS = 25.0  # of files that have several people and no speed


def poses_from_keypoints(
    keypoints: Keypoints | Path | str,
    width: int | None = None,
    height: int | None = None,
    fit: FitMode = "crop",
    *,
    style: SkeletonStyle = DWPOSE_STYLE,
    poses_fps: float | None = None,
    output_fps: float | None = None,
) -> Poses:
    """Skeletons drawn from keypoints as DWPose draws them, ready for `Animator.animate`.

    Args:
        keypoints: what is to be drawn, or a file or folder of one of the kinds in docs/keypoints.md. Where it shows
            several people, the one who is largest when first seen is followed, which is said on stderr.
        width, height: of the output; by default of the picture that the keypoints are in. A file that does not say how
            large that is needs them, and is then in a picture of the output's size.
        fit: how the picture is brought to the output's aspect: "crop" to it, or "pad" to it.
        style: what skeletons show of the face and the hands.
        poses_fps: frames a second of the keypoints; by default what they say.
        output_fps: of the poses, which then take as long as the keypoints: more of them are interpolated, of fewer some
            are left out. By default, and where nothing says how fast the keypoints are, there are as many as of those.

    Raises:
        InputError: the file cannot be read, is of no such kind, has nobody in it, or needs a size; or a rate is out of
            range.
    """
    placed = output_keypoints(keypoints, width, height, fit)
    rates = checked_rates(poses_fps or placed.fps or output_fps, output_fps)
    if rates is not None:
        placed = placed.at(at_rate(len(placed.points), *rates, placed.cuts), rates[1])
    return Poses(drawn(placed, style), placed.fps)


def output_keypoints(
    keypoints: Keypoints | Path | str, width: int | None, height: int | None, fit: FitMode
) -> Keypoints:
    """What `poses_from_keypoints` draws, in pixels of the output.

    Raises:
        InputError: as `poses_from_keypoints`.
    """
    if (width is None) != (height is None):
        raise InputError("give both width and height, or neither")
    size = None if width is None or height is None else (width, height)
    if isinstance(keypoints, Keypoints):
        _check(keypoints)
        found = keypoints
    else:
        found = _read(Path(keypoints), size)
    placed = fitted_keypoints(found, *(size or (found.width, found.height)), fit)
    warn_of_cut_off(found, placed)
    return placed


def _check(keypoints: Keypoints) -> None:
    points, scores = keypoints.points, keypoints.scores
    if points.shape != (len(points), POINTS, 2) or scores.shape != points.shape[:2] or not len(points):
        raise InputError(
            f"keypoints must be [frames, {POINTS}, 2] with scores [frames, {POINTS}], not empty; got "
            f"{list(points.shape)} and {list(scores.shape)}"
        )
    if not np.isfinite(points).all() or not np.isfinite(scores).all():
        raise InputError("keypoints have values that are not finite")


def _read(path: Path, size: Size | None) -> Keypoints:
    file = read_keypoint_file(path, size)
    points, scores, cuts = _one_person(file, path)
    width, height = file.size
    outside = (scores > 0) & ((points < 0) | (points >= [width, height])).any(axis=-1)
    if not file.states_size and outside.any():
        _warn(
            f"keypoints {path} do not say how large their picture is, and {int(outside.sum())} of "
            f"{int((scores > 0).sum())} lie outside of {width}x{height}, which --width and --height were taken for: if "
            'it is of another size, write that into the file ("canvas_width" and "canvas_height", or "width" and '
            '"height" in .npz)'
        )
    return Keypoints(points, scores, width, height, file.fps, cuts)


def _one_person(file: KeypointFile, path: Path) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Points, scores, and the frames from which on it is another person."""
    several = sum(len(people) > 1 for people in file.frames)
    if not several:
        rows = np.stack([people[0] if len(people) else np.zeros((POINTS, 3), np.float32) for people in file.frames])
        return rows[..., :2], rows[..., 2], file.cuts
    everybody = [People(_boxes(people), people[..., :2], people[..., 2]) for people in file.frames]
    track = follow(everybody, fps=file.fps or _USUAL_FPS, max_gap=0)
    absent = int((~track.found).sum())
    scenes = ", ".join(map(str, track.scenes[:5])) + " and others" * (len(track.scenes) > 5)
    _warn(
        f"keypoints {path} show several people in {several} of {len(file.frames)} frames; the one who is largest when "
        f"first seen is followed{f', and chosen anew in frame {scenes}' if scenes else ''}"
        f"{f'; without them, {absent} skeletons are empty' if absent else ''}; to take another, leave only theirs"
    )
    return track.points, track.scores, tuple(track.scenes)


def _boxes(people: np.ndarray) -> np.ndarray:
    """Around the joints that are seen; everybody has one."""
    seen = (people[..., 2] > 0)[..., None]
    low = np.where(seen, people[..., :2], np.inf).min(axis=1)
    high = np.where(seen, people[..., :2], -np.inf).max(axis=1)
    return np.concatenate([low, high], axis=1).astype(np.float32)


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)

"""Whole-body keypoints of one person through a video: the numbers that skeletons are drawn from, as JSON."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float32

from stableanimator_jax.data.json_files import (
    plain_numbers,
    read_numbers,
    read_object,
    read_size,
    require_keys,
    require_list,
)
from stableanimator_jax.data.timing import Timing
from stableanimator_jax.errors import InputError
from stableanimator_jax.files import is_directory, replacing

POINTS = 134
"""Of a person in DWPose's order: 18 of the body, 6 of the feet, 68 of the face, 21 of each hand."""
WHOLEBODY_POINTS = 133
"""Of COCO-WholeBody, which has no neck."""
_LEFT_SHOULDER, _RIGHT_SHOULDER, _NECK = 5, 6, 133
LEAST_SCORE = 0.3
"""Below, a detector guesses, and skeletons leave joints of the body out."""
# COCO-WholeBody's row for each row of ours. Its body is nose, eyes, ears, shoulders, elbows, wrists, hips, knees and
# ankles, the left one first; what follows (feet, face, left hand, right hand) is in the same order in both.
_ORDER = [0, _NECK, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3, *range(17, 133)]
FORMAT = "stableanimator-jax keypoints"


@dataclass(frozen=True)
class Keypoints:
    """The person who is followed, in every frame."""

    points: Float32[np.ndarray, "f 134 2"]
    """(x, y) in pixels. Rows: 0 to 17 the body in OpenPose's order with the neck, 18 to 23 feet, 24 to 91 the face
    (iBUG's 68), 92 to 112 and 113 to 133 the left and the right hand."""
    scores: Float32[np.ndarray, "f 134"]
    """The detector's confidence; all 0 in a frame where the person was not found."""
    width: int
    """Of the frames in pixels."""
    height: int
    fps: float | None
    """Frames a second; None where they have no speed."""
    cuts: tuple[int, ...] = ()
    """Frames, after the first, at which the scene or the person is another."""

    def at(self, timing: Timing, fps: float) -> "Keypoints":
        """The keypoints at other moments, of a video of `fps` frames a second.

        Between two frames, points and scores move evenly. Of a joint that one of them alone shows (score 0.3 and more),
        or has a place for, the nearer frame's is taken.
        """
        first, second = timing.frame, np.minimum(timing.frame + 1, timing.count - 1)
        share = timing.share.astype(np.float32)[:, None]
        seen, missing = self.scores >= LEAST_SCORE, missing_joints(self.points, self.scores)
        unlike = (seen[first] != seen[second]) | (missing[first] != missing[second])
        share = np.where(unlike, np.round(share), share)
        rows = np.concatenate([self.points, self.scores[..., None]], axis=-1)
        moved = rows[first] + share[..., None] * (rows[second] - rows[first])
        cuts = np.unique(np.searchsorted(timing.frame, self.cuts)).tolist()
        cuts = tuple(cut for cut in cuts if 0 < cut < len(timing.frame))
        return replace(self, points=moved[..., :2], scores=moved[..., 2], fps=fps, cuts=cuts)


def from_wholebody(
    points: Float32[np.ndarray, "n 133 2"], scores: Float32[np.ndarray, "n 133"]
) -> tuple[Float32[np.ndarray, "n 134 2"], Float32[np.ndarray, "n 134"]]:
    """COCO-WholeBody to our rows. The neck is between the shoulders, and sure (1) where both are seen, else 0."""
    shoulders = [_LEFT_SHOULDER, _RIGHT_SHOULDER]
    neck = points[:, shoulders].mean(axis=1, keepdims=True)
    seen = (scores[:, shoulders] > LEAST_SCORE).all(axis=1, keepdims=True).astype(np.float32)
    points = np.concatenate([points, neck], axis=1)
    scores = np.concatenate([scores, seen], axis=1)
    return points[:, _ORDER], scores[:, _ORDER]


def missing_joints(
    points: Float[np.ndarray, "f 134 2"], scores: Float[np.ndarray, "f 134"]
) -> Bool[np.ndarray, "f 134"]:
    """Which ones nobody looked for, or are not known: (0, 0) with score 0. A detector that is unsure has a place."""
    return (scores == 0) & ~points.any(axis=-1)


def save_keypoints(path: Path, keypoints: Keypoints) -> None:
    """Write keypoints as JSON, whole or not at all; a file that is there is replaced.

        {"format": "stableanimator-jax keypoints", "width": 512, "height": 512, "fps": 25,
         "frames": [[[x, y, score], … 134], null, …]}

    A frame where the person was not found is null: the points it may have are not kept. Where there are cuts, they are
    in "cuts".

    Raises:
        InputError: the file cannot be written.
        ValueError: an array of another shape, or values that are not finite.
    """
    rows = np.concatenate([keypoints.points, keypoints.scores[..., None]], axis=-1)
    if rows.shape[1:] != (POINTS, 3) or not np.isfinite(rows).all():
        raise ValueError(f"expected finite keypoints [f, {POINTS}, 2] with scores, got {keypoints.points.shape}")
    lines = [json.dumps(plain_numbers(row) if row[:, 2].any() else None) for row in rows]
    head = {"format": FORMAT, "width": keypoints.width, "height": keypoints.height, "fps": keypoints.fps}
    head |= {"cuts": keypoints.cuts} if keypoints.cuts else {}
    text = json.dumps(head, allow_nan=False)[:-1] + ', "frames": [\n' + ",\n".join(lines) + "\n]}\n"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def load_keypoints(path: Path) -> Keypoints:
    """Read what `save_keypoints` wrote. Points of a frame where the person was not found are zeros.

    Raises:
        InputError: no such file, or not this structure; names the frame, counted from 0.
    """
    what = f"keypoints {path}"
    data = read_object(path, "keypoints")
    if data.get("format") != FORMAT:
        raise InputError(f'{what} is not a file of keypoints: its "format" is not "{FORMAT}"')
    require_keys(data, what, ("format", "width", "height", "frames"), ("fps", "cuts"))
    width, height = read_size(data, what)
    fps = data.get("fps")
    if fps is not None:
        read_numbers(fps, (), f"{what}, fps")
        if fps <= 0:
            raise InputError(f"{what}: fps must be above 0, got {fps:g}")
        fps = float(fps)
    frames = require_list(data["frames"], f"{what}, frames")
    if not frames:
        raise InputError(f"{what}: there are no frames in it")
    rows = np.zeros((len(frames), POINTS, 3), np.float32)
    for i, frame in enumerate(frames):
        if frame is not None:
            rows[i] = read_numbers(frame, (POINTS, 3), f"{what}, frame {i}")
    cuts = require_list(data.get("cuts", []), f"{what}, cuts")
    if not all(isinstance(cut, int) and 0 < cut < len(frames) for cut in cuts):
        raise InputError(f"{what}: cuts must be numbers of its frames after the first")
    return Keypoints(rows[..., :2], rows[..., 2], width, height, fps, tuple(cuts))


def keypoints_beside(poses: Path) -> Path | None:
    """The file of the keypoints that skeletons were drawn from, where it was kept beside them.

    It is `DIR/keypoints.json` for a directory, `VIDEO.keypoints.json` (after the suffix) for a video.
    """
    path = poses / "keypoints.json" if is_directory(poses) else poses.parent / f"{poses.name}.keypoints.json"
    try:
        return path if path.is_file() else None
    except OSError:  # such as a name too long
        return None

"""Keypoints in the files that other programs write, and in ours: everybody in each frame, in our rows.

OpenPose's JSON, that of ControlNet's tools, and NumPy's arrays in COCO-WholeBody's order; docs/keypoints.md has them
all. The order of OpenPose's points is that of its documentation (`doc/02_output.md`).
"""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from stableanimator_jax.config import read_json
from stableanimator_jax.data.json_files import read_numbers, read_size, require_list
from stableanimator_jax.data.keypoints import FORMAT, POINTS, WHOLEBODY_POINTS, from_wholebody, load_keypoints
from stableanimator_jax.data.numbered import numbered_files, numbered_frames, numbered_images
from stableanimator_jax.errors import InputError, as_input_error
from stableanimator_jax.files import is_directory, require_file

Person = Float32[np.ndarray, "134 3"]
"""(x, y, score); rows as in `data.keypoints.Keypoints`. A joint that is missing is three zeros."""
Frames = list[Float32[np.ndarray, "_ 134 3"]]
Size = tuple[int, int]
"""Width and height in pixels."""

KEYPOINT_SUFFIXES = (".json", ".npy", ".npz")

# Our rows 0 to 23 in OpenPose's BODY_25, which has the middle of the hips besides. Its BODY_18 are our rows 0 to 17.
_BODY_25 = [*range(8), *range(9, 25)]
# Our rows of its other parts, and how many points those may have. Of the face's 70 the last two are the pupils.
_PARTS = {
    "face_keypoints_2d": (slice(24, 92), (68, 70)),
    "hand_left_keypoints_2d": (slice(92, 113), (21,)),
    "hand_right_keypoints_2d": (slice(113, 134), (21,)),
}
_WRITTEN_TOGETHER = (slice(0, 24), slice(24, 92), slice(92, 134))  # some tools write one part in pixels only
_OTHER_KINDS = {
    15: "MPI's", 16: "MPII's", 17: "COCO's, without a neck", 18: "OpenPose's BODY_18", 19: "OpenPose's BODY_19",
    25: "OpenPose's BODY_25", 26: "HALPE's", 33: "MediaPipe's", 68: "a face's", 135: "OpenPose's BODY_135",
    136: "HALPE's",
}  # fmt: skip

_MOST_SHARE = 2.0  # people reach out of the picture, but not so far; and in pixels nobody is so small
_LEAST_SHARE = -0.5
_SCORES = (-1.0, 20.0)  # networks' raw ones are of the order of 1, a depth in pixels is not
_LARGEST = 1e6
_3D = "; 3D points cannot be drawn"


@dataclass(frozen=True, eq=False)
class KeypointFile:
    """What a file, or a folder of files, holds."""

    frames: Frames
    """Everybody in each frame, in pixels; rows as in `Person`."""
    size: Size
    """Of the picture that they are in."""
    fps: float | None
    """Frames a second, where it says them."""
    states_size: bool
    """Whether it says `size` itself."""
    cuts: tuple[int, ...] = ()
    """As in `Keypoints`, where it says them."""


def holds_keypoints(path: Path) -> bool:
    """Whether poses at `path` are keypoints, by its suffix: a .json, .npy or .npz, or a directory that has numbered
    .json files and no numbered images. Raises `InputError` for a directory that cannot be read, or has several."""
    if is_directory(path):
        return not numbered_images(path, "poses") and bool(numbered_files(path, "poses", (".json",)))
    return path.suffix.lower() in KEYPOINT_SUFFIXES


def keypoint_files(path: Path) -> list[Path]:
    """The files that `read_keypoint_file(path)` reads, in order. Raises `InputError` where they are not there."""
    if is_directory(path):
        return list(numbered_frames(path, "keypoints", suffixes=(".json",)).values())
    require_file(path, "keypoints")
    return [path]


def stated_size(path: Path) -> Size:
    """The size of the picture that keypoints are in. Raises `InputError` as `read_keypoint_file(path)`."""
    return read_keypoint_file(path).size


def read_keypoint_file(path: Path, size: Size | None = None) -> KeypointFile:
    """Read keypoints of any of the kinds in docs/keypoints.md.

    Points of the body, the face or the hands that are nowhere beyond 2 are shares of the picture's width and height,
    and are made pixels; `(0, 0)` in OpenPose's JSON is a joint that is missing.

    Args:
        path: a .json, .npy or .npz, or a directory of numbered .json files, one a frame.
        size: of the picture, where the file does not say it.

    Raises:
        InputError: the file cannot be read, is of no such kind, has nobody in it, or does not say its picture's size
            and `size` is None.
    """
    (first, *_) = files = keypoint_files(path)
    data = read_json(first) if first.suffix.lower() == ".json" else None
    if isinstance(data, dict) and data.get("format") == FORMAT and not is_directory(path):
        return _ours(path)
    if data is None:
        frames, stated = _arrays(path)
    elif is_directory(path):
        frames, stated = _openpose([(f"keypoints {file}", read_json(file)) for file in files])
    elif isinstance(data, list):
        frames, stated = _openpose([(f"keypoints {path}, frame {i}", frame) for i, frame in enumerate(data)])
    else:
        frames, stated = _openpose([(f"keypoints {path}", data)])
    if not any(len(people) for people in frames):
        raise InputError(f"keypoints {path}: there is nobody in them")
    size = stated or size
    if size is None:
        raise InputError(
            f"keypoints {path} do not say how large the picture is that they are in: give --width and --height, which "
            'are then taken for it, or write it into the file ("canvas_width" and "canvas_height" in JSON, "width" and '
            '"height" in .npz)'
        )
    return KeypointFile(_in_pixels(frames, size, path), size, None, stated is not None)


def _ours(path: Path) -> KeypointFile:
    keypoints = load_keypoints(path)
    rows = np.concatenate([keypoints.points, keypoints.scores[..., None]], axis=-1)
    return KeypointFile(_each(rows), (keypoints.width, keypoints.height), keypoints.fps, True, keypoints.cuts)


def _each(rows: Float32[np.ndarray, "f 134 3"]) -> Frames:
    """One person through all frames; there is nobody where nothing has a score."""
    return [row[None] if row[:, 2].any() else row[:0].reshape(0, POINTS, 3) for row in rows]


def _openpose(files: Sequence[tuple[str, Any]]) -> tuple[Frames, Size | None]:
    """Frames, each with its name for errors."""
    frames, size = [], None
    for i, (where, frame) in enumerate(files):
        if not isinstance(frame, dict) or "people" not in frame:
            raise InputError(
                f'{where}: expected an object with "people", as OpenPose writes it and ControlNet\'s tools do, or the '
                f'keypoints.json of --save-poses ("format": "{FORMAT}")'
            )
        people = [_person(p, f"{where}, person {k}") for k, p in enumerate(require_list(frame["people"], where))]
        seen = [person for person in people if person[:, 2].any()]
        frames.append(np.stack(seen) if seen else np.zeros((0, POINTS, 3), np.float32))
        canvas = {side: frame.get(f"canvas_{side}") for side in ("width", "height")}
        own = None if list(canvas.values()) == [None, None] else read_size(canvas, f"{where}, canvas")
        if i and own != size:
            raise InputError(f"{where}: its canvas is {_shown(own)}, but that of the first frame is {_shown(size)}")
        size = own
    return frames, size


def _shown(size: Size | None) -> str:
    return "not stated" if size is None else f"{size[0]}x{size[1]}"


def _person(data: Any, where: str) -> Person:
    if not isinstance(data, dict):
        raise InputError(f'{where}: expected an object with "pose_keypoints_2d"')
    person = np.zeros((POINTS, 3), np.float32)
    body = _flat(data, "pose_keypoints_2d", where)
    if len(body) in (18, 25):
        person[: len(body) - (len(body) == 25)] = body[_BODY_25] if len(body) == 25 else body
    elif len(body):
        raise InputError(f"{where}: a body of {_named(len(body))}; take OpenPose's BODY_18 (COCO) or BODY_25")
    elif data.get("pose_keypoints_3d"):
        raise InputError(f'{where}: it has 3D points only; write "pose_keypoints_2d" too')
    for key, (rows, counts) in _PARTS.items():
        points = _flat(data, key, where)
        if len(points) not in (0, *counts):
            raise InputError(f"{where}, {key}: {_named(len(points))}; it has {' or '.join(map(str, counts))}")
        if len(points):
            person[rows] = points[: rows.stop - rows.start]
    missing = (person[:, 2] <= 0) | ~person[:, :2].any(axis=1)
    person[missing] = 0
    return person


def _flat(person: dict[str, Any], key: str, where: str) -> Float32[np.ndarray, "n 3"]:
    """x, y, score, x, y, score, …; null where there are none."""
    numbers = require_list(person.get(key) or [], f"{where}, {key}")
    if len(numbers) % 3:
        raise InputError(f"{where}, {key}: {len(numbers)} numbers are not x, y and score of each point")
    return read_numbers(numbers, (len(numbers),), f"{where}, {key}").reshape(-1, 3)


def _arrays(path: Path) -> tuple[Frames, Size | None]:
    what = f"keypoints {path}"
    size = None
    damaged = ValueError, EOFError, zipfile.BadZipFile
    # Opened here: NumPy leaves a damaged .npz open.
    with as_input_error(f"{what} is not a plain .npy or .npz file", *damaged), path.open("rb") as file:
        data = np.load(file, allow_pickle=False)
        if isinstance(data, np.lib.npyio.NpzFile):
            with data:
                data = dict(data.items())
    if isinstance(data, dict):
        if missing := [name for name in ("keypoints", "scores") if name not in data]:
            raise InputError(f"{what}: there is no array {' and no '.join(map(repr, missing))}")
        points, scores = data["keypoints"], data["scores"]
        if points.ndim != 3 or points.shape[2] != 2 or scores.shape != points.shape[:2]:
            raise InputError(
                f"{what}: keypoints {list(points.shape)} and scores {list(scores.shape)} are not [frames, points, 2] "
                f"and [frames, points]{_3D * (points.shape[-1:] == (3,))}"
            )
        if "width" in data or "height" in data:
            size = read_size({side: data[side].tolist() for side in ("width", "height") if side in data}, what)
        data = np.concatenate([points, scores[..., None]], axis=-1)
    kinds = f"expected [frames, {WHOLEBODY_POINTS} or {POINTS}, 3], x, y and score of each point"
    if data.ndim != 3 or data.shape[2] != 3 or not len(data):
        raise InputError(f"{what} has shape {list(data.shape)}: {kinds}{_3D * (data.shape[-1:] == (4,))}")
    if data.shape[1] not in (WHOLEBODY_POINTS, POINTS):
        raise InputError(f"{what} has shape {list(data.shape)}, {_named(data.shape[1])}: {kinds}")
    if data.dtype.kind not in "fiu" or not (np.abs(data.astype(np.float64)) <= _LARGEST).all():  # so that NaN fails
        raise InputError(f"{what} ({data.dtype}) has values that are not finite numbers of at most {_LARGEST:,.0f}")
    data = data.astype(np.float32)
    if data.shape[1] == WHOLEBODY_POINTS:
        points, scores = from_wholebody(data[..., :2], data[..., 2])
        data = np.concatenate([points, scores[..., None]], axis=-1)
    return _each(data), size


def _named(count: int) -> str:
    return f"{count} points" + (f" ({_OTHER_KINDS[count]})" if count in _OTHER_KINDS else "")


def _in_pixels(frames: Frames, size: Size, path: Path) -> Frames:
    everybody = np.concatenate(frames)
    low, high = everybody[..., 2].min(), everybody[..., 2].max()
    if low < _SCORES[0] or high > _SCORES[1]:
        raise InputError(
            f"keypoints {path}: what should be scores are numbers from {low:g} to {high:g}; give x, y and score of "
            f"each point{_3D}"
        )
    scale = np.ones((POINTS, 2), np.float32)
    for part in _WRITTEN_TOGETHER:
        seen = everybody[:, part][everybody[:, part, 2] > 0][:, :2]
        if not len(seen) or np.abs(seen).max() > _MOST_SHARE:
            continue
        if seen.min() < _LEAST_SHARE:
            raise InputError(
                f"keypoints {path}: points from {seen.min():.2f} to {seen.max():.2f} are neither pixels nor shares of "
                "the picture; of OpenPose take --keypoint_scale 0 or 3"
            )
        scale[part] = size
    return [np.concatenate([people[..., :2] * scale, people[..., 2:]], axis=-1) for people in frames]

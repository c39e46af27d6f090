"""Faces: one in an image, one through a video, and both out of a JSON file or mask images.

A box is (left, top, right, bottom) in pixels with its bounds inclusive, so [3, 3] is one pixel wide and covers the span
from 3 to 4. Landmarks are points with pixel centres at whole numbers, as OpenCV and InsightFace count.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from stableanimator_jax.data.images import BLACK, FitMode, aspect_window, load_image
from stableanimator_jax.data.json_files import (
    plain_numbers,
    read_numbers,
    read_object,
    read_size,
    require_keys,
    require_list,
)
from stableanimator_jax.data.numbered import numbered_frames
from stableanimator_jax.data.timing import Timing
from stableanimator_jax.errors import InputError
from stableanimator_jax.files import replacing
from stableanimator_jax.opencv import cv2

_WHITE = 128  # masks are black and white, but for the edges that a resize has softened


@dataclass(frozen=True, eq=False)
class Face:
    """A face in an image: where it is, in the image's pixels, and whose."""

    box: Float32[np.ndarray, "4"]
    """Left, top, right, bottom; whole pixels in files, any numbers as detected. May reach outside of the image."""
    landmarks: Float32[np.ndarray, "5 2"] | None = None
    """(x, y) of the eyes, the nose and the corners of the mouth; of an upright face, image-left ones first."""
    embedding: Float32[np.ndarray, "512"] | None = None
    """ArcFace's raw output, not normalised: what the Face Encoder was trained on."""
    score: float = 1.0
    """The detector's confidence in [0, 1]."""

    def __post_init__(self):
        for name, shape in (("box", (4,)), ("landmarks", (5, 2)), ("embedding", (512,))):
            if name != "box" and getattr(self, name) is None:
                continue
            numbers = np.asarray(getattr(self, name))
            if numbers.shape != shape or not np.isfinite(numbers).all():
                raise InputError(f"a face's {name} must be {list(shape)} finite numbers, got {numbers.shape}")
        if self.box[0] > self.box[2] or self.box[1] > self.box[3]:
            raise InputError(f"a face's box is left, top, right, bottom, got {np.round(self.box, 1).tolist()}")


@dataclass(frozen=True, eq=False)
class FaceTrack:
    """One face through a video."""

    boxes: Float32[np.ndarray, "f 4"]
    """Left, top, right, bottom in whole pixels, inclusive. May reach outside of the frame until `fitted`."""
    landmarks: Float32[np.ndarray, "f 5 2"] | None
    """As in `Face`; None where not known."""
    valid: Bool[np.ndarray, "f"]
    """False where a frame shows no face; its box and landmarks then are zeros."""

    @classmethod
    def of(cls, faces: Sequence[Face | None], size: tuple[int, int] | None = None) -> "FaceTrack":
        """The faces of a video's frames, None for a frame without one; all of them have landmarks, or none has.

        Args:
            faces: of each frame. Boxes are rounded to whole pixels.
            size: width and height of the frames, to which boxes are cut as by `fitted`; None leaves them.

        Raises:
            InputError: some faces have landmarks, and others have none.
        """
        boxes = np.zeros((len(faces), 4), np.float32)
        landmarks = np.zeros((len(faces), 5, 2), np.float32)
        marked, bare = [], []
        for i, face in enumerate(faces):
            if face is None:
                continue
            boxes[i] = np.round(face.box)
            if face.landmarks is None:
                bare.append(i)
            else:
                marked.append(i)
                landmarks[i] = face.landmarks
        if marked and bare:
            raise InputError(
                f"frame {marked[0]} has landmarks, but frame {bare[0]} has none; give them for all faces or for none"
            )
        track = cls(boxes, landmarks if marked else None, np.array([face is not None for face in faces], bool))
        return track if size is None else track.fitted(size, *size, "crop")

    def faces(self) -> list[Face | None]:
        """Of each frame, None where it shows none."""
        landmarks = [None] * len(self.valid) if self.landmarks is None else self.landmarks
        rows = zip(self.boxes, landmarks, self.valid, strict=True)
        return [Face(box, points) if valid else None for box, points, valid in rows]

    def __getitem__(self, frames: slice) -> "FaceTrack":
        landmarks = None if self.landmarks is None else self.landmarks[frames]
        return FaceTrack(self.boxes[frames], landmarks, self.valid[frames])

    def at(self, timing: Timing) -> "FaceTrack":
        """The faces at other moments: between two frames that show one, from box to box; else the nearer frame's."""
        first, second = timing.frame, np.minimum(timing.frame + 1, timing.count - 1)
        alike = self.valid[first] == self.valid[second]
        share = np.where(alike, timing.share, np.round(timing.share))

        def between(rows: np.ndarray) -> np.ndarray:
            part = share.reshape(-1, *(1,) * (rows.ndim - 1))
            return (rows[first] + part * (rows[second] - rows[first])).astype(np.float32)

        landmarks = None if self.landmarks is None else between(self.landmarks)
        return FaceTrack(np.round(between(self.boxes)), landmarks, self.valid[np.where(share < 0.5, first, second)])

    def fitted(self, size: tuple[int, int], width: int, height: int, mode: FitMode) -> "FaceTrack":
        """Where the faces are after `data.images.fit` has brought the frames to another size.

        A box's span is mapped and its bounds rounded to whole pixels, one pixel at least; what is cropped away is
        cut off. A face of which nothing is left becomes invalid. Landmarks may come to lie outside of the frame.

        Args:
            size: width and height of the frames that the track belongs to.
            width, height: of the frames as fitted.
            mode: as for `fit`.
        """
        window = aspect_window(*size, width, height, mode)
        corner, extent = np.array(window[:2]), np.array(window[2:])
        scale = np.array([width, height]) / extent
        spans = self.boxes.reshape(-1, 2, 2).astype(np.float64) - corner + [[0], [1]]  # [f, low and high, x and y]
        valid = self.valid & (spans[:, 0] < extent).all(axis=-1) & (spans[:, 1] > 0).all(axis=-1)
        spans = np.clip(spans, 0, extent) * scale
        low, high = np.floor(spans + 0.5).transpose(1, 0, 2)
        middle = np.minimum(np.floor(spans.mean(axis=1)), [width - 1, height - 1])
        thin = high <= low
        boxes = np.concatenate([np.where(thin, middle, low), np.where(thin, middle, high - 1)], axis=-1)
        landmarks = None
        if self.landmarks is not None:
            moved = (self.landmarks.astype(np.float64) + 0.5 - corner) * scale - 0.5
            landmarks = np.where(valid[:, None, None], moved, 0).astype(np.float32)
        return FaceTrack(np.where(valid[:, None], boxes, 0).astype(np.float32), landmarks, valid)


@dataclass(frozen=True)
class FaceBoxes:
    """What a file of face boxes holds."""

    track: FaceTrack | None
    """In pixels of frames of `size`; None where the file has the reference only."""
    size: tuple[int, int] | None
    """Width and height of the frames; None where there is no track."""
    reference: Face | None
    """The face in the reference image."""


def load_face_boxes(
    path: Path, frames: int | None = None, *, reference_size: tuple[int, int] | None = None
) -> FaceBoxes:
    """Read face boxes from JSON:

        {"width": 512, "height": 512,
         "frames": [{"box": [left, top, right, bottom], "landmarks": [[x, y], … 5]}, null, …],
         "reference": {"box": […], "landmarks": […]}}

    `frames` has one entry a frame of the poses, in pixels of the poses as they are stored, null where there is no
    face; `width` and `height` are theirs. `reference` is in pixels of the reference image. One of the two may be
    missing, and so may the landmarks, of all frames together. Boxes are rounded to whole pixels and cut to the image.

    Args:
        path: the file.
        frames: how many there must be; any number where None.
        reference_size: width and height of the reference image, which its box must lie in.

    Raises:
        InputError: no such file, not this structure, not numbers, a box that is inverted or outside of its image,
            landmarks in some frames only, or another number of frames. Frames are counted from 0.
    """
    what = f"face boxes {path}"
    data = read_object(path, "face boxes")
    require_keys(data, what, (), ("frames", "width", "height", "reference"))
    if "frames" not in data and "reference" not in data:
        raise InputError(f'{what}: there is neither "frames" nor "reference" in it')
    reference = None
    if "reference" in data:
        reference = _read_face(data["reference"], f"{what}, reference", reference_size)
    if "frames" not in data:
        return FaceBoxes(None, None, reference)
    size = read_size(data, what)
    entries = require_list(data["frames"], f"{what}, frames")
    if frames is not None and len(entries) != frames:
        raise InputError(f"{what} has {len(entries)} frames, but the poses have {frames}")
    faces = [None if e is None else _read_face(e, f"{what}, frame {i}", size) for i, e in enumerate(entries)]
    try:
        return FaceBoxes(FaceTrack.of(faces), size, reference)
    except InputError as e:
        raise InputError(f"{what}: {e}") from e


def save_face_boxes(
    path: Path,
    *,
    track: FaceTrack | None = None,
    size: tuple[int, int] | None = None,
    reference: Face | None = None,
) -> None:
    """Write what `load_face_boxes` reads, whole or not at all.

    Args:
        path: the file; one that is there is replaced.
        track: boxes inside of frames of `size`.
        size: width and height of the frames.
        reference: the face in the reference image.

    Raises:
        InputError: the file cannot be written.
        ValueError: neither track nor reference, or a track without a size.
    """
    if track is None and reference is None:
        raise ValueError("there is neither a track nor a reference to write")
    parts = []
    if track is not None:
        if size is None:
            raise ValueError("a track needs the size of its frames")
        lines = [json.dumps(None if face is None else _plain_face(face)) for face in track.faces()]
        parts += [f'"width": {size[0]}', f'"height": {size[1]}', '"frames": [\n  ' + ",\n  ".join(lines) + "\n ]"]
    if reference is not None:
        parts.append(f'"reference": {json.dumps(_plain_face(reference))}')
    with replacing(path) as temporary:
        temporary.write_text("{\n " + ",\n ".join(parts) + "\n}\n", encoding="utf-8")


def load_face_masks(directory: Path, frames: int) -> tuple[FaceTrack, tuple[int, int]]:
    """Read face boxes from mask images, black with the faces' boxes filled white: `frame_N.png`, numbered as poses.

    What a mask says is `face_in_mask`'s.

    Args:
        directory: of the masks.
        frames: how many there must be.

    Returns:
        the boxes, without landmarks, and the masks' width and height.

    Raises:
        InputError: no masks, a gap in their numbers, another number of frames, masks of different sizes, an image
            that cannot be read, or one that is neither black nor white.
    """
    files = list(numbered_frames(directory, "face masks").values())
    if len(files) != frames:
        raise InputError(f"face masks {directory}: there are {len(files)}, but the poses have {frames} frames")
    faces: list[Face | None] = []
    size = None
    for path in files:
        image = load_image(path, what="face mask", background=BLACK)
        height, width = image.shape[:2]
        size = size or (width, height)
        if (width, height) != size:
            raise InputError(
                f"face mask {path} is {width}x{height} pixels, but {files[0].name} is {size[0]}x{size[1]}: mixed sizes"
            )
        if image.any() and image.min(axis=-1).max() < _WHITE:
            raise InputError(
                f"face mask {path} must be black with white (255) boxes, but its brightest is {image.max()}"
            )
        faces.append(face_in_mask(image))
    assert size is not None  # there is a first file
    return FaceTrack.of(faces), size


def face_in_mask(mask: UInt8[np.ndarray, "h w 3"]) -> Face | None:
    """The box of a mask's largest white area.

    None where the mask is black; or white all over, which is how the published training data marks that no face was
    found.
    """
    inside = mask.min(axis=-1) >= _WHITE
    if inside.all() or not inside.any():
        return None
    _, _, stats, _ = cv2.connectedComponentsWithStats(inside.astype(np.uint8))
    left, top, width, height, _ = max(stats[1:].tolist(), key=lambda row: row[cv2.CC_STAT_AREA])  # 0 is the black
    return Face(np.array([left, top, left + width - 1, top + height - 1], np.float32))


def _read_face(data: Any, where: str, size: tuple[int, int] | None) -> Face:
    require_keys(data, where, ("box",), ("landmarks",))
    box = read_numbers(data["box"], (4,), f"{where}, box")
    shown = [f"{v:g}" for v in box]
    if box[2] < box[0] or box[3] < box[1]:
        raise InputError(f"{where}: the box [{', '.join(shown)}] is inverted; it must be left, top, right, bottom")
    box = np.floor(box + 0.5)
    far = np.array(size or (np.inf, np.inf), np.float32)
    if (box[2:] < 0).any() or (box[:2] >= far).any():
        of = f" of {size[0]}x{size[1]} pixels" if size else ""
        raise InputError(f"{where}: the box [{', '.join(shown)}] lies outside of the image{of}")
    box = np.concatenate([np.maximum(box[:2], 0), np.minimum(box[2:], far - 1)])
    if "landmarks" not in data:
        return Face(box)
    landmarks = read_numbers(data["landmarks"], (5, 2), f"{where}, landmarks")
    if (landmarks == landmarks[0]).all():
        raise InputError(f"{where}: all five landmarks are the same point")
    return Face(box, landmarks)


def _plain_face(face: Face) -> dict[str, Any]:
    box = {"box": plain_numbers(face.box)}
    return box if face.landmarks is None else box | {"landmarks": plain_numbers(face.landmarks)}

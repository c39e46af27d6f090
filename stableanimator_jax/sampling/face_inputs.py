"""What the face optimisation needs of a run's inputs: the reference's face, and where the faces are."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from stableanimator_jax.data.face_track import FaceBoxes, FaceTrack, ReferenceFace, load_face_boxes, load_face_masks
from stableanimator_jax.data.keypoints import Keypoints, keypoints_beside, load_keypoints
from stableanimator_jax.data.poses import pose_size
from stableanimator_jax.errors import InputError
from stableanimator_jax.perception.face_points import track_from_keypoints
from stableanimator_jax.perception.faces import Detection, FaceAnalyser
from stableanimator_jax.sampling.run_config import SampleConfig


@dataclass(frozen=True)
class FaceInputs:
    """Found and checked; the reference is embedded later, by the models."""

    image: UInt8[np.ndarray, "H W 3"]
    """The reference at its own size."""
    reference: ReferenceFace | Float32[np.ndarray, "512"]
    """Where the face is in `image`, or, where nobody knows, its raw embedding."""
    faces: FaceTrack | Callable[[np.ndarray], Detection | None]
    """In pixels of the output; or what finds them."""
    source: str
    """Where `faces` come from, in words."""


@dataclass(frozen=True)
class KnownFace:
    """What can be known before the poses are, which may take long to find."""

    image: UInt8[np.ndarray, "H W 3"]
    reference: ReferenceFace | Float32[np.ndarray, "512"]
    boxes: FaceBoxes | None
    boxes_path: Path | None
    analyser: FaceAnalyser | None


def read_reference_face(
    config: SampleConfig,
    image: np.ndarray,
    analyser: FaceAnalyser | None,
    embedding: np.ndarray | None,
    example_boxes: Path | None,
) -> KnownFace:
    """Find the reference's face.

    Args:
        config: the run's.
        image: the reference at its own size.
        analyser: InsightFace, where its models were given.
        embedding: the identity, where it was given as a file.
        example_boxes: the boxes of the example in this package, where that is what is animated.

    Raises:
        InputError: nothing tells where it is, or boxes that cannot be read.
    """
    path = config.face_boxes or example_boxes
    height, width = image.shape[:2]
    boxes = None if path is None else load_face_boxes(path, reference_size=(width, height))
    reference = _reference(image, boxes, analyser, embedding)
    if config.hjb.crop == "aligned" and isinstance(reference, ReferenceFace) and reference.landmarks is None:
        raise InputError("--hjb.crop aligned needs the landmarks of the reference's face, and only its box is known")
    return KnownFace(image, reference, boxes, path, analyser)


def read_faces(
    config: SampleConfig, known: KnownFace, poses: Path | Keypoints, frames: int, size: tuple[int, int]
) -> FaceInputs | None:
    """Find out where the faces are.

    Args:
        config: the run's.
        known: what `read_reference_face` found.
        poses: where the poses are; or, where a driving video was read, its keypoints in pixels of the output.
        frames: how many there are.
        size: the output's width and height.

    Returns:
        None, with a warning said, where masks, boxes or keypoints show no face in any frame.

    Raises:
        InputError: boxes or masks that do not fit the poses, or nothing that tells where the faces are.
    """
    track, source = _track(config, known, poses, frames, size)
    if track is not None and not track.valid.any():
        # Keypoints may be of somebody who turns away; masks and boxes were given on purpose.
        given = config.face_masks is not None or (known.boxes is not None and known.boxes.track is not None)
        if given or known.analyser is None:
            print(
                f"warning: {source} show no face in any frame of the output: the face optimisation is off",
                file=sys.stderr,
            )
            return None
        track = None
    if track is not None:
        source = f"{source}, {int(track.valid.sum())} of {frames} frames with a face"
        return FaceInputs(known.image, known.reference, track, source)
    if known.analyser is None:
        raise InputError(
            "the face optimisation must know where the faces are: give --face-boxes or --face-masks, or "
            "--insightface-root to find them"
        )
    source = "found by InsightFace in the predicted frames"
    return FaceInputs(known.image, known.reference, known.analyser.detect, source)


def _track(
    config: SampleConfig, known: KnownFace, poses: Path | Keypoints, frames: int, size: tuple[int, int]
) -> tuple[FaceTrack | None, str]:
    """In pixels of the output."""
    boxes = known.boxes
    stored = pose_size(poses) if isinstance(poses, Path) else size

    def fitted(track: FaceTrack, of: tuple[int, int], what: str) -> FaceTrack:
        if of != stored:
            raise InputError(
                f"{what} are of frames of {of[0]}x{of[1]} pixels, but the poses"
                f"{f' {poses}' if isinstance(poses, Path) else ''} are {stored[0]}x{stored[1]}"
            )
        return track.fitted(of, *size, config.fit)

    if config.face_masks is not None:
        track, of = load_face_masks(config.face_masks, frames)
        return fitted(track, of, f"the face masks in {config.face_masks}"), f"masks in {config.face_masks}"
    if boxes is not None and boxes.track is not None and boxes.size is not None:
        if len(boxes.track.valid) != frames:
            raise InputError(
                f"face boxes {known.boxes_path} has {len(boxes.track.valid)} frames, but the poses have {frames}"
            )
        shown = config.face_boxes or "the example in this package"
        return fitted(boxes.track, boxes.size, f"the face boxes in {known.boxes_path}"), f"boxes in {shown}"
    if isinstance(poses, Keypoints):
        found = track_from_keypoints(poses.points, poses.scores)
        return fitted(found, size, "the keypoints"), "the face's keypoints in the driving video"
    if (path := keypoints_beside(poses)) is not None:
        keypoints = load_keypoints(path)
        if len(keypoints.points) != frames:
            raise InputError(f"{path} has {len(keypoints.points)} frames, but there are {frames} poses beside it")
        track = track_from_keypoints(keypoints.points, keypoints.scores)
        return fitted(track, (keypoints.width, keypoints.height), f"the keypoints in {path}"), f"keypoints in {path}"
    return None, ""


def _reference(
    image: np.ndarray, boxes: FaceBoxes | None, analyser: FaceAnalyser | None, embedding: np.ndarray | None
) -> ReferenceFace | np.ndarray:
    if boxes is not None and boxes.reference is not None:
        return boxes.reference
    if analyser is not None:
        face = analyser.detect(image)
        if face is None:
            raise InputError(
                "InsightFace finds no face in the reference image, and the face optimisation needs one: take another "
                "photo, or name its place in --face-boxes"
            )
        return ReferenceFace(np.round(face.bbox), face.kps)
    if embedding is not None:
        return embedding
    raise InputError(
        "the face optimisation needs the reference's face: give --insightface-root to find it, its place in "
        '--face-boxes ("reference"), or --face-embedding'
    )

"""What the face optimisation needs of a run's inputs: the reference's face, and where the faces are."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from stableanimator_jax.data.face_track import Face, FaceBoxes, FaceTrack, load_face_boxes, load_face_masks
from stableanimator_jax.data.images import FitMode, fit
from stableanimator_jax.data.keypoints import Keypoints, keypoints_beside, load_keypoints
from stableanimator_jax.data.poses import pose_size
from stableanimator_jax.errors import InputError
from stableanimator_jax.perception.face_points import track_from_keypoints
from stableanimator_jax.perception.faces import FaceAnalyser
from stableanimator_jax.perception.person_choice import PersonChoice, choose, face_of, faces_within, parse_choice
from stableanimator_jax.scripts.sample.movement import Movement
from stableanimator_jax.scripts.sample.settings import SampleConfig
from stableanimator_jax.shipped import EMBEDDED, EXAMPLE

if TYPE_CHECKING:
    from stableanimator_jax.sampling.face_control import FindFace  # imports JAX

REFERENCE_FLAG = "--reference-person"
_BLACK = 32  # of 255: more is a skeleton, less what compression makes of black


class Portrait(NamedTuple):
    """The reference as large as the output, so that ArcFace sees its face as it sees the frames' faces."""

    image: UInt8[np.ndarray, "H W 3"]
    face: Face
    """In pixels of `image`."""
    source: str
    """What tells where the face is, in words."""


@dataclass(frozen=True)
class FaceInputs:
    """Found and checked; the reference is embedded later, by the models."""

    reference: Portrait | Float32[np.ndarray, "512"]
    """Or, where nobody knows where its face is, its raw embedding."""
    faces: "FaceTrack | FindFace"
    """In pixels of the output; or what finds them."""
    source: str
    """Where `faces` come from, in words."""


def reference_choice(config: SampleConfig, boxes: FaceBoxes | None) -> PersonChoice | None:
    """Who in the reference is meant: who is named, else whose face's box is given; None where nothing tells."""
    if config.reference_person is not None:
        return parse_choice(config.reference_person, REFERENCE_FLAG)
    if boxes is not None and boxes.reference is not None:
        left, top, right, bottom = boxes.reference.box.tolist()
        return (left + right) / 2, (top + bottom) / 2
    return None


def find_reference_face(
    config: SampleConfig,
    image: UInt8[np.ndarray, "h w 3"],
    size: tuple[int, int],
    analyser: FaceAnalyser | None,
    boxes: FaceBoxes | None,
    standing: Keypoints | None,
) -> tuple[Portrait | None, Face | None]:
    """Find the reference's face: by boxes, else by InsightFace, on the person to whom poses are aligned.

    That is known before the poses are, which may take long to find.

    Args:
        config: the run's.
        image: the reference at its own size.
        size: the output's width and height.
        analyser: InsightFace, where its models were given.
        boxes: as `read_boxes` gives them.
        standing: the person to whom poses are aligned, in pixels of the reference; None where they are not.

    Returns:
        the portrait, None where nothing tells where the face is or none is needed; and the face that InsightFace finds,
        in pixels of the reference.

    Raises:
        InputError: a face that is cut off with the reference's sides, or nobody is whom the run's choice means.
    """
    found = None if analyser is None else _find_face(analyser, image, standing, reference_choice(config, boxes))
    face, source = None, ""
    if boxes is not None and boxes.reference is not None:
        face, source = boxes.reference, _boxes_name(config)
        if standing is not None and face_of([face], standing.points[0], standing.scores[0]) is None:
            _warn(f"the face in {source} is not that of the reference's person to whom the poses are aligned")
    elif found is not None:
        face, source = found, "InsightFace"
    if face is None or not (config.optimises_faces or config.embeds_reference):
        return None, found
    return portrait(image, face, size, config.fit, source), found


def _find_face(
    analyser: FaceAnalyser, image: np.ndarray, standing: Keypoints | None, choice: PersonChoice | None
) -> Face | None:
    faces = analyser.detections(image)
    if not faces:
        return None
    if standing is None:
        height, width = image.shape[:2]
        bounds = np.stack([face.box for face in faces])
        return faces[choose(choice, bounds, (width, height), "the reference image", REFERENCE_FLAG)]
    face = face_of(faces, standing.points[0], standing.scores[0])
    if face is None:
        _warn(
            f"InsightFace finds {len(faces)} face{'s' * (len(faces) > 1)} in the reference image, but none on the "
            f"person to whom the poses are aligned; {REFERENCE_FLAG} chooses another"
        )
    return face


def portrait(
    image: UInt8[np.ndarray, "h w 3"], face: Face, size: tuple[int, int], mode: FitMode, source: str
) -> Portrait:
    """The reference at the output's size, with its face.

    Args:
        image: the reference at its own size.
        face: in its pixels.
        size: the output's width and height.
        mode: how it is brought to their aspect.
        source: what tells where the face is.

    Raises:
        InputError: its face is cut off.
    """
    height, width = image.shape[:2]
    (fitted,) = FaceTrack.of([face]).fitted((width, height), *size, mode).faces()
    if fitted is None:
        raise InputError(
            f"the reference's face lies outside of what --fit {mode} leaves of the image at {size[0]}x{size[1]}: "
            "take --fit pad, another size, or another photo"
        )
    return Portrait(fit(image, *size, mode, filter="lanczos"), fitted, source)


def face_to_reach(
    config: SampleConfig,
    portrait: Portrait | None,
    analyser: FaceAnalyser | None,
    embedding: Float32[np.ndarray, "512"] | None,
) -> Portrait | Float32[np.ndarray, "512"]:
    """The face that the face optimisation aims at.

    Args:
        config: the run's.
        portrait: what `find_reference_face` found.
        analyser: InsightFace, where its models were given.
        embedding: the identity, where it was given as a file.

    Raises:
        InputError: nothing tells what it looks like.
    """
    if portrait is not None:
        if config.hjb.crop == "aligned" and portrait.face.landmarks is None:
            raise InputError(
                "--hjb.crop aligned needs the landmarks of the reference's face, and only its box is known"
            )
        return portrait
    if analyser is not None:
        raise InputError(
            "InsightFace finds no face of the person in the reference image, and the face optimisation needs one: "
            "take another photo, or name its place in --face-boxes"
        )
    if embedding is not None:
        return embedding
    raise InputError(
        "the face optimisation needs the reference's face: give --insightface-root to find it, its place in "
        '--face-boxes ("reference"), or --face-embedding; or turn it off by --hjb.iterations 0'
    )


def read_faces(
    config: SampleConfig,
    boxes: FaceBoxes | None,
    analyser: FaceAnalyser | None,
    reference: Portrait | Float32[np.ndarray, "512"],
    movement: Movement,
    size: tuple[int, int],
) -> FaceInputs | None:
    """Find out where the faces are.

    Args:
        config: the run's.
        boxes: as `read_boxes` gives them.
        analyser: InsightFace, where its models were given.
        reference: what `face_to_reach` gave.
        movement: the poses.
        size: the output's width and height.

    Returns:
        None, with a warning said, where masks, boxes or keypoints show no face in any frame.

    Raises:
        InputError: boxes or masks that do not fit the poses, or nothing that tells where the faces are.
    """
    track, source = _track(config, boxes, movement, size)
    if track is not None and not track.valid.any():
        # Keypoints may be of somebody who turns away; masks and boxes were given on purpose.
        given = config.face_masks is not None or (boxes is not None and boxes.track is not None)
        if given or analyser is None:
            _warn(f"{source} show no face in any frame of the output: the face optimisation is off")
            return None
        track = None
    if track is not None:
        source = f"{source}, {int(track.valid.sum())} of {len(track.valid)} frames with a face"
        return FaceInputs(reference, track, source)
    if analyser is None:
        raise InputError(
            "the face optimisation must know where the faces are: give --face-boxes or --face-masks, or "
            "--insightface-root to find them"
        )
    source = "found by InsightFace in the predicted frames"
    return FaceInputs(reference, _face_finder(analyser, movement.poses), source)


def _face_finder(analyser: FaceAnalyser, skeletons: UInt8[np.ndarray, "f H W 3"] | None) -> "FindFace":
    """The largest face that lies in the frame's skeleton: bystanders in the reference's background have faces too."""

    def find(frame: np.ndarray, number: int) -> Face | None:
        if skeletons is None:
            return next(iter(analyser.detections(frame)), None)
        y, x = np.nonzero((skeletons[number] > _BLACK).any(axis=-1))
        if not len(y):
            return None
        faces = analyser.detections(frame)
        return next(iter(faces_within(faces, np.array([x.min(), y.min()]), np.array([x.max(), y.max()]))), None)

    return find


def _track(
    config: SampleConfig, boxes: FaceBoxes | None, movement: Movement, size: tuple[int, int]
) -> tuple[FaceTrack | None, str]:
    """In pixels of the output, and at its rate."""
    poses, frames = movement.place, movement.timing.count
    stored = pose_size(poses) if isinstance(poses, Path) else size

    def fitted(track: FaceTrack, of: tuple[int, int], what: str) -> FaceTrack:
        if of != stored:
            raise InputError(
                f"{what} are of frames of {of[0]}x{of[1]} pixels, but the poses"
                f"{f' {poses}' if isinstance(poses, Path) else ''} are {stored[0]}x{stored[1]}"
            )
        return track.at(movement.timing).fitted(of, *size, config.fit)

    if config.face_masks is not None:
        track, of = load_face_masks(config.face_masks, frames)
        return fitted(track, of, f"the face masks in {config.face_masks}"), f"masks in {config.face_masks}"
    if boxes is not None and boxes.track is not None and boxes.size is not None:
        if len(boxes.track.valid) != frames:
            raise InputError(
                f"face boxes {_boxes_name(config)} has {len(boxes.track.valid)} frames, but the poses have {frames}"
            )
        shown = f"boxes in {_boxes_name(config)}"
        return fitted(boxes.track, boxes.size, f"the face {shown}"), shown
    if isinstance(poses, Keypoints):
        found = track_from_keypoints(poses.points, poses.scores)
        return found.fitted(size, *size, config.fit), f"the face's keypoints in {config.poses or 'the driving video'}"
    if poses is not None and (path := keypoints_beside(poses)) is not None:
        try:
            keypoints = load_keypoints(path)
            if len(keypoints.points) != frames:
                raise InputError(f"{path} has {len(keypoints.points)} frames, but there are {frames} poses beside it")
        except InputError as e:
            raise InputError(
                f"{e}; it is read because it lies beside the poses: move or rename it if it is another program's, or "
                "give --face-boxes or --face-masks"
            ) from None
        track = track_from_keypoints(keypoints.points, keypoints.scores)
        return fitted(track, (keypoints.width, keypoints.height), f"the keypoints in {path}"), f"keypoints in {path}"
    return None, ""


def read_boxes(config: SampleConfig, image: np.ndarray) -> FaceBoxes | None:
    """Those given, or what the example's say of the example's own reference and poses; None where none are needed."""
    if not (config.optimises_faces or config.embeds_reference):
        return None
    if config.face_boxes is not None:
        height, width = image.shape[:2]
        return load_face_boxes(config.face_boxes, reference_size=(width, height))
    own_reference = config.reference is None
    own_poses = config.checkpoint == EMBEDDED and config.poses is None and config.driving is None
    if not (own_reference or own_poses):
        return None
    boxes = load_face_boxes(EXAMPLE / "face_boxes.json")
    return FaceBoxes(
        boxes.track if own_poses else None,
        boxes.size if own_poses else None,
        boxes.reference if own_reference else None,
    )


def _boxes_name(config: SampleConfig) -> str:
    return "the example in this package" if config.face_boxes is None else str(config.face_boxes)


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)

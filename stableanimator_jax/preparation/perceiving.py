"""What is in the frames of a video that is prepared for training: people and faces."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from stableanimator_jax.data.face_track import Face
from stableanimator_jax.errors import InputError
from stableanimator_jax.files import require_file
from stableanimator_jax.perception.dwpose import DWPose, model_files
from stableanimator_jax.perception.faces import FaceAnalyser, model_folder
from stableanimator_jax.perception.people import People, PoseEstimator
from stableanimator_jax.preparation.config import ModelFiles
from stableanimator_jax.provenance import file_sha256


@dataclass(frozen=True)
class Seen:
    """What was found in one frame, in its pixels."""

    people: People | None = None
    """None where nobody was looked for."""
    faces: list[Face] = field(default_factory=list)
    """The largest first; each with its embedding where people are known, else the largest only."""


Perceive = Callable[..., list[Seen]]
"""(frames, *, people: bool, faces: bool) to what is in each frame; see `Perception.__call__`."""


class Perception:
    """The models that find people and faces, loaded."""

    def __init__(self, files: ModelFiles):
        """Load those that `files` names. Raises `InputError` where one is missing or is another model."""
        self._poses: PoseEstimator | None = None
        if files.dwpose is not None:
            self._poses = DWPose.from_folder(files.dwpose)
        self._faces = None
        if files.insightface_root is not None:
            self._faces = FaceAnalyser(files.insightface_root, files.insightface_name)

    def __call__(self, frames: Sequence[UInt8[np.ndarray, "h w 3"]], *, people: bool, faces: bool) -> list[Seen]:
        """Look for people, faces or both in RGB frames of one size.

        Raises:
            InputError: a model is needed that was not given.
        """
        if people and self._poses is None:
            raise InputError("it has no poses: give --dwpose DIR")
        if faces and self._faces is None:
            raise InputError("it has no face masks and embeddings: give --insightface-root DIR")
        everybody = self._poses.people(frames) if people and self._poses is not None else [None] * len(frames)
        embedded = None if people else 1  # whose face it is that counts is known later
        found = [self._look_for_faces(frame, embedded) if faces else [] for frame in frames]
        return [Seen(p, f) for p, f in zip(everybody, found, strict=True)]

    def _look_for_faces(self, frame: np.ndarray, embedded: int | None) -> list[Face]:
        assert self._faces is not None
        found = self._faces.detections(frame)
        first = [self._faces.identify(frame, f) for f in found[:embedded]]
        return [*first, *found[len(first) :]]


def model_hashes(files: ModelFiles) -> dict[str, str]:
    """SHA-256 of every model file by its kind and name: other models find other people."""
    named: dict[str, Path] = {}
    if files.dwpose is not None:
        named |= {f"dwpose {path.name}": path for path in model_files(files.dwpose)}
    if files.insightface_root is not None:
        folder = model_folder(files.insightface_root, files.insightface_name)
        named |= {f"insightface {path.name}": path for path in sorted(folder.glob("*.onnx"))}
    return {name: _model_hash(path, name) for name, path in named.items()}


def _model_hash(path: Path, name: str) -> str:
    require_file(path, name)
    return file_sha256(path)

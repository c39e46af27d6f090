"""Faces by InsightFace: detection, and the ArcFace embedding that is a person's identity here."""

import contextlib
import io
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from stableanimator_jax.config import EMBEDDING_DIM
from stableanimator_jax.data.face_track import Face
from stableanimator_jax.errors import InputError, first_line
from stableanimator_jax.files import require_file
from stableanimator_jax.opencv import cv2, require_opencv

DETECTION_SIZES = (640, 320, 960)
"""SCRFD's usual size first; then smaller, for faces that fill the picture, and larger, for small ones."""


class FaceAnalyser:
    """InsightFace's detector (SCRFD) and recogniser (ArcFace) from a folder of ONNX models.

    The published models are for non-commercial research; nothing is downloaded here.
    """

    def __init__(
        self,
        root: Path | str,
        name: str = "antelopev2",
        *,
        det_sizes: Sequence[int] = DETECTION_SIZES,
        providers: Sequence[str] | None = None,
    ):
        """Load the models.

        Args:
            root: InsightFace's root, which holds `models/NAME/*.onnx`, or that folder, or any level between; one
                `NAME` too many, as the automatic download leaves it, is found too.
            name: the model pack.
            det_sizes: sides, in pixels and multiples of 32, of the squares that images are fitted into for detection.
                Each is tried only where those before it found nothing. A model that takes one size only has its own.
            providers: ONNX Runtime's execution providers; by default the best of those installed.

        Raises:
            InputError: no models where they are looked for, or they do not load.
        """
        require_opencv()
        folder = model_folder(Path(root), name)
        for file in sorted(folder.glob("*.onnx")):
            require_file(file, "InsightFace model")
        with _quiet():
            from insightface.app import FaceAnalysis  # slow to import, and only some runs need it

            try:
                app = FaceAnalysis(str(folder), allowed_modules=["detection", "recognition"], providers=providers)
                app.prepare(ctx_id=0, det_size=(det_sizes[0], det_sizes[0]))
            except Exception as e:  # ONNX Runtime has exceptions of its own, and InsightFace asserts
                reason = first_line(e) if str(e) else "there is no face detector among them"
                raise InputError(f"cannot load the InsightFace models in {folder}: {reason}") from e
        if "recognition" not in app.models:
            raise InputError(
                f"the InsightFace models in {folder} lack the recogniser (ArcFace, such as glintr100.onnx)"
            )
        self._detector = app.models["detection"]
        own = self._detector.static_input_size
        self._sizes = [own] if own is not None else [(side, side) for side in det_sizes]
        self._recogniser = app.models["recognition"]

    def detections(self, image: UInt8[np.ndarray, "h w 3"]) -> list[Face]:
        """Where the faces of an RGB image are, the largest first; of the first detection size that finds any."""
        bgr = _to_bgr(image)
        boxes, points = np.zeros((0, 5), np.float32), np.zeros((0, 5, 2), np.float32)
        with _quiet():
            for size in self._sizes:
                boxes, points = self._detector.detect(bgr, input_size=size)
                if len(boxes):
                    break
        order = np.argsort(-(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), kind="stable")
        return [
            Face(np.asarray(boxes[i, :4], np.float32), np.asarray(points[i], np.float32), score=float(boxes[i, 4]))
            for i in order
        ]

    def detect(self, image: UInt8[np.ndarray, "h w 3"]) -> Face | None:
        """Where the largest face of an RGB image is, or None where no face is found."""
        return next(iter(self.detections(image)), None)

    def embedding(self, image: UInt8[np.ndarray, "h w 3"]) -> Face | None:
        """The largest face of an RGB image with its ArcFace embedding, or None where no face is found."""
        found = self.detect(image)
        return None if found is None else self.identify(image, found)

    def identify(self, image: UInt8[np.ndarray, "h w 3"], found: Face) -> Face:
        """A face that was detected in this RGB image, with its ArcFace embedding."""
        from insightface.app.common import Face as InsightFace

        with _quiet():
            embedding = self._recogniser.get(_to_bgr(image), InsightFace(bbox=found.box, kps=found.landmarks))
        return replace(found, embedding=np.asarray(embedding, np.float32))


def _to_bgr(image: np.ndarray) -> np.ndarray:
    """InsightFace takes OpenCV's order, and turns it round itself."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2BGR)


def load_face_embedding(path: Path) -> Float32[np.ndarray, "512"]:
    """Read an identity from a `.npy` file of 512 numbers, `[512]` or `[1, 512]`: a raw ArcFace embedding.

    One of a norm of about 1 is taken as it is, but said on stderr.

    Raises:
        InputError: missing, no plain `.npy`, another shape, not real numbers, or not finite.
    """
    require_file(path, "face embedding")
    try:
        with path.open("rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, OSError, EOFError) as e:
        raise InputError(f"face embedding {path} is not a plain .npy file: {str(e).partition(chr(10))[0]}") from e
    if array.shape not in ((EMBEDDING_DIM,), (1, EMBEDDING_DIM)):
        raise InputError(f"face embedding {path} has shape {list(array.shape)}, expected [{EMBEDDING_DIM}]")
    if not np.issubdtype(array.dtype, np.floating) and not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"face embedding {path} holds {array.dtype}, expected real numbers")
    with np.errstate(over="ignore"):
        embedding = array.reshape(EMBEDDING_DIM).astype(np.float32)
    if not np.isfinite(embedding).all():
        raise InputError(f"face embedding {path} has values that are not finite in float32")
    if 0.5 <= (norm := float(np.linalg.norm(embedding))) <= 1.5:
        print(
            f"warning: face embedding {path} has norm {norm:.2f}, as InsightFace's normed_embedding: the Face Encoder "
            "knows raw ones (`embedding`, of norm about 20), so the face may be lost",
            file=sys.stderr,
        )
    return embedding


def model_folder(root: Path, name: str) -> Path:
    """The folder that a model pack's `.onnx` files lie in. Raises `InputError` where there is none."""
    root = root.expanduser()
    folders = (root / "models" / name, root / "models" / name / name, root / name, root / name / name, root)
    for folder in folders:
        if any(folder.glob("*.onnx")):
            return folder
    raise InputError(
        f"no InsightFace models: there is no {folders[0]}/*.onnx; unpack {name}.zip of InsightFace's model zoo"
        f" (github.com/deepinsight/insightface/releases) into {folders[0].parent}, or name the folder that has it"
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """InsightFace prints what it loads, and calls functions that scikit-image warns about."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

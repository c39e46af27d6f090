"""Whether it is still the same person: cosines of face embeddings, and how they change over a video's length."""

import warnings
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, Float32, UInt8

from stableanimator_jax.config import EMBEDDING_DIM
from stableanimator_jax.data.face_track import Face
from stableanimator_jax.perception.onnx_model import OnnxModel
from stableanimator_jax.provenance import sha256_of

FACE_SIZE = 112
GLINT360K_R100 = "4ab1d6435d639628a6f3e5008dd4f929edf4c4124b1a7169e1048f9fef534cdf"
"""SHA-256 of antelopev2's glintr100.onnx, by which StableAnimator is conditioned and which its optimisation climbs."""
_SAME = 0.99

Embedding = Float32[np.ndarray, "d"]


class Recogniser(Protocol):
    """What tells people apart by their faces."""

    def embeddings(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[Embedding | None]:
        """The embedding of the largest face of each RGB image, of any length; None where no face is found."""
        ...


class FaceDetector(Protocol):
    """What finds faces with their five points, such as `perception.faces.FaceAnalyser`."""

    def detect(self, image: UInt8[np.ndarray, "h w 3"]) -> Face | None:
        """The largest face of an RGB image, or None where no face is found."""
        ...


class AlignedRecogniser:
    """A detector, ArcFace's alignment by five points, and a network on the aligned faces."""

    def __init__(
        self,
        detector: FaceDetector,
        network: Callable[[Float32[np.ndarray, "n 112 112 3"]], Float[np.ndarray, "n d"]],
    ):
        """`network` takes RGB faces in [-1, 1], and gives raw embeddings."""
        self._detector, self.network = detector, network

    def embeddings(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[Embedding | None]:
        """As in `Recogniser`."""
        found = [self._detector.detect(image) for image in images]
        crops = [
            aligned_face(image, face.landmarks)
            for image, face in zip(images, found, strict=True)
            if face is not None and face.landmarks is not None
        ]
        if not crops:
            return [None] * len(images)
        embedded = iter(np.asarray(self.network(np.stack(crops)), np.float32))
        return [None if face is None or face.landmarks is None else next(embedded) for face in found]


def onnx_recogniser(
    path: Path,
    detector: FaceDetector,
    *,
    channels: Literal["rgb", "bgr"] = "rgb",
    providers: Sequence[str] | None = None,
) -> AlignedRecogniser:
    """A face recogniser from an ONNX file: ArcFace's of InsightFace ("rgb"), or AdaFace's ("bgr").

    Args:
        path: a network from [n, 3, 112, 112] in [-1, 1] to [n, 512].
        detector: finds the faces.
        channels: the order in which the network was trained.
        providers: ONNX Runtime's execution providers; by default the best of those installed.

    Raises:
        InputError: no such file, or another network.
    """
    model = OnnxModel(
        path,
        "face recogniser",
        image=(3, FACE_SIZE, FACE_SIZE),
        outputs=[(EMBEDDING_DIM,)],
        source="take w600k_r50.onnx of InsightFace's buffalo_l, or an AdaFace IResNet exported to ONNX",
        providers=providers,
    )
    order = slice(None) if channels == "rgb" else slice(None, None, -1)

    def network(faces: Float32[np.ndarray, "n 112 112 3"]) -> Float32[np.ndarray, "n d"]:
        images = np.ascontiguousarray(faces[..., order].transpose(0, 3, 1, 2))
        return np.stack([embedding for (embedding,) in model(images)])

    return AlignedRecogniser(detector, network)


def aligned_face(
    image: UInt8[np.ndarray, "h w 3"], landmarks: Float[np.ndarray, "5 2"]
) -> Float32[np.ndarray, "112 112 3"]:
    """ArcFace's aligned face in [-1, 1], by InsightFace's own similarity."""
    from insightface.utils.face_align import norm_crop  # slow to import

    with warnings.catch_warnings():  # it calls functions that scikit-image warns about
        warnings.simplefilter("ignore")
        crop = norm_crop(image, landmarks, FACE_SIZE)
    return crop.astype(np.float32) / np.float32(127.5) - np.float32(1)


def cosines(
    generated: Sequence[Embedding | None], other: Sequence[Embedding | None], missing: float
) -> Float[np.ndarray, "f"]:
    """CSIM frame by frame: `missing` where the generated frame shows no face, NaN where the other one does not."""
    return np.array(
        [
            np.nan if b is None else missing if a is None else float(unit(a) @ unit(b))
            for a, b in zip(generated, other, strict=True)
        ],
        np.float64,
    )


def unit(embedding: Float[np.ndarray, "d"]) -> Float[np.ndarray, "d"]:
    """Of length 1, in float64; zeros stay."""
    x = np.asarray(embedding, np.float64)
    return x / max(float(np.linalg.norm(x)), 1e-8)


def mean_face(embeddings: Sequence[Embedding | None]) -> Float[np.ndarray, "d"] | None:
    """The direction of the mean of unit embeddings; None without any face."""
    found = [unit(embedding) for embedding in embeddings if embedding is not None]
    return unit(np.mean(found, axis=0)) if found else None


class Drift(NamedTuple):
    """How a measure changes over a video."""

    slope: float
    """By least squares, a hundred frames."""
    change: float
    """The mean of the last quarter of the frames less that of the first."""


def drift(curve: Float[np.ndarray, "f"]) -> Drift | None:
    """Of a curve over frames, NaN where it is not known; None of fewer than 8 known frames."""
    known = np.flatnonzero(np.isfinite(curve))
    if len(known) < 8:
        return None
    values = np.asarray(curve, np.float64)[known]
    quarter = len(known) // 4
    slope = float(np.polyfit(known, values, 1)[0]) * 100
    return Drift(slope, float(values[-quarter:].mean() - values[:quarter].mean()))


def circular(recogniser: Collection[str], conditioning: Collection[str] = ()) -> str | None:
    """A warning where a recogniser judges what it has itself conditioned or optimised; else None.

    Args:
        recogniser: its digests: SHA-256 of its file, or `weights.fingerprint` of its parameters.
        conditioning: the same of what conditions the model, or is climbed while sampling.
    """
    if not set(recogniser) & {*conditioning, GLINT360K_R100}:
        return None
    return (
        "CSIM is circular: the recogniser that measures is the one that conditions, or that the face optimisation "
        "climbs; measure with another, such as AdaFace's or buffalo_l's w600k_r50.onnx"
    )


def same_network(
    a: Callable[[Float32[np.ndarray, "n 112 112 3"]], Float[np.ndarray, "n d"]],
    b: Callable[[Float32[np.ndarray, "n 112 112 3"]], Float[np.ndarray, "n e"]],
) -> bool:
    """Whether two networks of aligned faces are one, however they are stored: they embed four pictures alike."""
    coarse = np.random.default_rng(0).uniform(-1, 1, (4, 7, 7, 3)).astype(np.float32)
    pictures = coarse.repeat(FACE_SIZE // 7, axis=1).repeat(FACE_SIZE // 7, axis=2)
    pairs = [np.asarray(network(pictures), np.float64) for network in (a, b)]
    return pairs[0].shape == pairs[1].shape and all(
        float(unit(x) @ unit(y)) > _SAME for x, y in zip(*pairs, strict=True)
    )


def recogniser_digest(path: Path) -> str:
    """SHA-256 of a recogniser's file. Raises `InputError` where it cannot be read."""
    return sha256_of([path])

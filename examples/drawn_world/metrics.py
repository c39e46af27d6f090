"""How like the truth made frames are: the face, the picture, the pose, and features of all of them together.

Pictures, likeness and Fréchet distances are measured by the evaluator, by its `standard` protocol. What is added here
needs what only a drawn world knows: the face's place, everybody's colours, and the wall without anybody.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from examples.drawn_world.people import Colour
from stableanimator_jax.data.face_track import FaceTrack
from stableanimator_jax.evaluation import pixels
from stableanimator_jax.evaluation.identity import cosines
from stableanimator_jax.evaluation.measures import METRICS as MEASURED
from stableanimator_jax.evaluation.measures import Metric
from stableanimator_jax.evaluation.protocol import PROTOCOLS
from stableanimator_jax.models.clip_input import clip_pixels
from stableanimator_jax.models.functional import Model
from stableanimator_jax.models.image_encoder import ImageEncoder
from stableanimator_jax.training.latents import pixels as as_input

_STANDARD = PROTOCOLS["standard"]

METRICS: dict[str, Metric] = {
    "csim": Metric("CSIM", True, 3),
    "csim_second": Metric("CSIM, second ArcFace", True, 3),
    "psnr": MEASURED["psnr"],
    "face_psnr": Metric("PSNR in the face, dB", True, 2),
    "ssim": MEASURED["ssim"]._replace(digits=3),
    "l1": MEASURED["l1"]._replace(digits=4),
    "frechet": Metric("Fréchet distance", False, 3),
    "skin_iou": Metric("IoU of the skin", True, 3),
    "skin_iou_chance": Metric("… with another moment", True, 3),
    "person_iou": Metric("IoU of the person", True, 3),
    "person_iou_chance": Metric("… with another moment", True, 3),
    "flicker": Metric("Flicker of the wall, levels", False, 2),
    "glasses": Metric("Glasses as in truth", True, 3),
}
"""In the order of the tables. `skin_iou_chance` and `person_iou_chance` are no measures of quality."""


def similarity(
    faces: Float[np.ndarray, "f d"], reference: Float[np.ndarray, "d"], valid: Bool[np.ndarray, "f"]
) -> float:
    """CSIM: the mean cosine of frames' face embeddings and the reference's, over the frames with a face."""
    seen = faces[valid]
    return float(cosines(list(seen), [reference] * len(seen), _STANDARD.missing_face).mean())


def picture_quality(
    made: UInt8[np.ndarray, "f h w 3"], truth: UInt8[np.ndarray, "f h w 3"], faces: FaceTrack
) -> dict[str, float]:
    """Means over the frames: `psnr` in dB, `face_psnr` of what is inside the face's box, `ssim`, and `l1` of [0, 1]."""
    inside = [
        np.s_[f : f + 1, box[1] : box[3] + 1, box[0] : box[2] + 1]
        for f, (box, valid) in enumerate(zip(faces.boxes.astype(int), faces.valid, strict=True))
        if valid
    ]
    in_face = [pixels.psnr(made[where], truth[where], _STANDARD) for where in inside]
    whole = {"psnr": pixels.psnr, "ssim": pixels.ssim, "l1": pixels.l1}
    return {name: float(measure(made, truth, _STANDARD).mean()) for name, measure in whole.items()} | {
        "face_psnr": float(np.mean(in_face))
    }


def label_parts(
    frames: UInt8[np.ndarray, "f h w 3"], colours: Mapping[str, Sequence[Colour]], wall: UInt8[np.ndarray, "h w 3"]
) -> dict[str, Bool[np.ndarray, "f h w"]]:
    """Which pixels show which part: each is what it is nearest to in colour, a part or the wall behind it.

    Args:
        frames: pictures.
        colours: of each part.
        wall: the picture without anybody.

    Returns:
        a mask of each part, and `person` of all of them together.
    """
    names = [name for name, some in colours.items() for _ in some]
    known = np.array([colour for some in colours.values() for colour in some], np.float32)
    pictures = frames.astype(np.float32)
    distances = np.square(pictures[..., None, :] - known).sum(axis=-1)  # [f, h, w, colours]
    nearest = distances.argmin(axis=-1)
    person = distances.min(axis=-1) < np.square(pictures - wall).sum(axis=-1)
    parts = {name: person & np.isin(nearest, [i for i, n in enumerate(names) if n == name]) for name in colours}
    return parts | {"person": person}


def iou(a: Bool[np.ndarray, "f h w"], b: Bool[np.ndarray, "f h w"]) -> float:
    """Mean over frames of the masks' intersection over union; two empty masks are the same."""
    either = (a | b).sum(axis=(1, 2))
    both = (a & b).sum(axis=(1, 2))
    return float(np.where(either, both / np.maximum(either, 1), 1.0).mean())


def pose_fidelity(
    made: UInt8[np.ndarray, "f h w 3"],
    truth: UInt8[np.ndarray, "f h w 3"],
    colours: Mapping[str, Sequence[Colour]],
    wall: UInt8[np.ndarray, "h w 3"],
) -> dict[str, float]:
    """Whether the person is where the truth has them: `skin_iou` and `person_iou`; beside each, as `…_chance`, the same
    with the truth of half the clip later, from its end on with its beginning: the right person in another pose."""
    ours, theirs = label_parts(made, colours, wall), label_parts(truth, colours, wall)
    found = {}
    for part in ("skin", "person"):
        found[f"{part}_iou"] = iou(ours[part], theirs[part])
        found[f"{part}_iou_chance"] = iou(ours[part], np.roll(theirs[part], len(truth) // 2, axis=0))
    return found


def wall_flicker(
    made: UInt8[np.ndarray, "f h w 3"], truth: UInt8[np.ndarray, "f h w 3"], wall: UInt8[np.ndarray, "h w 3"]
) -> float:
    """Mean absolute change from frame to frame, in 8-bit levels, of pixels where neither of both truths shows anybody.

    The truth is the wall itself there, so that its own flicker is 0.
    """
    empty = (truth == wall).all(axis=-1)
    still = empty[1:] & empty[:-1]
    return float(np.abs(np.diff(made.astype(np.float64), axis=0))[still].mean())


def image_features(
    image_encoder: Model[ImageEncoder], frames: UInt8[np.ndarray, "f h w 3"]
) -> Float32[np.ndarray, "f d"]:
    """CLIP's embeddings of whole frames."""
    return np.asarray(_embed(image_encoder, frames))


@jax.jit
def _embed(image_encoder: Model[ImageEncoder], frames: jax.Array) -> jax.Array:
    return image_encoder.module()(clip_pixels(as_input(frames))).astype(jnp.float32)

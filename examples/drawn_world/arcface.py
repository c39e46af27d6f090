"""ArcFace for drawn faces: an IResNet under the additive angular margin loss (Deng et al., CVPR 2019)."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, UInt8

from examples.drawn_world.clips import TRAIN_SEEDS, VALIDATION_SEEDS, draw_moment
from examples.drawn_world.dataset import embed_faces
from examples.drawn_world.fitting import FitConfig, fit
from examples.drawn_world.model import ARCFACE, CONFIG
from stableanimator_jax.models.arcface import ArcFace
from stableanimator_jax.models.catalogue import blueprint
from stableanimator_jax.models.functional import Model
from stableanimator_jax.models.layers import Precision
from stableanimator_jax.sampling.face_crop import crop_boxes
from stableanimator_jax.training.latents import pixels
from stableanimator_jax.weights.checkpoint import save_checkpoint
from stableanimator_jax.weights.opening import open_checkpoint

SCALE, MARGIN = 32.0, 0.4


@dataclass(frozen=True)
class ArcFaceTraining(FitConfig):
    """Training of ArcFace."""

    output: Path = Path("outputs/drawn_world/arcface")
    steps: int = 1000
    batch: int = 32
    learning_rate: float = 2e-3
    identities: int = 1000
    """People to tell apart."""
    size: int = 64
    """Of the pictures that faces are cut out of."""


def margin_loss(
    embeddings: Float[Array, "b d"], centres: Float[Array, "n d"], labels: Int[Array, "b"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """ArcFace's loss, cross-entropy over SCALE * cos(angle + MARGIN at the true identity); how often that is nearest.

    Args:
        embeddings: of faces, raw.
        centres: one an identity, raw.
        labels: whose the faces are.
    """
    unit = embeddings / jnp.linalg.norm(embeddings, axis=-1, keepdims=True)
    cosines = unit @ (centres / jnp.linalg.norm(centres, axis=-1, keepdims=True)).T
    true = jax.nn.one_hot(labels, len(centres), dtype=bool)
    angles = jnp.arccos(jnp.clip(cosines, -1 + 1e-6, 1 - 1e-6))
    # Beyond pi the cosine would rise again.
    logits = SCALE * jnp.where(true, jnp.cos(jnp.minimum(angles + MARGIN, jnp.pi)), cosines)
    loss = -jnp.sum(jnp.where(true, jax.nn.log_softmax(logits), 0.0), axis=-1).mean()
    return loss, (jnp.argmax(cosines, axis=-1) == labels).astype(jnp.float32).mean()


def train(config: ArcFaceTraining) -> None:
    """Train ArcFace and write it as a checkpoint."""
    model = ArcFace(ARCFACE, precision=Precision(), rngs=nnx.Rngs(config.seed))
    model.train()
    graphdef, params, statistics = nnx.split(model, nnx.Param, nnx.BatchStat)
    centres = jax.random.normal(jax.random.key(config.seed), (config.identities, ARCFACE.embedding_dim))

    def loss(params: Any, statistics: Any, batch: Any, key: Array) -> Any:
        faces = augmented(batch["pictures"], batch["boxes"], key)
        model = nnx.merge(graphdef, params["model"], statistics)
        value, accuracy = margin_loss(model(faces), params["centres"], batch["labels"])
        new = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
        return value, (new, {"loss": value, "accuracy": accuracy})

    def draw_batch(random: np.random.Generator) -> dict[str, np.ndarray]:
        labels = random.integers(0, config.identities, config.batch).astype(np.int32)
        pictures, boxes = draw_faces(TRAIN_SEEDS + labels, random, config.size)
        boxes = boxes + np.round(random.normal(0, 0.6, boxes.shape)).astype(np.float32)  # detectors are not exact
        return {"labels": labels, "pictures": pictures, "boxes": boxes}

    start = {"model": nnx.to_pure_dict(params), "centres": centres}
    fitted = fit(config, start, nnx.to_pure_dict(statistics), loss, draw_batch)
    module = nnx.merge(graphdef, fitted.params["model"], fitted.statistics)
    save_checkpoint(
        config.output,
        dataclasses.replace(CONFIG, arcface=ARCFACE),
        {"arcface": nnx.to_pure_dict(nnx.state(module))},
        {"trained on": f"{config.identities} drawn people", "steps": config.steps, "seed": config.seed},
        overwrite=True,  # `fit` has looked at what is there
    )
    print(f"verification of people it never saw: {verification(config.output, size=config.size):.2%}")


def augmented(pictures: UInt8[Array, "b h w 3"], boxes: Float[Array, "b 4"], key: Array) -> Float[Array, "b 112 112 3"]:
    """Faces with some noise, and some of them blurred, as made pictures are not as sharp as drawn ones."""
    keys = jax.random.split(key, 4)
    b = len(pictures)
    images = pixels(pictures)
    small = jax.image.resize(images, (b, images.shape[1] // 2, images.shape[2] // 2, 3), "linear")
    blurred = jax.image.resize(small, images.shape, "linear")
    share = jnp.maximum(0.0, jax.random.uniform(keys[0], (b, 1, 1, 1), minval=-1.0, maxval=1.0))
    images = images + share * (blurred - images)
    images = images * jax.random.uniform(keys[1], (b, 1, 1, 3), minval=0.95, maxval=1.05)
    images = images + 0.1 * jax.random.uniform(keys[2], (b, 1, 1, 1)) * jax.random.normal(keys[3], images.shape)
    return crop_boxes(images, boxes)


def draw_faces(
    people: np.ndarray, random: np.random.Generator, size: int
) -> tuple[UInt8[np.ndarray, "b size size 3"], np.ndarray]:
    """Each person in some moment of some motion, before some wall; with the boxes of their faces [b, 4]."""
    moments = [draw_moment(int(person), random, 1, size) for person in people]
    return np.concatenate([m.frames for m in moments]), np.concatenate([m.faces.boxes for m in moments])


def verification(checkpoint: Path, *, pairs: int = 1000, size: int = 64, seed: int = 0) -> float:
    """How often it is right whether two faces of unseen people are one person's.

    Half of the pairs are one person in two moments, half two people. The threshold on their cosine is the best one for
    the first half of the pairs; what is given is the accuracy on the other half, of other people.

    Args:
        checkpoint: with an `arcface`.
        pairs: of each kind.
        size: of the pictures.
        seed: of moments and pairs.
    """
    source = open_checkpoint(str(checkpoint))
    model: Model[ArcFace] = source.load("arcface", blueprint(source.config, "arcface"))
    random = np.random.default_rng([seed, 0, 5])  # no step's
    people = VALIDATION_SEEDS + np.arange(pairs)
    units = []
    for _ in range(2):
        parts = [embed_faces(model, *draw_faces(some, random, size)) for some in np.array_split(people, pairs // 50)]
        embeddings = np.concatenate(parts)
        units.append(embeddings / np.linalg.norm(embeddings, axis=-1, keepdims=True))
    first, second = units
    half = pairs // 2
    same = np.sum(first * second, axis=-1)
    # Two people of the same half.
    other = np.concatenate([np.roll(second[:half], 1, axis=0), np.roll(second[half:], 1, axis=0)])
    different = np.sum(first * other, axis=-1)
    thresholds = np.sort(np.concatenate([same[:half], different[:half]]))
    right = [(same[:half] >= t).sum() + (different[:half] < t).sum() for t in thresholds]
    best = thresholds[int(np.argmax(right))]
    return float(((same[half:] >= best).mean() + (different[half:] < best).mean()) / 2)

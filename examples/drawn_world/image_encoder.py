"""CLIP's vision tower for drawn pictures, by CLIP's own loss (Radford et al. 2021): which picture shows whom?

Beside it learns a tower for descriptions, which here are numbers rather than words; it is thrown away.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from examples.drawn_world.clips import TRAIN_SEEDS, VALIDATION_SEEDS, draw_moment
from examples.drawn_world.fitting import FitConfig, fit
from examples.drawn_world.model import CONFIG, IMAGE_ENCODER
from examples.drawn_world.people import description, make_person
from stableanimator_jax.errors import InputError
from stableanimator_jax.models.clip_input import clip_pixels
from stableanimator_jax.models.image_encoder import ImageEncoder
from stableanimator_jax.models.layers import Precision
from stableanimator_jax.training.latents import pixels
from stableanimator_jax.weights.checkpoint import save_checkpoint

_TEMPERATURE = 0.07  # CLIP's at the beginning; it is learnt


@dataclass(frozen=True)
class ImageEncoderTraining(FitConfig):
    """Training of the image encoder."""

    output: Path = Path("outputs/drawn_world/image_encoder")
    steps: int = 800
    batch: int = 64
    people: int = 2000
    size: int = 64
    """Of the pictures in pixels."""

    def __post_init__(self):
        super().__post_init__()
        if self.people < self.batch:
            raise InputError(f"--people must be at least the --batch, {self.batch}, got {self.people}")


class DescriptionEncoder(nnx.Module):
    """A description to an embedding like a picture's."""

    def __init__(self, features_in: int, features_out: int, *, rngs: nnx.Rngs):
        self.first = nnx.Linear(features_in, 256, rngs=rngs)
        self.second = nnx.Linear(256, features_out, rngs=rngs)

    def __call__(self, descriptions: Array) -> Array:
        return self.second(jax.nn.gelu(self.first(descriptions)))


def train(config: ImageEncoderTraining) -> None:
    """Train the image encoder and write it as a checkpoint."""
    features = len(description(make_person(0)))
    rngs = nnx.Rngs(config.seed)
    graphdef, params = nnx.split(ImageEncoder(IMAGE_ENCODER, precision=Precision(), rngs=rngs), nnx.Param)
    text_graphdef, text = nnx.split(DescriptionEncoder(features, IMAGE_ENCODER.projection_dim, rngs=rngs), nnx.Param)

    def similarities(params: Any, batch: Any) -> Array:
        seen = nnx.merge(graphdef, params["image"])(clip_pixels(pixels(batch["pictures"])))
        told = nnx.merge(text_graphdef, params["description"])(batch["descriptions"])
        seen, told = (x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (seen, told))
        return seen @ told.T

    def loss(params: Any, statistics: Any, batch: Any, key: Array) -> Any:
        del key
        logits = similarities(params, batch) * jnp.exp(params["log_scale"])
        both = [jnp.mean(jnp.diagonal(jax.nn.log_softmax(logits, axis=axis))) for axis in (0, 1)]
        value = -(both[0] + both[1]) / 2
        return value, (statistics, {"loss": value, "accuracy": _accuracy(logits)})

    def draw_batch(random: np.random.Generator) -> dict[str, np.ndarray]:
        people = TRAIN_SEEDS + random.choice(config.people, config.batch, replace=False)
        return _pictures(people, random, config.size)

    log_scale = jnp.asarray(np.log(1 / _TEMPERATURE), jnp.float32)
    start = {"image": nnx.to_pure_dict(params), "description": nnx.to_pure_dict(text), "log_scale": log_scale}
    fitted = fit(config, start, {}, loss, draw_batch)
    random = np.random.default_rng([config.seed, 0, 7])  # no step's
    unseen = _pictures(VALIDATION_SEEDS + np.arange(256), random, config.size)
    accuracy = float(_accuracy(jax.jit(similarities)(fitted.params, unseen)))
    save_checkpoint(
        config.output,
        CONFIG,
        {"image_encoder": fitted.params["image"]},
        {"trained on": f"{config.people} drawn people", "steps": config.steps, "seed": config.seed},
        overwrite=True,  # `fit` has looked at what is there
    )
    print(f"256 people it never saw: the right description for {accuracy:.1%} of the pictures")


def _accuracy(similarities: Array) -> Array:
    return jnp.mean((jnp.argmax(similarities, axis=1) == jnp.arange(len(similarities))).astype(jnp.float32))


def _pictures(people: np.ndarray, random: np.random.Generator, size: int) -> dict[str, np.ndarray]:
    return {
        "pictures": np.concatenate([draw_moment(int(person), random, 1, size).frames for person in people]),
        "descriptions": np.stack([description(make_person(int(person))) for person in people]),
    }

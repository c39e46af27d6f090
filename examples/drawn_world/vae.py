"""The temporal VAE for drawn people: reconstruction, more of it inside the faces, and a little of the prior."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from examples.drawn_world.clips import TRAIN_SEEDS, VALIDATION_SEEDS, draw_moment
from examples.drawn_world.fitting import FitConfig, fit
from examples.drawn_world.model import CONFIG, VAE
from stableanimator_jax.errors import InputError
from stableanimator_jax.models.layers import Precision
from stableanimator_jax.models.vae import VAE as Model
from stableanimator_jax.training.latents import pixels
from stableanimator_jax.weights.checkpoint import save_checkpoint

CHUNK = 4  # frames decoded together, as sample.py does
FIRST_LOG_VARIANCE = -5.0  # of the posterior: at 0 its noise would drown the latents for long
KL_WEIGHT = 5e-4  # of the divergence from the prior a latent number, beside the error a pixel


@dataclass(frozen=True)
class VAETraining(FitConfig):
    """Training of the VAE: parts of single frames, then whole chunks of frames, then the decoder alone on such."""

    output: Path = Path("outputs/drawn_world/vae")
    steps: int = 2200
    """On single frames."""
    batch: int = 32
    """Single frames a step."""
    crop: int = 32
    """Side of the part of each that is looked at, in pixels: more people for the same work."""
    chunk_steps: int = 160
    """On whole chunks, after that; an eighth as many of them a step."""
    decoder_steps: int = 400
    """On whole chunks, of the decoder alone, after that: latents stay what they are."""
    learning_rate: float = 3e-3
    optimizer: Literal["adamw", "muon"] = "muon"
    people: int = 2000
    size: int = 64
    """Of the pictures in pixels."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("size", "crop"):
            if getattr(self, name) % VAE.downscale:
                raise InputError(f"--{name} must be a multiple of {VAE.downscale}, got {getattr(self, name)}")
        if self.crop > self.size:
            raise InputError(f"--crop must be at most the --size, {self.size}, got {self.crop}")


def train(config: VAETraining) -> None:
    """Train the VAE and write it as a checkpoint, with the scaling factor that gives its latents a spread of 1."""
    graphdef, params = nnx.split(Model(VAE, precision=Precision(), rngs=nnx.Rngs(config.seed)), nnx.Param)

    def loss(params: Any, statistics: Any, batch: Any, key: Array) -> Any:
        vae = nnx.merge(graphdef, {**statistics, **params})  # without a gradient: the parts that are not trained
        images = pixels(batch["frames"])
        mean, logvar = vae.encode(images)
        latents = mean + jnp.exp(0.5 * logvar) * jax.random.normal(key, mean.shape)
        difference = vae.decode(latents, remat=False) - images
        weight = 1 + batch["faces"][..., None].astype(jnp.float32)
        error = jnp.mean(weight * (jnp.abs(difference) + jnp.square(difference)))
        divergence = 0.5 * jnp.mean(jnp.square(mean) + jnp.exp(logvar) - 1 - logvar)
        # Of pixels in [0, 1].
        psnr = jnp.mean(-10 * jnp.log10(jnp.mean(jnp.square(difference / 2), axis=(2, 3, 4))))
        shown = {"loss": error + KL_WEIGHT * divergence, "error": error, "divergence": divergence, "psnr": psnr}
        return shown["loss"], (statistics, shown)

    def somebody(random: np.random.Generator, count: int) -> np.ndarray:
        return TRAIN_SEEDS + random.integers(0, config.people, count)

    def draw_parts(random: np.random.Generator) -> dict[str, np.ndarray]:
        whole = draw_chunks(somebody(random, config.batch), random, config.size, frames=1)
        corners = random.integers(0, config.size - config.crop + 1, (config.batch, 2))
        return {
            name: np.stack(
                [a[:, y : y + config.crop, x : x + config.crop] for a, (y, x) in zip(array, corners, strict=True)]
            )
            for name, array in whole.items()
        }

    def draw_whole(random: np.random.Generator) -> dict[str, np.ndarray]:
        return draw_chunks(somebody(random, max(1, config.batch // 8)), random, config.size)

    started = begin(nnx.to_pure_dict(params))
    fitted = fit(config, started, {}, loss, draw_parts, stage="frames")
    last = dataclasses.replace(config, steps=config.chunk_steps, learning_rate=config.learning_rate / 3)
    fitted = fit(last, fitted.params, {}, loss, draw_whole, stage="chunks")
    decoder, others = ({k: v for k, v in fitted.params.items() if (k == "decoder") is own} for own in (True, False))
    last = dataclasses.replace(last, steps=config.decoder_steps)
    params = others | fit(last, decoder, others, loss, draw_whole, stage="decoder").params
    vae = nnx.merge(graphdef, params)
    random = np.random.default_rng([config.seed, 0, 6])  # no step's
    unseen = draw_chunks(VALIDATION_SEEDS + np.arange(64), random, config.size)["frames"]
    psnr, spread = _measured(vae, unseen)
    save_checkpoint(
        config.output,
        dataclasses.replace(CONFIG, vae=dataclasses.replace(VAE, scaling_factor=round(1 / spread, 5))),
        {"vae": params},
        {"trained on": f"{config.people} drawn people", "steps": config.steps, "seed": config.seed},
        overwrite=True,  # `fit` has looked at what is there
    )
    print(f"people it never saw: PSNR {psnr:.2f} dB; spread of the latents {spread:.3f}")


def begin(params: Any, name: str = "") -> Any:
    """First parameters with which training is quick: residual branches that add nothing yet, temporal convolutions that
    look at their own frame only, and little noise on the latents."""
    if not isinstance(params, dict):
        return params
    begun = {key: begin(child, key) for key, child in params.items()}
    if name in ("conv2", "to_out"):
        return jax.tree.map(jnp.zeros_like, begun)
    if name == "quant_conv":
        return {**begun, "bias": begun["bias"].at[VAE.latent_channels :].set(FIRST_LOG_VARIANCE)}
    if "kernel" in begun and begun["kernel"].ndim == 3:  # [frames, channels in, channels out]
        return {**begun, "kernel": begun["kernel"] * jnp.asarray([0.0, 1.0, 0.0])[:, None, None]}
    return begun


def draw_chunks(
    people: np.ndarray, random: np.random.Generator, size: int, frames: int = CHUNK
) -> dict[str, np.ndarray]:
    """A few frames of each person: `frames` uint8 [b, f, size, size, 3] and `faces`, True inside the boxes."""
    clips = [draw_moment(int(person), random, frames, size) for person in people]
    boxes = np.stack([clip.faces.boxes for clip in clips])[..., None, None, :]  # [b, f, 1, 1, 4]
    y, x = np.mgrid[:size, :size]
    inside = (x >= boxes[..., 0]) & (y >= boxes[..., 1]) & (x <= boxes[..., 2]) & (y <= boxes[..., 3])
    return {"frames": np.stack([clip.frames for clip in clips]), "faces": inside}


def _measured(vae: Model, frames: np.ndarray) -> tuple[float, float]:
    """Mean PSNR in dB of decoded posterior means, and the standard deviation of the latents."""
    graphdef, params = nnx.split(vae)

    @jax.jit
    def round_trip(params: Any, some: Array) -> tuple[Array, Array]:
        vae = nnx.merge(graphdef, params)
        images = pixels(some)
        latents = vae.encode(images)[0]
        difference = jnp.clip(vae.decode(latents), -1, 1) - images
        return jnp.mean(jnp.square(difference / 2), axis=(2, 3, 4)), latents

    errors, latents = zip(*(round_trip(params, some) for some in np.split(frames, len(frames) // 8)), strict=True)
    return float(np.mean(-10 * np.log10(np.concatenate(errors)))), float(np.std(np.concatenate(latents)))

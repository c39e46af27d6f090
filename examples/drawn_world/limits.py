"""How good a video could be at best: what true frames lose where a part of the model is asked about them alone."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from tqdm import tqdm

from examples.drawn_world.ablation_report import table
from examples.drawn_world.intervals import draw_pairs, mean
from examples.drawn_world.study import MeasureConfig, draw_study, load_judges, measure, measure_truth
from stableanimator_jax.errors import InputError
from stableanimator_jax.interrupts import check_interrupted
from stableanimator_jax.models.catalogue import blueprint
from stableanimator_jax.models.functional import Model
from stableanimator_jax.models.vae import VAE
from stableanimator_jax.sampling.decode import decode_frames
from stableanimator_jax.shipped import EMBEDDED
from stableanimator_jax.training.latents import pixels
from stableanimator_jax.weights.opening import open_checkpoint


@dataclass(frozen=True)
class LimitsConfig(MeasureConfig):
    """Whose limits, and on whom to measure them."""

    checkpoint: str = EMBEDDED
    """A checkpoint directory, or "embedded" for the one in this package."""
    pairs: int = 16
    """Of an unseen person and an unseen motion."""
    decode_chunk: int = 4
    """Frames decoded at once, as in sampling."""

    def __post_init__(self):
        super().__post_init__()
        if self.decode_chunk < 1:
            raise InputError(f"--decode-chunk must be at least 1, got {self.decode_chunk}")


def limits(config: LimitsConfig) -> None:
    """Print what ArcFace says of the true frames, and what VAE alone makes of them, with confidence intervals.

    Raises:
        InputError: a checkpoint or a setting cannot be used.
    """
    judges = load_judges(config.checkpoint, config)
    source = open_checkpoint(config.checkpoint)
    vae = source.load("vae", blueprint(source.config, "vae"))
    pairs = draw_study(config)
    truth, _, references = measure_truth(judges, pairs)
    videos = []
    for pair in tqdm(pairs, "encoding and decoding", unit="pair"):
        check_interrupted()
        videos.append(encoded_and_decoded(vae, pair.truth, config.decode_chunk))
    through_vae = measure(judges, pairs, references, np.stack(videos), np.zeros(len(pairs)), "VAE alone").scores
    drawn = draw_pairs(config.pairs, config.resamples)
    estimates = {
        name: {metric: mean(values, drawn) for metric, values in scores.items()}
        for name, scores in (("truth", truth), ("vae", through_vae))
    }
    print(table(estimates, {"truth": "the true frames", "vae": "encoded and decoded by the VAE"}))


def encoded_and_decoded(
    vae: Model[VAE], frames: UInt8[np.ndarray, "f h w 3"], chunk: int = 4
) -> UInt8[np.ndarray, "f h w 3"]:
    """What the VAE alone makes of frames: the mean of the posterior, decoded so many frames at a time."""
    return np.concatenate(list(decode_frames(vae, _latents(vae, jnp.asarray(frames)), chunk)))


@jax.jit
def _latents(vae: Model[VAE], frames: UInt8[Array, "f h w 3"]) -> Float[Array, "f lh lw c"]:
    module = vae.module()
    return module.encode(pixels(frames))[0] * module.config.scaling_factor

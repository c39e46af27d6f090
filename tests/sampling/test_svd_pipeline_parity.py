"""Stable Video Diffusion by us and by diffusers' own pipeline, from the files that we export, at sizes of its own."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from stableanimator_jax import Animator
from stableanimator_jax.sampling.conditions import encode_condition
from stableanimator_jax.sampling.config import SamplingConfig
from stableanimator_jax.sampling.decode import decode_chunk
from stableanimator_jax.sampling.denoise import denoise
from stableanimator_jax.weights.exporting import export_weights
from tests.golden_data import assert_close
from tests.relatives import golden_checkpoint

pytestmark = [
    pytest.mark.parity,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # torch and NumPy, in diffusers
]
FRAMES, STEPS, CHUNK = 5, 3, 2


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The animator of an imported SVD, and diffusers' pipeline of what it is exported as."""
    diffusers = pytest.importorskip("diffusers")
    place = tmp_path_factory.mktemp("svd")
    checkpoint = golden_checkpoint("svd_pipeline", place)
    export_weights(str(checkpoint), place / "exported")
    pipeline = diffusers.StableVideoDiffusionPipeline.from_pretrained(place / "exported" / "SVD")
    pipeline.set_progress_bar_config(disable=True)
    return Animator.from_pretrained(checkpoint, dtype="float32"), pipeline


@pytest.mark.parametrize(("width", "height", "low", "high"), [(192, 128, 1.0, 3.0), (64, 192, 2.0, 2.0)])
def test_latents_and_frames_are_those_of_the_pipeline(models, width, height, low, high):
    import torch

    animator, pipeline = models
    rng = np.random.default_rng(width)
    picture = np.kron(rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    noise = rng.standard_normal((FRAMES, height // 8, width // 8, 4)).astype(np.float32)
    augmentation = torch.randn((1, 3, height, width), generator=torch.Generator().manual_seed(0))

    def published(**output):
        return pipeline(
            Image.fromarray(picture),
            height=height,
            width=width,
            num_frames=FRAMES,
            num_inference_steps=STEPS,
            min_guidance_scale=low,
            max_guidance_scale=high,
            latents=torch.from_numpy(noise.transpose(0, 3, 1, 2)[None].copy()),
            generator=torch.Generator().manual_seed(0),
            decode_chunk_size=CHUNK,
            **output,
        ).frames

    changes = {"steps": STEPS, "guidance_min": low, "guidance_max": high, "decode_chunk": CHUNK}
    sampling = replace(SamplingConfig.published("svd"), **changes)
    condition = encode_condition(
        animator.image_encoder,
        None,
        animator.vae,
        picture,
        np.zeros(512, np.float32),
        augmentation[0].permute(1, 2, 0).numpy(),
        sampling.added_time_ids,
    )
    latents = denoise(animator.unet, None, condition, None, noise, sampling, tiling="whole")
    assert_close(latents, np.moveaxis(published(output_type="latent")[0].numpy(), 1, -1), 5e-4)
    frames = np.concatenate([decode_chunk(animator.vae, latents[i : i + CHUNK]) for i in range(0, FRAMES, CHUNK)])
    wanted = published(output_type="np")[0]
    assert_close(np.clip(frames / 2 + 0.5, 0, 1), wanted, 5e-4)

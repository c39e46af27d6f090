"""What the denoiser is conditioned on: the reference image as CLIP and as the VAE see it, and the person's face."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

from stableanimator_jax.models.clip_input import clip_pixels
from stableanimator_jax.models.conditioning import Conditioning
from stableanimator_jax.models.face_encoder import FaceEncoder
from stableanimator_jax.models.functional import Model
from stableanimator_jax.models.image_encoder import ImageEncoder
from stableanimator_jax.models.pixels import pixels
from stableanimator_jax.models.vae import VAE
from stableanimator_jax.sampling.programs import kept


def reference_pixels(reference: UInt8[np.ndarray, "H0 W0 3"], height: int, width: int) -> Float[np.ndarray, "H W 3"]:
    """The reference as the VAE takes it: resized (Pillow's Lanczos) to the output size, in [-1, 1]."""
    image = Image.fromarray(reference)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    return pixels(np.asarray(image))


def encode_condition(
    image_encoder: Model[ImageEncoder],
    face_encoder: Model[FaceEncoder] | None,
    vae: Model[VAE],
    reference: UInt8[np.ndarray, "H0 W0 3"],
    id_embedding: Float[np.ndarray, "512"],
    augmentation_noise: Float[Array, "H W 3"],
    added_time_ids: tuple[float, float, float],
) -> Conditioning:
    """Encode the reference.

    Args:
        face_encoder: None where the UNet takes no face.
        reference: RGB at its own size, which is the size that CLIP's resize begins from; but from the output's size
            where that is below CLIP's own: trained on such pictures, the models never saw sharper ones.
        id_embedding: the raw ArcFace embedding; zeros for none.
        augmentation_noise: unit Gaussian noise of the output size, which sets that size.
        added_time_ids: as in `Conditioning`. The last one is how much of the noise is added to the VAE's copy of the
            reference; CLIP's has none.

    Returns:
        one row, float32, without pose features; its latents are the posterior's mode, not multiplied by the VAE's
        scaling factor.
    """
    height, width, _ = augmentation_noise.shape
    fitted = reference_pixels(reference, height, width)
    small = min(height, width) < image_encoder.blueprint.config.image_size
    seen = fitted if small else pixels(reference)
    image_embedding = _embed_image(image_encoder, jnp.asarray(clip_pixels(seen))[None])
    noisy = jnp.asarray(fitted) + added_time_ids[2] * augmentation_noise
    face_tokens = None
    if face_encoder is not None:
        face_tokens = _encode_face(face_encoder, jnp.asarray(id_embedding)[None], image_embedding)
    return Conditioning(
        image_embedding=image_embedding,
        face_tokens=face_tokens,
        added_time_ids=jnp.asarray([added_time_ids], jnp.float32),
        image_latents=_encode_image(vae, noisy[None]),
    )


@kept
@jax.jit
def _embed_image(image_encoder: Model[ImageEncoder], pixels: jax.Array) -> jax.Array:
    return image_encoder.module()(pixels).astype(jnp.float32)


@kept
@jax.jit
def _encode_face(face_encoder: Model[FaceEncoder], id_embedding: jax.Array, image_embedding: jax.Array) -> jax.Array:
    return face_encoder.module()(id_embedding, image_embedding).astype(jnp.float32)


@kept
@jax.jit
def _encode_image(vae: Model[VAE], pixels: jax.Array) -> jax.Array:
    return vae.module().encode(pixels)[0].astype(jnp.float32)

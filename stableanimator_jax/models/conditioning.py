"""What the UNet is told beside the noisy latents: one record, so that a further condition is one more field."""

from typing import NamedTuple

from jaxtyping import Array, Float


class Conditioning(NamedTuple):
    """The conditions of b videos or windows."""

    image_embedding: Float[Array, "b d"]
    """CLIP's projected embedding of the reference: the one image token. Zero: unconditional."""
    face_tokens: Float[Array, "b n d"] | None
    """The Face Encoder's; None leaves the ID adapters out (plain SVD)."""
    added_time_ids: Float[Array, "b 3"]
    """(fps - 1, motion bucket, noise augmentation strength)."""
    image_latents: Float[Array, "b h w c"] | Float[Array, "b f h w c"]
    """The reference's latents, for every frame or for each, which stand behind the noisy ones on the channel axis."""
    pose_features: Float[Array, "b f h w e"] | None = None
    """PoseNet's, added after the first convolution; None adds nothing."""

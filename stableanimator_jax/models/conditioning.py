"""What the UNet is told beside the noisy latents: one record, so that a further condition is one more field."""

from typing import NamedTuple

from jaxtyping import Array, Float


class Control(NamedTuple):
    """What steers the UNet from its second level on: a control net's features, and how much of them."""

    features: Float[Array, "b f h w e"]
    """The control net's output as it is, at its own size."""
    scale: Float[Array, "b"] | Float[Array, "b f"]
    """What they are multiplied by once they have the hidden state's statistics: the control net's `strength`. At 0
    nothing is added, where features of zero would still add the hidden state's mean."""


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
    control: Control | None = None
    """A control net's, added behind the first level; None adds nothing."""
    face_strength: Float[Array, "b"] | None = None
    """What the face tokens' part in the ID adapters is multiplied by; None as it is, 0 leaves it out."""

"""The sizes of the models that are trained on drawn people: everything StableAnimator has, small."""

from stableanimator_jax.config import (
    ArcFaceConfig,
    FaceEncoderConfig,
    ImageEncoderConfig,
    PoseNetConfig,
    StableAnimatorConfig,
    UNetConfig,
    VAEConfig,
)

_DIM = 128  # of CLIP's embedding and of every cross-attention's context

UNET = UNetConfig(
    in_channels=32,
    out_channels=16,
    block_out_channels=(64, 96),
    num_attention_heads=(2, 3),
    layers_per_block=1,
    cross_attention_dim=_DIM,
    addition_time_embed_dim=32,
    projection_class_embeddings_input_dim=96,
)
# 16 channels where SVD has 4: a 64x64 picture has 8x8 latents, in which 4 could not hold a face.
VAE = VAEConfig(
    latent_channels=16, block_out_channels=(32, 32, 64, 128), layers_per_block=1, norm_num_groups=8, scaling_factor=1.0
)
IMAGE_ENCODER = ImageEncoderConfig(
    hidden_size=128,
    intermediate_size=256,
    num_hidden_layers=4,
    num_attention_heads=4,
    patch_size=32,
    projection_dim=_DIM,
)
ARCFACE = ArcFaceConfig(layers=(1, 2, 2, 1), widths=(16, 32, 64, 64))

CONFIG = StableAnimatorConfig(
    unet=UNET,
    vae=VAE,
    image_encoder=IMAGE_ENCODER,
    face_encoder=FaceEncoderConfig(cross_attention_dim=_DIM, image_embedding_dim=_DIM),
    pose_net=PoseNetConfig(out_channels=UNET.block_out_channels[0]),
    arcface=ARCFACE,
)
"""The VAE's scaling factor is that of its latents once it is trained."""

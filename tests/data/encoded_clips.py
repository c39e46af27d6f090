"""Encoded clips without models: numbers that are simple functions of the frames' pixels."""

import numpy as np

from stableanimator_jax.data.encoded import (
    ENCODED_FILE,
    EncodedClips,
    Encoding,
    PixelClips,
    clip_files,
    encoded_folder,
    write_encoding,
)

ENCODING = Encoding(
    vae="a",
    image_encoder="b",
    image_encoder_dtype="float32",
    latent_channels=4,
    embedding_dim=3,
    noise_augmentation=0.02,
    seed=0,
)


def moments(frames: np.ndarray) -> np.ndarray:
    """[..., h, w, 8] of the corner of every 8x8 square."""
    corners = frames[..., ::8, ::8, :].astype(np.float16)
    return np.concatenate([corners, -corners, corners[..., :2] / 2], axis=-1)


def embedding(frames: np.ndarray) -> np.ndarray:
    return frames.mean(axis=(-3, -2), dtype=np.float32)


def write_encoded(clips: PixelClips) -> None:
    folder = encoded_folder(clips)
    folder.mkdir(exist_ok=True)
    write_encoding(folder / ENCODED_FILE, ENCODING, {})
    for index, file in enumerate(clip_files(clips)):
        clip = clips[index]
        pixels = clip.read_frames(range(clip.length))
        frames = np.empty(clip.length, ENCODING.record(clip.size))
        frames["moments"], frames["condition_moments"] = moments(pixels), moments(pixels) + np.float16(1)
        frames["image_embedding"] = embedding(pixels)
        np.save(folder / file, frames)


def opened(clips: PixelClips) -> EncodedClips:
    return EncodedClips(clips, vae="a", image_encoder="b")

"""Stage of the report: the face optimisation in torch, with diffusers' decoder under its own gradient checkpointing.

Chunk by chunk, as ours, in whole frames.
"""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
from torch import nn
from torch.nn import functional as F

from benchmarks._case import HJB_ITERATIONS, Case, Row, timed
from benchmarks._torch_unet import DEVICE, peak, time_steps, use_jax_defaults

FACE_SIZE = 112


class Block(nn.Module):
    """IResNet's residual block."""

    def __init__(self, width_in: int, width: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(width_in)
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.prelu = nn.PReLU(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        shortcut = nn.Sequential(nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        self.downsample = shortcut if stride > 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(y)) + self.downsample(x)


def iresnet(config: dict[str, Any]) -> nn.Sequential:
    """ArcFace's network."""
    widths = config["widths"]
    layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0])]
    layers.append(nn.PReLU(widths[0]))
    width_in = widths[0]
    for width, blocks in zip(widths, config["layers"], strict=True):
        for i in range(blocks):
            layers.append(Block(width_in, width, stride=1 if i else 2))
            width_in = width
    side = FACE_SIZE // 2**4
    layers += [nn.BatchNorm2d(width_in), nn.Flatten(), nn.Linear(width_in * side * side, config["embedding_dim"])]
    return nn.Sequential(*layers, nn.BatchNorm1d(config["embedding_dim"]))


def random_models(case: Case, dtype: torch.dtype) -> tuple[AutoencoderKLTemporalDecoder, nn.Sequential]:
    """The models with torch's own random initial weights, made on the device, their own gradients off."""
    config = case.config.vae
    torch.manual_seed(0)
    with torch.device(DEVICE):
        vae: Any = AutoencoderKLTemporalDecoder(
            in_channels=config.in_channels,
            out_channels=config.out_channels,
            down_block_types=("DownEncoderBlock2D",) * len(config.block_out_channels),  # pyright: ignore[reportArgumentType] (any number)
            block_out_channels=config.block_out_channels,  # pyright: ignore[reportArgumentType] (any number)
            layers_per_block=config.layers_per_block,
            latent_channels=config.latent_channels,
        )
        arcface = iresnet(asdict(case.config.arcface)).eval()
    # Checkpointing works in training mode only, which nothing else here depends on.
    vae.train().enable_gradient_checkpointing()
    return vae.to(DEVICE, dtype).requires_grad_(False), arcface.to(dtype).requires_grad_(False)


def measure(case: Case) -> Iterator[Row]:
    use_jax_defaults()
    frames, (height, width), (left, top, right, bottom) = case.frames, case.latent_size, case.face_box
    latents = torch.randn(frames, case.config.vae.latent_channels, height, width, device=DEVICE)
    reference = torch.randn(1, case.config.arcface.embedding_dim, device=DEVICE)
    for dtype in (torch.bfloat16, torch.float32):
        vae, arcface = random_models(case, dtype)

        def cosines(part: torch.Tensor, dtype=dtype, vae=vae, arcface=arcface) -> torch.Tensor:
            scaled = (part / case.config.vae.scaling_factor).to(dtype)
            images = (vae.decode(scaled, num_frames=len(part), return_dict=False)[0].float() / 2 + 0.5).clamp(0, 1)
            faces = images[:, :, top : bottom + 1, left : right + 1]
            crops = F.interpolate(faces, (FACE_SIZE, FACE_SIZE), mode="bilinear")
            return F.cosine_similarity(arcface((crops * 2 - 1).to(dtype)).float(), reference)

        similarities: list[float] = []

        def step(cosines=cosines, similarities=similarities) -> None:
            """A step of ours: the iterations, and the similarity after them."""
            x = latents.clone().requires_grad_()
            optimiser = torch.optim.Adam([x], lr=0.1)
            similarities.clear()
            for _ in range(HJB_ITERATIONS):
                optimiser.zero_grad()
                similarity = torch.zeros((), device=DEVICE)
                for start in range(0, frames, case.chunk):
                    found = cosines(x[start : start + case.chunk])
                    ((1 - found).abs().sum() / frames).backward()
                    similarity += found.detach().sum() / frames
                optimiser.step()
                similarities.append(similarity.item())
            with torch.no_grad():
                parts = [cosines(x[start : start + case.chunk]).sum() for start in range(0, frames, case.chunk)]
            similarities.append(float(sum(parts)) / frames)

        name = str(dtype).removeprefix("torch.")
        _, seconds = time_steps(step, case.repeats)
        yield timed(
            f"HJB step of {HJB_ITERATIONS} iterations, {name}, whole frames",
            *seconds,
            dtype=name,
            similarity=[similarities[0], similarities[-1]],
            **peak(),
        )

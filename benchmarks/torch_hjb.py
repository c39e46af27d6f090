"""Time the face optimisation in torch, with gradient checkpointing and chunk by chunk. `hjb.py` runs this.

    python benchmarks/torch_hjb.py JSON

JSON holds `vae` and `arcface` (a `VAEConfig` and an `ArcFaceConfig` as dictionaries), `height` and `width` of the
latents, the faces' `box` (left, top, right, bottom) in pixels, inclusive, `frames`, `chunk`, `iterations`, `repeat`,
`learning_rate`, `dtype`. The last line printed is a JSON list of [what, value].
"""

import json
import statistics
import sys
import time
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
from torch import nn
from torch.nn import functional as F

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


def random_models(asked: dict[str, Any], device: str) -> tuple[AutoencoderKLTemporalDecoder, nn.Sequential]:
    """The models with torch's own random initial weights, made on the device, their own gradients off."""
    config = asked["vae"]
    torch.manual_seed(0)
    with torch.device(device):
        vae = AutoencoderKLTemporalDecoder(
            in_channels=config["in_channels"],
            out_channels=config["out_channels"],
            down_block_types=("DownEncoderBlock2D",) * len(config["block_out_channels"]),  # pyright: ignore[reportArgumentType] (any number)
            block_out_channels=tuple(config["block_out_channels"]),  # pyright: ignore[reportArgumentType] (any number)
            layers_per_block=config["layers_per_block"],
            latent_channels=config["latent_channels"],
        )
        arcface = iresnet(asked["arcface"]).eval()
    # Checkpointing works in training mode only, which nothing else here depends on.
    vae.train().enable_gradient_checkpointing()
    dtype = getattr(torch, asked["dtype"])
    return vae.to(dtype).requires_grad_(False), arcface.to(dtype).requires_grad_(False)


def main(asked: dict[str, Any]) -> list[tuple[str, str]]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, asked["dtype"])
    # JAX's own defaults on a GPU: TF32, and algorithms chosen by timing them.
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    vae, arcface = random_models(asked, device)
    frames, chunk = asked["frames"], asked["chunk"]
    left, top, right, bottom = asked["box"]
    latents = torch.randn(frames, asked["vae"]["latent_channels"], asked["height"], asked["width"], device=device)
    reference = torch.randn(1, asked["arcface"]["embedding_dim"], device=device)

    def cosines(part: torch.Tensor) -> torch.Tensor:
        scaled = (part / asked["vae"]["scaling_factor"]).to(dtype)
        images = (vae.decode(scaled, num_frames=len(part), return_dict=False)[0].float() / 2 + 0.5).clamp(0, 1)
        crops = F.interpolate(images[:, :, top : bottom + 1, left : right + 1], (FACE_SIZE, FACE_SIZE), mode="bilinear")
        return F.cosine_similarity(arcface((crops * 2 - 1).to(dtype)).float(), reference)

    def iterate(optimiser: torch.optim.Optimizer, x: torch.Tensor) -> float:
        """One iteration, and the similarity before it."""
        optimiser.zero_grad()
        similarity = torch.zeros((), device=device)
        for start in range(0, frames, chunk):
            found = cosines(x[start : start + chunk])
            ((1 - found).abs().sum() / frames).backward()
            similarity += found.detach().sum() / frames
        optimiser.step()
        return similarity.item()  # which waits for the device

    seconds, similarities = [], []
    for _ in range(1 + asked["repeat"]):
        x = latents.clone().requires_grad_()
        optimiser = torch.optim.Adam([x], lr=asked["learning_rate"])
        similarities = []
        for _ in range(asked["iterations"]):
            start = time.perf_counter()
            similarities.append(iterate(optimiser, x))
            if device == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
        with torch.no_grad():
            after = sum(float(cosines(x[i : i + chunk]).sum()) for i in range(0, frames, chunk)) / frames
        similarities.append(after)
    rows = [
        ("first iteration", f"{seconds[0]:.4f} s"),
        ("an iteration (median)", f"{statistics.median(seconds[asked['iterations'] :]):.4f} s"),
        ("similarity before and after", f"{similarities[0]:.4f}, {similarities[-1]:.4f}"),
    ]
    if device == "cuda":
        rows.append(("peak memory", f"{torch.cuda.max_memory_allocated() / 1e9:.2f} GB"))
    return rows


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))

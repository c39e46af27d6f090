"""Time a guided step of Stable Video Diffusion's UNet in torch, plain and compiled. `denoise.py` runs this.

    python benchmarks/torch_unet.py JSON

JSON holds `unet` (a `UNetConfig` as a dictionary), `height` and `width` of the latents, `frames`, `steps`, `dtype`.
The last line printed is a JSON list of [what, value].
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel


def random_unet(config: dict[str, Any], frames: int, device: str, dtype: torch.dtype) -> Any:
    """The UNet with torch's own random initial weights, made on the device."""
    names = (
        "in_channels",
        "out_channels",
        "block_out_channels",
        "num_attention_heads",
        "layers_per_block",
        "cross_attention_dim",
        "addition_time_embed_dim",
        "projection_class_embeddings_input_dim",
    )
    values: dict[str, Any] = {
        name: tuple(config[name]) if isinstance(config[name], list) else config[name] for name in names
    }
    levels = len(config["block_out_channels"]) - 1
    values["down_block_types"] = ("CrossAttnDownBlockSpatioTemporal",) * levels + ("DownBlockSpatioTemporal",)
    values["up_block_types"] = ("UpBlockSpatioTemporal",) + ("CrossAttnUpBlockSpatioTemporal",) * levels
    torch.manual_seed(0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return UNetSpatioTemporalConditionModel(**values, num_frames=frames).eval()
    finally:
        torch.set_default_dtype(default)


def time_steps(step: Callable[[], Any], steps: int, device: str) -> tuple[float, list[float]]:
    """Seconds of the first call, and of each of `steps` calls after two more."""

    def run() -> float:
        start = time.perf_counter()
        step()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    first = run()
    for _ in range(2):
        run()
    return first, [run() for _ in range(steps)]


def main(asked: dict[str, Any]) -> list[tuple[str, str]]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, asked["dtype"])
    config, frames = asked["unet"], asked["frames"]
    unet = random_unet(config, frames, device, dtype)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=device, dtype=dtype)

    # Both guidance branches as one batch, as diffusers' own pipeline has it.
    sample = random(2, frames, config["in_channels"], asked["height"], asked["width"])
    context = random(2, 1, config["cross_attention_dim"])
    time_ids = torch.tensor([[6.0, 127.0, 0.02]] * 2, device=device, dtype=dtype)
    timestep = torch.tensor(1.6, device=device)

    rows = []
    for name, model in (("plain", unet), ("torch.compile", torch.compile(unet))):
        with torch.inference_mode():
            first, seconds = time_steps(lambda m=model: m(sample, timestep, context, time_ids), asked["steps"], device)
        rows.append((f"{name}, a guided step (median)", f"{statistics.median(seconds):.4f} s"))
        rows.append((f"{name}, first step", f"{first:.1f} s"))
    if device == "cuda":
        rows.append(("peak memory", f"{torch.cuda.max_memory_allocated() / 1e9:.2f} GB"))
    return rows


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))

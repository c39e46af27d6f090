"""Time a training step of Stable Video Diffusion's UNet in torch, as it is usually finetuned. `train.py` runs this.

    python benchmarks/torch_train.py JSON

JSON holds `unet` (a `UNetConfig` as a dictionary), `height` and `width` of the latents, `frames`, `batch`, `trained`
(parameters with this in their names; "" is all), `steps`, `dtype`. The last line printed is a JSON list of
[what, value].
"""

import json
import statistics
import sys
from typing import Any

import torch
from torch import nn

if __package__:
    from benchmarks.torch_unet import random_unet, time_steps
else:
    from torch_unet import random_unet, time_steps


def trained_parameters(unet: nn.Module, named: str, dtype: torch.dtype) -> list[nn.Parameter]:
    """Parameters with `named` in their names, float32; the others are frozen, kernels among them in `dtype`."""
    for module_name, module in unet.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if named in f"{module_name}.{name}":
                continue
            parameter.requires_grad_(False)
            if isinstance(module, (nn.Linear, nn.Conv2d, nn.Conv3d)):  # norms stay exact
                parameter.data = parameter.data.to(dtype)
    return [parameter for parameter in unet.parameters() if parameter.requires_grad]


def main(asked: dict[str, Any]) -> list[tuple[str, str]]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, asked["dtype"])
    # JAX's own defaults on a GPU: TF32, and algorithms chosen by timing them.
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    config, frames, batch = asked["unet"], asked["frames"], asked["batch"]
    unet = random_unet(config, frames, device, torch.float32).train()
    unet.enable_gradient_checkpointing()
    trained = trained_parameters(unet, asked["trained"], dtype)
    optimiser = torch.optim.AdamW(trained, lr=1e-5, weight_decay=1e-2, fused=device == "cuda")

    latents = torch.randn(batch, frames, config["in_channels"] // 2, asked["height"], asked["width"], device=device)
    condition = torch.randn_like(latents)
    context = torch.randn(batch, 1, config["cross_attention_dim"], device=device)
    time_ids = torch.tensor([[6.0, 127.0, 0.02]] * batch, device=device)
    losses = []

    def step() -> None:
        sigma = torch.randn(batch, 1, 1, 1, 1, device=device).exp()
        noisy = latents + sigma * torch.randn_like(latents)
        sample = torch.cat([noisy / (sigma**2 + 1).sqrt(), condition], dim=2)
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            prediction = unet(sample, 0.25 * sigma.flatten().log(), context, time_ids, return_dict=False)[0]
        denoised = noisy / (sigma**2 + 1) - prediction.float() * sigma / (sigma**2 + 1).sqrt()
        loss = ((1 + sigma**2) / sigma**2 * (denoised - latents) ** 2).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())  # which waits for the device

    first, seconds = time_steps(step, asked["steps"], device)
    if not torch.tensor(losses).isfinite().all():
        raise FloatingPointError(f"the losses are {losses}")
    rows = [
        ("trained parameters", f"{sum(parameter.numel() for parameter in trained) / 1e6:.1f} M"),
        ("a step (median)", f"{statistics.median(seconds):.4f} s"),
        ("first step", f"{first:.1f} s"),
    ]
    if device == "cuda":
        rows.append(("peak memory", f"{torch.cuda.max_memory_allocated() / 1e9:.2f} GB"))
    return rows


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))

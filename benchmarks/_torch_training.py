"""Stage of the report: a training step of diffusers' SVD UNet in torch, as it is usually finetuned.

Gradient checkpointing, autocast to bfloat16, frozen kernels in bfloat16, fused AdamW on the same parameters as ours but
for those that it has not (ID adapters, PoseNet, Face Encoder).
"""

from collections.abc import Iterator
from dataclasses import asdict

import torch
from torch import nn

from benchmarks._case import Case, Row, timed
from benchmarks._torch_unet import DEVICE, peak, random_unet, time_steps, use_jax_defaults

DTYPE = torch.bfloat16 if DEVICE == "cuda" else torch.float32


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


def measure(case: Case) -> Iterator[Row]:
    use_jax_defaults()
    config, (height, width) = asdict(case.config.unet), case.latent_size
    unet = random_unet(config, case.frames, DEVICE, torch.float32).train()
    unet.enable_gradient_checkpointing()
    trained = trained_parameters(unet, "attentions", DTYPE)
    optimiser = torch.optim.AdamW(trained, lr=1e-5, weight_decay=1e-2, fused=DEVICE == "cuda")

    latents = torch.randn(1, case.frames, config["in_channels"] // 2, height, width, device=DEVICE)
    condition = torch.randn_like(latents)
    context = torch.randn(1, 1, config["cross_attention_dim"], device=DEVICE)
    time_ids = torch.tensor([[6.0, 127.0, 0.02]], device=DEVICE)
    losses = []

    def step() -> None:
        sigma = torch.randn(1, 1, 1, 1, 1, device=DEVICE).exp()
        noisy = latents + sigma * torch.randn_like(latents)
        sample = torch.cat([noisy / (sigma**2 + 1).sqrt(), condition], dim=2)
        with torch.autocast(DEVICE, DTYPE, enabled=torch.float32 != DTYPE):
            prediction = unet(sample, 0.25 * sigma.flatten().log(), context, time_ids, return_dict=False)[0]
        denoised = noisy / (sigma**2 + 1) - prediction.float() * sigma / (sigma**2 + 1).sqrt()
        loss = ((1 + sigma**2) / sigma**2 * (denoised - latents) ** 2).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())  # which waits for the device

    _, seconds = time_steps(step, case.steps)
    if not torch.tensor(losses).isfinite().all():
        raise FloatingPointError(f"the losses are {losses}")
    yield timed("training step, encoded clips", *seconds, dtype=str(DTYPE).removeprefix("torch."), **peak())

"""Stage of the report: a guided step of Stable Video Diffusion's UNet as diffusers has it, plain and compiled.

As fast as torch goes: float16 as ours, cuDNN's attention before the others, the faster of both layouts in memory.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import torch
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks._case import Case, Row, timed

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPE = torch.float16 if DEVICE == "cuda" else torch.float32
# On Hopper torch would choose another than cuDNN's attention, which is the fastest there.
ATTENTION = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


def use_jax_defaults() -> None:
    """JAX's own on a GPU: TF32, and algorithms chosen by timing them."""
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True


def machine() -> str:
    """The device, as the other stages name it."""
    return f"1 x {torch.cuda.get_device_name()} (torch)" if DEVICE == "cuda" else "CPU (torch)"


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
            unet: Any = UNetSpatioTemporalConditionModel(**values, num_frames=frames).eval()
        return unet.to(device)  # diffusers makes the blending factors on the CPU, whatever the default device
    finally:
        torch.set_default_dtype(default)


def time_steps(step: Callable[[], Any], steps: int) -> tuple[float, list[float]]:
    """Seconds of the first call, and of each of `steps` calls after two more."""

    def run() -> float:
        start = time.perf_counter()
        step()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    first = run()
    for _ in range(2):
        run()
    return first, [run() for _ in range(steps)]


def peak() -> Row:
    """Most memory that torch's tensors took, where it counts them."""
    return {"peak": torch.cuda.max_memory_allocated()} if DEVICE == "cuda" else {}


def channels_last(module: torch.nn.Module) -> None:
    """Keep the kernels of convolutions as Hopper's tensor cores take them; activations follow."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in module.parameters():
        if parameter.ndim in formats:
            parameter.data = parameter.data.contiguous(memory_format=formats[parameter.ndim])


def measure(case: Case) -> Iterator[Row]:
    use_jax_defaults()
    config, (height, width) = asdict(case.config.unet), case.latent_size
    unet = random_unet(config, case.frames, DEVICE, DTYPE)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=DEVICE, dtype=DTYPE)

    # Both guidance branches as one batch, as diffusers' own pipeline has it.
    inputs = (
        random(2, case.frames, config["in_channels"], height, width),
        torch.tensor(1.6, device=DEVICE),
        random(2, 1, config["cross_attention_dim"]),
        torch.tensor([[6.0, 127.0, 0.02]] * 2, device=DEVICE, dtype=DTYPE),
    )
    dtype = str(DTYPE).removeprefix("torch.")

    def time_model(model: Callable[..., Any]) -> tuple[float, list[float]]:
        with torch.inference_mode(), sdpa_kernel(ATTENTION, set_priority=True):
            return time_steps(lambda: model(*inputs), case.steps)

    _, plain = time_model(unet)
    yield timed("guided step, plain", *plain, dtype=dtype, **peak())
    original = {name: parameter.data for name, parameter in unet.named_parameters()}
    channels_last(unet)
    _, last = time_model(unet)
    yield timed("guided step, plain, channels last", *last, dtype=dtype, **peak())
    if statistics.median(plain) < statistics.median(last):
        for name, parameter in unet.named_parameters():
            parameter.data = original[name]
    del original
    # On a CPU this only has to work, and torch's compiler would need one of C++.
    compiled = torch.compile(unet, backend="inductor" if DEVICE == "cuda" else "eager")
    first, seconds = time_model(compiled)
    yield timed("first guided step, compiled", first, dtype=dtype)
    yield timed("guided step, compiled", *seconds, dtype=dtype, **peak())

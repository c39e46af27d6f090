"""What each system of SVD's family takes: parameters, arithmetic of a guided step and of decoding. Counted, not run.

    python -m benchmarks.family            # two minutes on 2 cores; --only KIND for one
    python -m benchmarks.gpu_program --kind KIND --frames N --width W --height H     # the memory of its step on a GPU

docs/family.md holds what it prints.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import replace

from stableanimator_jax.config import Kind, StableAnimatorConfig
from stableanimator_jax.family import FAMILY, member
from stableanimator_jax.models.flops import matmul_flops
from stableanimator_jax.sampling.config import SamplingConfig
from stableanimator_jax.sampling.decode import decode_chunk
from stableanimator_jax.sampling.denoiser import predict
from stableanimator_jax.sampling.forecast import abstract_model, array, control_flops, step_arguments
from stableanimator_jax.weights.rules import flatten

CASES: tuple[tuple[str, Kind, int, int, int], ...] = (
    ("StableAnimator", "stableanimator", 576, 1024, 16),
    ("MimicMotion 1.1", "mimicmotion", 576, 1024, 72),
    ("SVD", "svd", 1024, 576, 14),
    ("SVD-XT", "svd", 1024, 576, 25),
    ("AnimateLCM-SVD-xt", "animatelcm", 1024, 576, 25),
    ("ControlNeXt-SVD-v2", "controlnext", 576, 1024, 24),
)
"""Name, kind, width, height, and frames that the UNet sees at once, as published."""


def configuration(kind: Kind, config: StableAnimatorConfig | None = None) -> StableAnimatorConfig:
    """The published model of a kind, or as small a one as `config`."""
    config = StableAnimatorConfig() if config is None else config
    injection = "distribution_aware" if FAMILY[kind].takes_face else "none"
    control = replace(config.control_net, out_channels=config.unet.block_out_channels[0])
    return replace(config, kind=kind, unet=replace(config.unet, id_injection=injection), control_net=control)


def row(name: str, config: StableAnimatorConfig, width: int, height: int, frames: int) -> str:
    """One of the table's."""

    sampling = SamplingConfig.published(config.kind)
    models = [abstract_model(config, model, "float16", array) for model in member(config).models]
    leaves = [leaf for model in models for leaf in flatten(model.params).items()]
    used = [leaf for path, leaf in leaves if config.unet.takes_faces or not {"id_to_k", "id_to_v"} & set(path)]
    parameters = sum(math.prod(leaf.shape) for leaf in used)
    step = matmul_flops(predict, *step_arguments(config, frames, width, height, "float16", array))
    step += control_flops(config, frames, width, height, "float16")
    chunk = min(sampling.decode_chunk, frames)
    latents = array(chunk, height // config.vae.downscale, width // config.vae.downscale, config.vae.latent_channels)
    decoding = matmul_flops(decode_chunk, abstract_model(config, "vae", "float32", array), latents) * frames / chunk
    cells = (name, f"{width}x{height}", frames, f"{parameters / 1e6:,.0f}", sampling.steps)
    return "| " + " | ".join(map(str, (*cells, f"{step / 1e12:.1f}", f"{decoding / 1e12:.1f}"))) + " |"


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="family.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=tuple(FAMILY))
    parser.add_argument("--tiny", action="store_true", help="as small as tests need it")
    options = parser.parse_args(argv)
    print("| | size | frames at once | million parameters | steps | TFLOP a guided step | TFLOP to decode them |")
    print("|---|---|---|---|---|---|---|")
    for name, kind, width, height, frames in CASES:
        if options.only in (None, kind):
            small = StableAnimatorConfig.tiny() if options.tiny else None
            size = (64, 64, 2) if options.tiny else (width, height, frames)
            print(row(name, configuration(kind, small), *size), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

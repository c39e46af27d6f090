"""Torch modules with the golden cases' kind of weights: norms, biases and mix factors that all differ."""

from typing import Any

import numpy as np

from tests.golden.reference_weights import reference_array

# Their outputs meet no norm before another layer has seen them.
INSIDE_A_BRANCH = (".to_q.weight", ".to_k.weight", ".to_v.weight", ".net.0.proj.weight", ".proj_out.weight")


def fill_with_reference_weights(module: Any, gain: float = 1.0) -> None:
    """Give every parameter of diffusers' UNet or VAE a value of its own: torch's own start hides mistakes.

    `gain` multiplies every bias, and every kernel whose output a norm sees, itself or in a residual stream: with a
    small one, a norm's input is no larger than its eps.
    """
    import torch

    weights = {key: reference_array(f"parity.{key}", value.shape) for key, value in module.state_dict().items()}
    for key, value in weights.items():
        kernel = value.ndim > 1 and not key.endswith(INSIDE_A_BRANCH)
        if kernel or (key.endswith(".bias") and ".norm" not in key and "_norm" not in key):
            value *= np.float32(gain)
    module.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})

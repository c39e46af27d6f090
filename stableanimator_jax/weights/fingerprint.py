"""Whether two checkpoints hold the same model, by a hash of its values and configuration."""

import dataclasses
import hashlib
import json

import numpy as np

from stableanimator_jax.weights.checkpoint import stream_params
from stableanimator_jax.weights.opening import open_checkpoint


def fingerprint(checkpoint: str, model: str) -> str:
    """SHA-256, in hexadecimal digits, of one model's configuration and parameters.

    Values count, not how they are stored: the same in bfloat16 and in float32 have the same fingerprint. The
    parameters are read from disk one after the other; no device is needed.

    Raises:
        InputError: there is no such checkpoint, it lacks the model, or is damaged.
    """
    source = open_checkpoint(checkpoint)
    tensors = stream_params(source.path, model)
    # Every stored dtype is exact in float32.
    values = ((name, np.ascontiguousarray(array, np.dtype("<f4"))) for name, array in tensors)
    digests = {name: [list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()] for name, array in values}
    whole = {"config": dataclasses.asdict(getattr(source.config, model)), "parameters": digests}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()

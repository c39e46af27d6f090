"""Run as a program: every gradient of the training objective in float64, with the models' explicit float32 too.

python -m tests.training.float64_objective CONFIG.json CASE.npz OUT.npz
"""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)
setattr(jnp, "float32", jnp.float64)  # noqa: B010  # before any of the package has seen it

from stableanimator_jax.config import StableAnimatorConfig  # noqa: E402
from tests.training import objective_case  # noqa: E402


def main(config_file: str, case_file: str, out_file: str) -> None:
    config = StableAnimatorConfig.from_dict(json.loads(Path(config_file).read_text()))
    with np.load(case_file) as case:
        batch, draws = objective_case.batch_and_draws(dict(case), jnp.float64)
    models = objective_case.reference_models(config, jnp.float64)
    run = jax.jit(objective_case.error_and_gradients, compiler_options={"xla_backend_optimization_level": 0})
    error, gradients = run(models, batch, draws)
    arrays = objective_case.by_published_name(config, gradients)
    arrays |= {"prediction": np.asarray(error.prediction), "loss": np.asarray(error.losses.mean())}
    assert all(array.dtype == np.float64 for array in arrays.values())
    np.savez(out_file, **arrays)  # pyright: ignore[reportArgumentType]  # its stub takes names for options


if __name__ == "__main__":
    main(*sys.argv[1:])

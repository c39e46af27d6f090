"""Checkpoints of SVD's relatives with the golden cases' weights, made through import from files of published layout."""

from pathlib import Path

from stableanimator_jax.config import Kind
from stableanimator_jax.weights.importing import import_weights
from tests.make_stand_ins import make_relative, make_svd, tiny_config

GOLDEN: dict[str, Kind] = {
    "mimicmotion_sampler": "mimicmotion",
    "svd_pipeline": "svd",
    "lcm_svd_sampler": "animatelcm",
    "controlnext_sampler": "controlnext",
}
"""Whose sampling each golden case is."""


def golden_checkpoint(name: str, folder: Path) -> Path:
    """Make the checkpoint of one golden case in `folder`, an existing directory, and return its path.

    Its weights take the way of a user's: they are written as the files that the system is published as, and imported.
    SVD's own UNet, where the relative brings one, has other values, so that it would show if it were taken.
    """
    kind = GOLDEN[name]
    config, svd, own = tiny_config(kind), folder / "SVD", folder / kind
    make_svd(svd, config, unet="unet." if kind == "svd" else "svd.unet.")
    given: dict[str, str] = {}
    if kind != "svd":
        make_relative(own, kind, config, file_format="safetensors")
        given[kind] = str(own)
    import_weights(folder / "checkpoint", svd=str(svd), **given)
    return folder / "checkpoint"

"""A VAE whose norms have fewer groups than diffusers' have, as the wider one that computes the same.

diffusers' `AutoencoderKLTemporalDecoder` has 32 groups written in. Channels of zeros at the end of every level make a
VAE of fewer groups into one of 32 that are as large as its own. Its channels are then normalised in the same groups as
before, and zeros stay zeros in every layer. Attention alone asks how wide it is, by whose square root it divides;
queries that are larger make up for that.
"""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from stableanimator_jax.config import StableAnimatorConfig, VAEConfig
from stableanimator_jax.errors import InputError
from stableanimator_jax.models.catalogue import blueprint
from stableanimator_jax.weights.rules import Shape, plan_export
from stableanimator_jax.weights.state_dict_files import StateDictFile
from stableanimator_jax.weights.tables import tables

DIFFUSERS_GROUPS = 32


def wider(config: VAEConfig) -> VAEConfig:
    """The VAE of diffusers' groups that computes what this one does; itself where it has as many, or more."""
    if config.norm_num_groups >= DIFFUSERS_GROUPS:
        return config
    channels = tuple(n // config.norm_num_groups * DIFFUSERS_GROUPS for n in config.block_out_channels)
    return replace(config, block_out_channels=channels, norm_num_groups=DIFFUSERS_GROUPS)


def vae_shapes(config: StableAnimatorConfig) -> dict[str, Shape]:
    """The shape of every tensor of a configuration's VAE in PyTorch's layout, by its key there."""
    plan = plan_export(tables(config)["vae"], blueprint(config, "vae").abstract_params())
    return {a.key: a.source_shape for a in plan}


def widen(key: str, array: np.ndarray, shape: Shape) -> np.ndarray:
    """One tensor, in PyTorch's layout, as the wider VAE of that shape has it."""
    padding = [(0, large - small) for small, large in zip(array.shape, shape, strict=True)]
    return np.pad(array * _larger(array.shape, shape) if _is_query(key) else array, padding)


class Narrowed(StateDictFile):
    """A wider VAE's tensors as those of the configuration's VAE, which it was made of. Others show as they are."""

    def __init__(self, file: StateDictFile, config: StableAnimatorConfig):
        self._file = file
        self.files = file.files
        small, large = vae_shapes(config), vae_shapes(replace(config, vae=wider(config.vae)))
        self.shapes = {key: small[key] if shape == large.get(key) else shape for key, shape in file.shapes.items()}

    def __getitem__(self, key: str) -> np.ndarray:
        array, shape = self._file[key], self.shapes[key]
        if array.shape == shape:
            return array
        own = array[tuple(slice(n) for n in shape)]
        if np.count_nonzero(array) != np.count_nonzero(own):
            raise InputError(
                f"{self.files[0]}: {key} is not zero where export leaves zeros, so this VAE is wider than this "
                "project's config.json says; put block_out_channels and norm_num_groups of SVD/vae/config.json there"
            )
        # Integers stay what they are, to be refused by whoever reads them.
        divided = _is_query(key) and jnp.issubdtype(own.dtype, jnp.floating)
        return own / _larger(shape, array.shape) if divided else own


def _is_query(key: str) -> bool:
    return ".to_q." in key


def _larger(small: Shape, large: Shape) -> np.float32:
    """What queries are multiplied by. A power of two, and so exact, where the groups were 8 or 2."""
    return np.float32((large[0] / small[0]) ** 0.5)

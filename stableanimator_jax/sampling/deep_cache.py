"""DeepCache (Ma et al. 2023): the UNet's deep features of one step, used again in the steps after it.

What changes from one noise level to the next is mostly in the layers of high resolution. In between steps that run the
whole UNet, the others take what came from its depths as it was, and run the layers above only.
"""

from functools import partial

import jax
from jaxtyping import Array, Float

from stableanimator_jax.config import UNetConfig
from stableanimator_jax.errors import InputError
from stableanimator_jax.models.functional import Model
from stableanimator_jax.models.unet import UNet, preconditioned
from stableanimator_jax.sampling.denoiser import Place, Rows
from stableanimator_jax.sampling.programs import kept


def check_branch(config: UNetConfig, branch: int) -> None:
    """Raise `InputError` where a UNet has no such branch."""
    highest = config.skip_connections - 2
    if not 0 <= branch <= highest:
        raise InputError(f"cache-branch must be from 0 to {highest} for this UNet, got {branch}")


class DeepCache:
    """A `denoiser.Predict` that runs the whole UNet every `interval`-th step.

    Holds one array for every row of a step: of 512x512 and branch 0, 42 MB a window and guidance branch in 16 bits.

    Args:
        unet: the model.
        interval: steps from one whole run to the next, at least 2.
        branch: how much the others compute: the layers above the skip connection of this number, from 0.

    Raises:
        InputError: see `check_branch`.
    """

    def __init__(self, unet: Model[UNet], interval: int, branch: int):
        check_branch(unet.blueprint.config, branch)
        self.unet, self.interval, self.branch = unet, interval, branch
        self._kept: dict[Place, _Kept] = {}

    def __call__(self, rows: Rows, sigma: Float[Array, ""], place: Place) -> Float[Array, "r w h w2 c"]:
        if any(kept.branches != place.branches for kept in self._kept):
            self.forget()  # guidance began or ended: these are other rows
        deep, age = self._kept.get(place, (None, 0))
        if deep is None or age == self.interval:
            prediction, deep = predict_keeping(self.unet, rows, sigma, branch=self.branch)
            age = 0
        else:
            prediction = predict_reusing(self.unet, rows, sigma, deep, branch=self.branch)
        self._kept[place] = (deep, age + 1)
        return prediction

    @property
    def begins_anew(self) -> bool:
        """Whether the next step runs the whole UNet, whatever was kept."""
        return all(age == self.interval for _, age in self._kept.values())

    def forget(self) -> None:
        """Let the next step run the whole UNet: what it works on is no longer near what was kept."""
        self._kept.clear()


_Kept = tuple[Array, int]


@kept
@partial(jax.jit, static_argnames="branch")
def predict_keeping(
    unet: Model[UNet], rows: Rows, sigma: Float[Array, ""], *, branch: int
) -> tuple[Float[Array, "r w h w2 c"], Float[Array, "r w h2 w3 c2"]]:
    """The UNet's v-prediction for every row, and the deep features to reuse."""
    return unet.module().keep_deep(*preconditioned(rows.latents, sigma), rows.conditioning, branch)


@kept
@partial(jax.jit, static_argnames="branch")
def predict_reusing(
    unet: Model[UNet], rows: Rows, sigma: Float[Array, ""], deep: Float[Array, "r w h2 w3 c2"], *, branch: int
) -> Float[Array, "r w h w2 c"]:
    """The v-prediction by the layers above `branch` alone."""
    return unet.module().reuse_deep(*preconditioned(rows.latents, sigma), rows.conditioning, deep, branch)

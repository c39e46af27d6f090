"""The temporal VAE against diffusers' own, at sizes other than the golden case's."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from stableanimator_jax.config import VAEConfig
from stableanimator_jax.models.functional import Blueprint, Model
from stableanimator_jax.models.vae import VAE
from stableanimator_jax.weights.tables import VAE as TABLE
from tests.golden_data import assert_close
from tests.golden_models import FLOAT32, channels_last
from tests.models.torch_reference import fill_with_reference_weights
from tests.weights.state_dicts import convert

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.parity
torch.set_num_threads(1)  # its threads spin while they wait: seconds a call where others use the cores too

# Compiling is most of the time here, and LLVM's optimisations most of compiling.
COMPILER_OPTIONS: Any = {"xla_backend_optimization_level": 0}

# Each with the latents' [batch, frames, height, width].
CASES = [
    (VAEConfig(block_out_channels=(32, 64), layers_per_block=1), (2, 1, 5, 3)),
    (VAEConfig(block_out_channels=(64, 32, 96), layers_per_block=2, latent_channels=3), (1, 5, 2, 7)),
    (VAEConfig(block_out_channels=(32, 64), layers_per_block=3, latent_channels=6), (2, 3, 4, 6)),
    (VAEConfig(block_out_channels=(32, 32, 64, 32), layers_per_block=1), (1, 4, 3, 2)),
]


def torch_vae(config: VAEConfig, gain: float = 1.0):
    vae = diffusers.AutoencoderKLTemporalDecoder(
        down_block_types=("DownEncoderBlock2D",) * len(config.block_out_channels),
        block_out_channels=config.block_out_channels,
        layers_per_block=config.layers_per_block,
        latent_channels=config.latent_channels,
    )
    fill_with_reference_weights(vae, gain)
    return vae.eval()


def converted(vae, config: VAEConfig) -> Model[VAE]:
    blueprint = Blueprint(VAE, config, FLOAT32)
    state_dict = {key: value.detach().numpy() for key, value in vae.state_dict().items()}
    params = convert(TABLE, state_dict, blueprint.abstract_params())
    return Model(jax.tree.map(jnp.asarray, params), blueprint)


def encode(model: Model[VAE], images):
    return model.module().encode(images)


def decode(model: Model[VAE], latents, direction):
    """The frames, and the gradient of their product with `direction` with respect to the latents."""
    frames, pull_back = jax.vjp(model.module().decode, latents)
    return frames, pull_back(direction)[0]


run_encode = jax.jit(encode, compiler_options=COMPILER_OPTIONS)
run_decode = jax.jit(decode, compiler_options=COMPILER_OPTIONS)


def check_encode(config: VAEConfig, shape: tuple[int, ...], gain: float = 1.0):
    published = torch_vae(config, gain)
    batch, _, *size = shape
    images = 2 * torch.rand(batch, 3, *(config.downscale * n for n in size)) - 1
    with torch.no_grad():
        posterior = published.encode(images).latent_dist
    mean, logvar = run_encode(converted(published, config), channels_last(images.numpy()))
    assert_close(mean, channels_last(posterior.mean.numpy()), 1e-4)
    assert_close(logvar, channels_last(posterior.logvar.numpy()), 1e-4)


def check_decode(config: VAEConfig, shape: tuple[int, ...], gain: float = 1.0):
    published = torch_vae(config, gain)
    batch, frames, *size = shape
    latents = torch.randn(batch * frames, config.latent_channels, *size, requires_grad=True)
    expected = published.decode(latents, num_frames=frames).sample
    direction = torch.randn_like(expected)
    (expected * direction).sum().backward()

    def videos(array):
        return channels_last(array.numpy()).reshape(batch, frames, *array.shape[2:], array.shape[1])

    out, gradient = run_decode(converted(published, config), videos(latents.detach()), videos(direction))
    assert_close(out, videos(expected.detach()), 1e-4)
    assert_close(gradient, videos(latents.grad), 1e-4)


def name(value) -> str:
    if isinstance(value, VAEConfig):
        return f"{'-'.join(map(str, value.block_out_channels))}x{value.layers_per_block}"
    return "x".join(map(str, value))


@pytest.fixture(autouse=True)
def same_draws():
    torch.manual_seed(0)


@pytest.mark.parametrize(("config", "shape"), CASES, ids=name)
def test_encoded_moments(config, shape):
    check_encode(config, shape)


@pytest.mark.parametrize(("config", "shape"), CASES, ids=name)
def test_decoded_frames_and_their_gradient(config, shape):
    check_decode(config, shape)


@pytest.mark.parametrize("check", [check_encode, check_decode])
def test_where_every_norm_sees_little_but_its_eps(check):
    check(*CASES[0], gain=2e-3)

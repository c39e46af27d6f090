"""The UNet without pose and face tokens against diffusers' own, at sizes other than the golden case's."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stableanimator_jax.config import UNetConfig
from stableanimator_jax.models.conditioning import Conditioning
from stableanimator_jax.models.functional import Blueprint, Model
from stableanimator_jax.models.unet import UNet
from stableanimator_jax.weights.tables import UNET, add_id_adapter
from tests.golden_data import assert_close
from tests.golden_models import FLOAT32, channels_last
from tests.models.torch_reference import fill_with_reference_weights
from tests.weights.state_dicts import convert, export

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.parity
torch.set_num_threads(1)  # its threads spin while they wait: seconds a call where others use the cores too

# Compiling is most of the time here, and LLVM's optimisations most of compiling.
COMPILER_OPTIONS: Any = {"xla_backend_optimization_level": 0}


def small(widths, heads, layers_per_block, context=24, time_ids=16, channels=(8, 4)) -> UNetConfig:
    return UNetConfig(
        in_channels=channels[0],
        out_channels=channels[1],
        block_out_channels=widths,
        num_attention_heads=heads,
        layers_per_block=layers_per_block,
        cross_attention_dim=context,
        addition_time_embed_dim=time_ids,
        projection_class_embeddings_input_dim=3 * time_ids,
    )


# Each with a video's [batch, frames, height, width].
CASES = [
    (small((32, 64), (1, 4), 1), (2, 1, 6, 10)),
    (small((64, 32), (4, 2), 3, context=40, channels=(6, 3)), (1, 3, 2, 14)),
    (small((64, 96, 128), (2, 3, 8), 2, time_ids=10), (2, 5, 4, 12)),
    (small((32, 96, 64, 32), (2, 6, 1, 2), 1), (1, 2, 8, 24)),
]
GRADIENT_CASE = (small((64, 96), (2, 4), 1, context=32), (2, 3, 4, 6))


def torch_unet(config: UNetConfig, gain: float = 1.0):
    levels = len(config.block_out_channels)
    unet = diffusers.UNetSpatioTemporalConditionModel(
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        down_block_types=("CrossAttnDownBlockSpatioTemporal",) * (levels - 1) + ("DownBlockSpatioTemporal",),
        up_block_types=("UpBlockSpatioTemporal",) + ("CrossAttnUpBlockSpatioTemporal",) * (levels - 1),
        block_out_channels=config.block_out_channels,
        addition_time_embed_dim=config.addition_time_embed_dim,
        projection_class_embeddings_input_dim=config.projection_class_embeddings_input_dim,
        layers_per_block=config.layers_per_block,
        cross_attention_dim=config.cross_attention_dim,
        num_attention_heads=config.num_attention_heads,
    )
    fill_with_reference_weights(unet, gain)
    return unet.eval()


def converted(unet, config: UNetConfig) -> Model[UNet]:
    blueprint = Blueprint(UNet, config, FLOAT32)
    state_dict = {key: value.detach().numpy() for key, value in unet.state_dict().items()}
    params = convert(UNET, add_id_adapter(state_dict), blueprint.abstract_params())
    return Model(jax.tree.map(jnp.asarray, params), blueprint)


def torch_inputs(config: UNetConfig, shape: tuple[int, int, int, int]) -> dict[str, Any]:
    """By diffusers' names; every video of the batch has its own timestep, token and time ids."""
    batch, frames, height, width = shape
    generator = torch.Generator().manual_seed(sum(shape))

    def normal(*shape: int):
        return torch.randn(shape, generator=generator)

    return {
        "sample": normal(batch, frames, config.in_channels, height, width),
        "timestep": normal(batch),
        "encoder_hidden_states": normal(batch, 1, config.cross_attention_dim),
        "added_time_ids": torch.tensor([[6.0, 127.0, 0.02], [11.0, 40.0, 0.1]])[:batch],
    }


def our_inputs(inputs: dict[str, Any]) -> tuple[jax.Array, ...]:
    sample, timestep, context, time_ids = (jnp.asarray(x.detach().numpy()) for x in inputs.values())
    return jnp.moveaxis(sample, 2, -1), timestep, context[:, 0], time_ids


def predict(model: Model[UNet], sample, timestep, image_embedding, time_ids):
    latents, beside = jnp.split(sample, [model.blueprint.config.out_channels], axis=-1)
    return model.module()(latents, timestep, Conditioning(image_embedding, None, time_ids, beside))


run = jax.jit(predict, compiler_options=COMPILER_OPTIONS)


def name(value) -> str:
    if isinstance(value, UNetConfig):
        return f"{'-'.join(map(str, value.block_out_channels))}x{value.layers_per_block}"
    return "x".join(map(str, value))


def check_output(config, shape, gain=1.0):
    published = torch_unet(config, gain)
    inputs = torch_inputs(config, shape)
    with torch.no_grad():
        expected = published(**inputs).sample.numpy()
    assert_close(run(converted(published, config), *our_inputs(inputs)), channels_last(expected), 1e-4)


@pytest.mark.parametrize(("config", "shape"), CASES, ids=name)
def test_output(config, shape):
    check_output(config, shape)


def test_output_where_every_norm_sees_little_but_its_eps():
    check_output(*CASES[0], gain=2e-3)


def test_gradients():
    """With respect to the sample, the image token and every parameter."""
    config, shape = GRADIENT_CASE
    published = torch_unet(config)
    inputs = torch_inputs(config, shape)
    sample, context = inputs["sample"].requires_grad_(), inputs["encoder_hidden_states"].requires_grad_()
    expected = published(**inputs).sample
    direction = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0))
    (expected * direction).sum().backward()

    wanted = jnp.asarray(channels_last(direction.numpy()))

    def loss(model, *inputs):
        out = predict(model, *inputs)
        return jnp.sum(out * wanted), out

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 3), has_aux=True), compiler_options=COMPILER_OPTIONS)
    (by_model, by_sample, by_image), out = gradient(converted(published, config), *our_inputs(inputs))
    assert_close(out, channels_last(expected.detach().numpy()), 1e-4)
    assert_close(by_sample, channels_last(sample.grad.numpy()), 1e-4)
    assert_close(by_image, context.grad.numpy()[:, 0], 1e-4)

    by_parameter = export(UNET, by_model.params)
    for key, parameter in published.named_parameters():
        expected = parameter.grad.numpy()
        error = np.linalg.norm(by_parameter.pop(key) - expected)
        # The second term is rounding where the true gradient is 0, as of all that one token's softmax ignores.
        assert error <= 1e-4 * np.linalg.norm(expected) + 1e-5, key
    # What is left is the ID adapter's, and nothing passed through it.
    assert len(by_parameter) == 8
    assert all(".id_to_" in key and not gradient.any() for key, gradient in by_parameter.items())

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from stableanimator_jax.config import ImageEncoderConfig
from stableanimator_jax.models.image_encoder import ImageEncoder
from stableanimator_jax.models.layers import Precision
from stableanimator_jax.weights.tables import IMAGE_ENCODER
from tests.golden_data import assert_close
from tests.models.torch_weights import copy_torch_weights

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

CONFIGS = {
    "one_layer_quick_gelu": ImageEncoderConfig(32, 48, 1, 2, 28, 14, 16, "quick_gelu", 1e-5),
    "one_head": ImageEncoderConfig(24, 96, 2, 1, 40, 8, 72, "gelu", 1e-5),
    "many_heads_large_eps": ImageEncoderConfig(48, 80, 3, 6, 30, 10, 33, "gelu", 1e-2),
    "one_patch": ImageEncoderConfig(40, 40, 2, 5, 16, 16, 8, "gelu", 1e-5),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_equals_transformers(config):
    torch.manual_seed(0)
    published = transformers.CLIPVisionModelWithProjection(
        transformers.CLIPVisionConfig(
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            image_size=config.image_size,
            patch_size=config.patch_size,
            projection_dim=config.projection_dim,
            hidden_act=config.hidden_act,
            layer_norm_eps=config.layer_norm_eps,
        )
    ).eval()
    with torch.no_grad():
        for parameter in published.parameters():  # its own start is too near zero to show a mistake
            parameter.add_(0.2 * torch.randn_like(parameter))
    model = copy_torch_weights(
        published,
        nnx.eval_shape(lambda: ImageEncoder(config, precision=Precision(), rngs=nnx.Rngs(0))),
        IMAGE_ENCODER,
    )
    size = config.image_size
    pixels = torch.randn(3, 3, size, size, requires_grad=True)
    weights = torch.randn(3, config.projection_dim)
    expected = published(pixels).image_embeds
    (expected * weights).sum().backward()

    x = jnp.asarray(pixels.detach().numpy().transpose(0, 2, 3, 1))
    wanted = jnp.asarray(weights.numpy())
    assert_close(jax.jit(model)(x), expected.detach().numpy(), 1e-4)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(model(x) * wanted)))(x)
    assert pixels.grad is not None
    assert_close(np.asarray(gradient), pixels.grad.numpy().transpose(0, 2, 3, 1), 1e-4)

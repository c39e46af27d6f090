"""The Face Encoder against its description in plain torch functions, at sizes other than the golden case's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from stableanimator_jax.config import FaceEncoderConfig
from stableanimator_jax.models.face_encoder import FaceEncoder
from stableanimator_jax.models.layers import Precision
from stableanimator_jax.weights.rules import plan_export
from stableanimator_jax.weights.tables import FACE_ENCODER
from tests.golden.reference_weights import reference_array
from tests.golden_data import assert_close
from tests.weights.state_dicts import convert

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity


def torch_face_encoder(p, config: FaceEncoderConfig, id_embedding, image_embedding):
    """`p` holds torch tensors by the published names."""
    f = torch.nn.functional

    def linear(name, x):
        return f.linear(x, p[f"{name}.weight"], p.get(f"{name}.bias"))

    def norm(name, x):
        return f.layer_norm(x, x.shape[-1:], p[f"{name}.weight"], p[f"{name}.bias"], 1e-5)

    def heads(x):
        return x.unflatten(-1, (-1, config.head_dim)).transpose(1, 2)

    x = linear("proj.2", f.gelu(linear("proj.0", id_embedding)))
    x = norm("norm", x.unflatten(-1, (config.num_tokens, -1)))
    image = linear("fusion_model.proj_in", image_embedding[:, None])
    for n in range(config.depth):
        name = f"fusion_model.layers.{n}"
        a, b = norm(f"{name}.0.norm1", image), norm(f"{name}.0.norm2", x)
        q = heads(linear(f"{name}.0.to_q", b))
        k, v = map(heads, linear(f"{name}.0.to_kv", torch.cat([a, b], 1)).chunk(2, -1))
        scale = config.head_dim**-0.25
        weights = torch.softmax((q * scale) @ (k * scale).mT, -1)
        x = x + linear(f"{name}.0.to_out", (weights @ v).transpose(1, 2).flatten(2))
        x = x + linear(f"{name}.1.3", f.gelu(linear(f"{name}.1.1", norm(f"{name}.1.0", x))))
    return norm("fusion_model.norm_out", linear("fusion_model.proj_out", x))


@pytest.mark.parametrize(
    "config",
    [
        FaceEncoderConfig(64, 24, 40, num_tokens=3, depth=2),
        FaceEncoderConfig(96, 10, 16, num_tokens=1, depth=1, head_dim=32),
        FaceEncoderConfig(192, 32, 192, num_tokens=6, depth=3),
    ],
    ids=lambda config: f"dim{config.cross_attention_dim}",
)
def test_output_and_input_gradients(config):
    model = nnx.eval_shape(lambda: FaceEncoder(config, precision=Precision(), rngs=nnx.Rngs(0)))
    state = nnx.state(model)
    shapes = {a.key: a.source_shape for a in plan_export(FACE_ENCODER, nnx.to_pure_dict(state))}
    weights = {key: reference_array(f"parity.{key}", shape) for key, shape in shapes.items()}
    params = convert(FACE_ENCODER, weights, nnx.to_pure_dict(state))
    nnx.replace_by_pure_dict(state, jax.tree.map(jnp.asarray, params))
    nnx.update(model, state)

    torch.manual_seed(0)
    inputs = [torch.randn(2, d, requires_grad=True) for d in (config.id_embedding_dim, config.image_embedding_dim)]
    expected = torch_face_encoder({k: torch.from_numpy(w) for k, w in weights.items()}, config, *inputs)
    direction = torch.randn_like(expected)
    (expected * direction).sum().backward()

    x = [jnp.asarray(i.detach().numpy()) for i in inputs]
    wanted = jnp.asarray(direction.numpy())
    assert_close(jax.jit(model)(*x), expected.detach().numpy(), 1e-4)
    gradients = jax.jit(jax.grad(lambda i, c: jnp.sum(model(i, c) * wanted), argnums=(0, 1)))(*x)
    for gradient, tensor in zip(gradients, inputs, strict=True):
        assert tensor.grad is not None
        assert_close(np.asarray(gradient), tensor.grad.numpy(), 1e-4)

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from stableanimator_jax.config import FaceEncoderConfig
from stableanimator_jax.models.face_encoder import FaceEncoder
from stableanimator_jax.models.layers import Precision
from stableanimator_jax.weights.rules import plan_import
from stableanimator_jax.weights.tables import FACE_ENCODER, FACE_ENCODER_UNREFINED
from tests.golden_data import assert_close, load, load_reference_weights, manifest

CONFIG = FaceEncoderConfig(cross_attention_dim=128, image_embedding_dim=64)
UNREFINED = FaceEncoderConfig(cross_attention_dim=128, image_embedding_dim=64, refine=False)


run = nnx.jit(lambda model, *inputs: model(*inputs))


def make(config: FaceEncoderConfig = CONFIG, dtype: jnp.dtype | type = jnp.float32) -> FaceEncoder:
    return FaceEncoder(config, precision=Precision(dtype), rngs=nnx.Rngs(0))


def golden(config: FaceEncoderConfig = CONFIG, dtype: jnp.dtype | type = jnp.float32) -> FaceEncoder:
    table = FACE_ENCODER if config.refine else FACE_ENCODER_UNREFINED
    return load_reference_weights(nnx.eval_shape(lambda: make(config, dtype)), table, "face_encoder.")


@pytest.fixture
def case():
    case = load("face_encoder")
    return {"id": jnp.asarray(case["id_embedding"]), "image": jnp.asarray(case["image_embedding"][:, 0])} | {
        "out": case["out"]
    }


def test_golden(case):
    model = golden()
    assert_close(run(model, case["id"], case["image"]), case["out"], 1e-4)


def test_bf16_is_near_float32(case):
    model = golden(dtype=jnp.bfloat16)
    out = run(model, case["id"], case["image"])
    assert out.dtype == jnp.bfloat16
    error = np.linalg.norm(np.asarray(out, np.float32) - case["out"]) / np.linalg.norm(case["out"])
    assert error < 2e-2


def test_untrained_its_tokens_are_zero_but_can_learn(case):
    model = make(FaceEncoderConfig(cross_attention_dim=64, image_embedding_dim=64, depth=1))
    inputs = (case["id"], case["image"])
    assert not run(model, *inputs).any()
    wanted = jnp.asarray(case["out"][..., :64])
    gradients = jax.jit(jax.grad(lambda m: jnp.sum(m(*inputs) * wanted)))(model)
    gradient = gradients.fusion.proj_out.kernel[...]
    assert jnp.isfinite(gradient).all()
    assert jnp.abs(gradient).max() > 0


class TestWithoutRefinement:
    def test_the_tokens_are_the_normalised_projection(self, case):
        model = golden(UNREFINED)
        refined = golden()
        tokens = run(model, case["id"], case["image"])
        assert tokens.shape == (2, 4, 128)
        normalised = (tokens - model.norm.bias[...].reshape(1, 1, -1)) / model.norm.scale[...].reshape(1, 1, -1)
        np.testing.assert_allclose(normalised.mean(-1), 0, atol=1e-5)
        np.testing.assert_allclose(normalised.std(-1), 1, atol=1e-4)
        assert jnp.abs(tokens - run(refined, case["id"], case["image"])).max() > 0.1

    def test_the_image_does_not_matter(self, case):
        model = golden(UNREFINED)
        one, other = (run(model, case["id"], image) for image in (case["image"], -case["image"]))
        np.testing.assert_array_equal(one, other)

    def test_there_are_no_fusion_parameters(self):
        params = nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: make(UNREFINED))))
        assert set(params) == {"proj_in", "proj_out", "norm"}


def test_published_size():
    abstract = nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: make(FaceEncoderConfig()))))
    plan = plan_import(FACE_ENCODER, manifest("face_encoder"), abstract)
    assert sum(np.prod(a.source_shape) for a in plan) == 57_183_232

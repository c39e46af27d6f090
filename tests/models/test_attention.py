"""Every implementation of attention against float64 NumPy, and which one is chosen where."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stableanimator_jax.models.attention import attention, choose, compile_for, splash_attention, xla_attention
from tests.virtual_devices import run_on_virtual_devices


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def draw_qkv(batch: tuple[int, ...], tq: int, tk: int, heads: int, d: int) -> list[np.ndarray]:
    return [draw(*batch, t, heads, d, seed=i) for i, t in enumerate((tq, tk, tk))]


def reference(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    logits = np.einsum("...qhd,...khd->...hqk", q, k) / np.sqrt(q.shape[-1])
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return np.einsum("...hqk,...khd->...qhd", weights / weights.sum(-1, keepdims=True), v)


def reference_gradients(qkv: list[np.ndarray], g: np.ndarray) -> list[np.ndarray]:
    """Gradients of sum(attention * g), by hand."""
    q, k, v = qkv
    scale = 1 / np.sqrt(q.shape[-1])
    logits = np.einsum("...qhd,...khd->...hqk", q, k) * scale
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    d_weights = np.einsum("...qhd,...khd->...hqk", g, v)
    d_logits = weights * (d_weights - (d_weights * weights).sum(-1, keepdims=True)) * scale
    return [
        np.einsum("...hqk,...khd->...qhd", d_logits, k),
        np.einsum("...hqk,...qhd->...khd", d_logits, q),
        np.einsum("...hqk,...qhd->...khd", weights, g),
    ]


def assert_close(found: jax.Array, wanted: np.ndarray, relative: float) -> None:
    """Largest difference within `relative` of the expected values' standard deviation."""
    assert found.shape == wanted.shape
    assert np.abs(np.asarray(found, np.float64) - wanted).max() <= relative * wanted.std()


def check(function, arrays: list[np.ndarray], relative: float = 2e-5) -> None:
    """`function` and its gradients with respect to q, k and v."""
    g = draw(*arrays[0].shape, seed=9)
    inputs = [jnp.asarray(x, jnp.float32) for x in arrays]
    out, pullback = jax.vjp(function, *inputs)
    assert_close(out, reference(*arrays), relative)
    for found, wanted in zip(pullback(jnp.asarray(g, jnp.float32)), reference_gradients(arrays, g), strict=True):
        assert_close(found, wanted, relative)


@pytest.mark.parametrize(
    ("batch", "tq", "tk", "heads", "d"),
    [
        ((2, 3), 35, 35, 2, 16),  # spatial
        ((1, 12), 5, 5, 4, 8),  # temporal
        ((2,), 24, 4, 3, 16),  # face tokens
        ((), 7, 9, 1, 32),
        ((3,), 1, 1, 2, 8),  # one frame
    ],
)
def test_xla_matches_numpy(batch, tq, tk, heads, d):
    check(attention, draw_qkv(batch, tq, tk, heads, d))


@pytest.mark.parametrize("queries", [1, 3, 8, 12, 23])
def test_blocks_of_queries_match_numpy(queries):
    arrays = draw_qkv((2, 3), 23, 17, 2, 8)
    budget = queries * 4 * 6 * 2 * 17
    check(lambda q, k, v: xla_attention(q, k, v, logits_bytes=budget), arrays)


def test_blocks_bound_the_memory_of_forward_and_gradient():
    x = jax.ShapeDtypeStruct((2, 2048, 2, 16), jnp.float32)
    all_logits = 2 * 2 * 2048 * 2048 * 4

    def temporaries(logits_bytes: int) -> int:
        def loss(q, k, v):
            return xla_attention(q, k, v, logits_bytes=logits_bytes).sum()

        analysis = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(x, x, x).compile().memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    assert temporaries(all_logits) > all_logits
    assert temporaries(all_logits // 16) < all_logits / 2


def test_bfloat16_keeps_its_dtype_and_is_close():
    arrays = [np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64) for x in draw_qkv((2, 2), 40, 40, 2, 16)]
    out = attention(*(jnp.asarray(x, jnp.bfloat16) for x in arrays))
    assert out.dtype == jnp.bfloat16
    wanted = reference(*arrays)
    assert np.linalg.norm(np.asarray(out, np.float64) - wanted) <= 1e-2 * np.linalg.norm(wanted)


# 256 fills two blocks exactly; 144 and 576 are the published model's, padded to 256 and 640.
@pytest.mark.parametrize(("t", "heads"), [(128, 2), (144, 2), (256, 1), (576, 1)])
def test_splash_in_interpret_mode_matches_numpy(t, heads):
    arrays = draw_qkv((1, 2), t, t, heads, 64)
    check(lambda q, k, v: splash_attention(q, k, v, interpret=True), arrays, relative=1e-4)


def test_splash_takes_bfloat16():
    arrays = [np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64) for x in draw_qkv((1,), 144, 144, 2, 64)]
    out = splash_attention(*(jnp.asarray(x, jnp.bfloat16) for x in arrays), interpret=True)
    assert out.dtype == jnp.bfloat16
    wanted = reference(*arrays)
    assert np.linalg.norm(np.asarray(out, np.float64) - wanted) <= 1e-2 * np.linalg.norm(wanted)


SPATIAL = (2, 16, 9216, 5, 64)
TEMPORAL = (2, 9216, 16, 5, 64)
SMALLEST = (2, 16, 144, 20, 64)
VAE = (1, 4, 9216, 1, 512)
FACES = (2, 16, 4, 5, 64)


@pytest.mark.parametrize(
    ("platform", "q_shape", "k_shape", "dtype", "wanted"),
    [
        ("tpu", SPATIAL, SPATIAL, jnp.bfloat16, "splash"),
        ("tpu", SPATIAL, SPATIAL, jnp.float32, "splash"),
        ("tpu", (2, 16, 576, 10, 64), (2, 16, 576, 10, 64), jnp.bfloat16, "splash"),
        ("tpu", SMALLEST, SMALLEST, jnp.bfloat16, "xla"),
        ("tpu", TEMPORAL, TEMPORAL, jnp.bfloat16, "xla"),
        ("tpu", SPATIAL, FACES, jnp.bfloat16, "xla"),
        ("tpu", VAE, VAE, jnp.float32, "xla"),
        ("tpu", (1, 1024, 2, 16), (1, 1024, 2, 16), jnp.bfloat16, "xla"),
        ("gpu", SPATIAL, SPATIAL, jnp.bfloat16, "cudnn"),
        ("gpu", SPATIAL, SPATIAL, jnp.float16, "cudnn"),
        ("gpu", (2, 16, 256, 20, 64), (2, 16, 256, 20, 64), jnp.bfloat16, "cudnn"),
        ("gpu", SPATIAL, FACES, jnp.bfloat16, "xla"),
        ("gpu", SPATIAL, SPATIAL, jnp.float32, "xla"),
        ("gpu", SMALLEST, SMALLEST, jnp.bfloat16, "xla"),
        ("gpu", TEMPORAL, TEMPORAL, jnp.bfloat16, "xla"),
        ("gpu", VAE, VAE, jnp.bfloat16, "xla"),
        ("gpu", (1, 1024, 2, 12), (1, 1024, 2, 12), jnp.bfloat16, "xla"),
        ("cpu", SPATIAL, SPATIAL, jnp.bfloat16, "xla"),
    ],
)
def test_choice_of_implementation(platform, q_shape, k_shape, dtype, wanted):
    assert choose(platform, q_shape, k_shape, dtype) == wanted


def test_compile_for_is_part_of_the_jit_cache_key():
    """One jitted function, traced for two platforms in one process, is two programs."""
    x = jax.ShapeDtypeStruct((1, 576, 1, 64), jnp.bfloat16)
    jitted = jax.jit(attention)
    with compile_for("tpu"):
        assert "pallas_call" in str(jitted.trace(x, x, x).jaxpr)
    assert "pallas_call" not in str(jitted.trace(x, x, x).jaxpr)


@pytest.fixture
def cudnn_without_a_gpu(monkeypatch):
    """Let cuDNN's attention be traced where the library is missing: only its version number is asked for."""
    if jax.default_backend() != "gpu":
        fused_attention = pytest.importorskip("jax._src.cudnn.fused_attention_stablehlo")
        monkeypatch.setattr(fused_attention, "check_cudnn_version", lambda: 91002)


@pytest.mark.usefixtures("cudnn_without_a_gpu")
def test_cudnn_lowers_for_cuda():
    x = jax.ShapeDtypeStruct((2, 3, 256, 5, 64), jnp.bfloat16)

    def loss(q, k, v):
        return attention(q, k, v).astype(jnp.float32).sum()

    with compile_for("gpu"):
        forward = jax.jit(attention).trace(x, x, x).lower(lowering_platforms=("cuda",)).as_text()
        gradient = jax.jit(jax.grad(loss, (0, 1, 2))).trace(x, x, x).lower(lowering_platforms=("cuda",)).as_text()
    assert "__cudnn$fmhaSoftmax" in forward
    assert "__cudnn$fmhaSoftmaxBackward" in gradient


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs a GPU: cuDNN's attention has no interpreter")
@pytest.mark.parametrize("t", [256, 576, 1000])
def test_cudnn_matches_numpy(t):
    arrays = [np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64) for x in draw_qkv((2, 2), t, t, 5, 64)]
    out = jax.jit(attention)(*(jnp.asarray(x, jnp.bfloat16) for x in arrays))
    wanted = reference(*arrays)
    assert np.linalg.norm(np.asarray(out, np.float64) - wanted) <= 1e-2 * np.linalg.norm(wanted)


@pytest.mark.long
def test_kernels_run_on_each_device_own_rows_under_a_mesh():
    """Splash under a mesh of 4: equal to no mesh, rows stay sharded, and no collective moves them."""
    run_on_virtual_devices(
        4,
        """
        from functools import partial
        import jax, jax.numpy as jnp, numpy as np
        from jax.sharding import NamedSharding, PartitionSpec as P
        from stableanimator_jax.models import attention as module
        from stableanimator_jax.parallel import make_mesh

        module.splash_attention = partial(module.splash_attention, interpret=True)
        # Rows over all devices; replicated because 4 does not divide 3; rows over two axes; frames; rows and frames.
        cases = [
            ((4, 1, 1), (4, 1), P("data")),
            ((4, 1, 1), (3, 1), P()),
            ((2, 2, 1), (4, 1), P(("data", "fsdp"))),
            ((1, 1, 4), (1, 4), P(None, "frame")),
            ((2, 1, 2), (2, 2), P("data", "frame")),
        ]
        for shape, leading, spec in cases:
            mesh = make_mesh(*shape)
            q, k, v = jax.random.normal(jax.random.key(0), (3, *leading, 576, 1, 64))
            wanted = module.xla_attention(q, k, v)
            put = partial(jax.device_put, device=NamedSharding(mesh, spec))
            with jax.set_mesh(mesh), module.compile_for("tpu"):
                compiled = jax.jit(module.attention).lower(put(q), put(k), put(v)).compile()
                out = compiled(put(q), put(k), put(v))
            assert out.sharding.is_equivalent_to(NamedSharding(mesh, spec), out.ndim), out.sharding
            assert not any(c in compiled.as_text() for c in ("all-gather", "all-to-all", "all-reduce"))
            np.testing.assert_allclose(out, wanted, atol=2e-5)
        """,
    )


def test_blocks_count_only_a_device_own_rows():
    run_on_virtual_devices(
        4,
        """
        import jax, jax.numpy as jnp
        from stableanimator_jax.models import attention as module
        from stableanimator_jax.parallel import make_mesh

        x = jnp.ones((2, 2, 64, 1, 8))
        budget = 64 * 64 * 4  # one row's logits, of one frame
        attend = lambda: str(jax.make_jaxpr(lambda x: module.xla_attention(x, x, x, logits_bytes=budget))(x))
        assert "scan" in attend()
        with jax.set_mesh(make_mesh(2, 1, 2)):
            assert "scan" not in attend()
        """,
    )

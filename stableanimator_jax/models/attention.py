"""Scaled dot-product attention: one function for every model, the fastest implementation for the platform.

- TPU, self-attention over 576 tokens or more: splash attention, a Pallas kernel that never holds the logits.
- GPU, self-attention over 256 tokens or more in 16 bits: cuDNN's flash attention.
- Anything else (CPU, cross-attention, the temporal layers' few frames, float32 on GPU): plain XLA, in blocks of queries
  where the logits would take too much memory.

The choice is made in Python while tracing, because `lax.platform_dependent` traces every branch and
cuDNN's raises where there is no GPU.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal, cast

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as splash
from jax.sharding import AxisType
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from stableanimator_jax.parallel import leading_shards, leading_spec

Platform = Literal["cpu", "gpu", "tpu"]
Implementation = Literal["xla", "cudnn", "splash"]

LOGITS_BYTES = 512 * 2**20
"""Most memory, per device, that plain XLA attention may spend on one block's float32 logits."""

# A context of JAX's, not a ContextVar: it is part of jit's cache key, so that one function may be
# compiled for two platforms in one process.
_target_platform = jax.make_user_context(None)


def compile_for(platform: Platform):
    """Context manager: trace attention for `platform` instead of the one this process runs on.

    For ahead-of-time compilation, where the device that will run the program is not there.
    """
    return _target_platform(platform)


def attention(
    q: Float[Array, "*batch tq heads d"],
    k: Float[Array, "*#batch tk heads d"],
    v: Float[Array, "*#batch tk heads d"],
) -> Float[Array, "*batch tq heads d"]:
    """softmax(q kᵀ / sqrt(d)) v for every head, softmax in float32, output in `q`'s dtype. Differentiable.

    Any number of leading axes; in cross-attention, keys and values may have 1 where queries have more. Under a mesh
    (`jax.set_mesh`) every device works on its rows, the first axis, and its share of the second: see `parallel.spread`.
    """
    match choose(_platform(), q.shape, k.shape, q.dtype):
        case "splash":
            return _by_rows(splash_attention, q, k, v)
        case "cudnn":
            return _by_rows(_cudnn_attention, q, k, v)
        case _:
            return xla_attention(q, k, v)


def choose(platform: Platform, q_shape: tuple[int, ...], k_shape: tuple[int, ...], dtype: DTypeLike) -> Implementation:
    """Which implementation `attention` uses on `platform` for queries and keys of these shapes."""
    (t, _, d), tk = q_shape[-3:], k_shape[-3]
    if t != tk:  # cross-attention to a handful of tokens
        return "xla"
    if platform == "tpu" and t >= 576 and d % 64 == 0 and d <= 256:
        return "splash"
    if platform == "gpu" and t >= 256 and d % 8 == 0 and d <= 128 and dtype in (jnp.bfloat16, jnp.float16):
        return "cudnn"
    return "xla"


def _platform() -> Platform:
    if _target_platform.value is not None:
        return _target_platform.value
    backend = jax.default_backend()
    if backend == "gpu":
        # cuDNN's flash attention starts with NVIDIA's compute capability 8.0; others compile XLA's as "cpu" does.
        capability = str(getattr(jax.local_devices(backend="gpu")[0], "compute_capability", ""))
        major = capability.partition(".")[0]
        return "gpu" if major.isdigit() and int(major) >= 8 else "cpu"
    return "tpu" if backend == "tpu" else "cpu"


def xla_attention(
    q: Float[Array, "*batch tq heads d"],
    k: Float[Array, "*#batch tk heads d"],
    v: Float[Array, "*#batch tk heads d"],
    *,
    logits_bytes: int = LOGITS_BYTES,
) -> Float[Array, "*batch tq heads d"]:
    """Attention by XLA's own operations, over as many queries at once as `logits_bytes` of logits allow.

    Blocks are rematerialised in the backward pass, so that the bound holds for gradients too.
    """
    *batch, tq, heads, _ = q.shape
    local_batch = math.prod(batch) // math.prod(leading_shards(batch))
    bytes_a_query = 4 * local_batch * heads * k.shape[-3]
    blocks = math.ceil(tq / max(1, logits_bytes // max(1, bytes_a_query)))
    if blocks <= 1:
        return _dense_attention(q, k, v)
    size = math.ceil(tq / blocks)
    axis = len(batch)
    padding = [(0, 0)] * axis + [(0, size * blocks - tq), (0, 0), (0, 0)]
    split = jnp.pad(q, padding).reshape(*batch, blocks, size, *q.shape[-2:])
    attend = jax.checkpoint(lambda block: _dense_attention(block, k, v), prevent_cse=False)
    out = jax.lax.map(attend, jnp.moveaxis(split, axis, 0))  # [blocks, *batch, size, heads, d]
    out = jnp.moveaxis(out, 0, axis).reshape(*batch, blocks * size, *q.shape[-2:])
    return jax.lax.slice_in_dim(out, 0, tq, axis=axis)


def _dense_attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    logits = jnp.einsum("...qhd,...khd->...hqk", q, k, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(logits / math.sqrt(q.shape[-1]), axis=-1)
    return jnp.einsum("...hqk,...khd->...qhd", weights.astype(v.dtype), v)


def _cudnn_attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    folded = (x.reshape(-1, *x.shape[-3:]) for x in (q, k, v))  # [batch, t, heads, d]
    return jax.nn.dot_product_attention(*folded, implementation="cudnn").reshape(q.shape)


def splash_attention(
    q: Float[Array, "*batch t heads d"],
    k: Float[Array, "*batch t heads d"],
    v: Float[Array, "*batch t heads d"],
    *,
    interpret: bool = False,
) -> Float[Array, "*batch t heads d"]:
    """Self-attention by JAX's splash kernel for TPUs. `interpret` runs the kernel on a CPU, slowly.

    The kernel takes lengths that are multiples of 128: shorter ones are padded, and segment numbers keep
    the padding to itself.
    """
    *batch, t, heads, d = q.shape
    length = -(-t // 128) * 128
    block = max(size for size in range(128, 1024 + 1, 128) if length % size == 0)
    kernel = splash.make_splash_mha_single_device(
        splash.MultiHeadMask([splash.FullMask((length, length))] * heads),
        block_sizes=splash.BlockSizes(
            block_q=block,
            block_kv=block,
            block_q_dkv=block,
            block_kv_dkv=block,
            block_q_dq=block,
            block_kv_dq=block,
        ),
        interpret=interpret,
    )
    segments = None
    if length != t:
        padding = (jnp.arange(length) >= t).astype(jnp.int32)
        segments = splash.SegmentIds(q=padding, kv=padding)

    def heads_first(x: jax.Array) -> jax.Array:
        x = jnp.pad(x.reshape(-1, t, heads, d), ((0, 0), (0, length - t), (0, 0), (0, 0)))
        return x.swapaxes(1, 2)  # [batch, heads, length, d]

    out = jax.vmap(partial(kernel, segment_ids=segments))(heads_first(q / math.sqrt(d)), heads_first(k), heads_first(v))
    out = cast(jax.Array, out)  # a tuple only with the kernel's save_residuals
    return out.swapaxes(1, 2)[:, :t].reshape(*batch, t, heads, d)


def _by_rows(kernel: Callable[..., jax.Array], q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Run `kernel` on every device's own rows and frames: XLA cannot partition a hand-written kernel by itself."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or AxisType.Manual in mesh.axis_types:
        return kernel(q, k, v)
    spec = leading_spec(q.shape[:-3])
    # Pallas kernels declare no varying axes for their outputs, hence no check_vma.
    return jax.shard_map(kernel, in_specs=spec, out_specs=spec, check_vma=False)(q, k, v)

"""What a training run carries from step to step, made straight into its shards."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int32, PyTree, UInt32

from stableanimator_jax.commands import called
from stableanimator_jax.config import StableAnimatorConfig, StoredDtype
from stableanimator_jax.errors import InputError
from stableanimator_jax.family import member
from stableanimator_jax.models.catalogue import blueprint
from stableanimator_jax.models.functional import Blueprint
from stableanimator_jax.models.layers import Precision
from stableanimator_jax.parallel import fsdp_shardings
from stableanimator_jax.training.config import ModelConfig, TrainConfig
from stableanimator_jax.training.trainable import TRAINED_MODELS, Params, split_abstract
from stableanimator_jax.weights.checkpoint import describe, load_params
from stableanimator_jax.weights.opening import CheckpointSource
from stableanimator_jax.weights.rules import by_name, nested_as

MADE_ANEW = ("pose_net", "face_encoder")
"""Models that Stable Video Diffusion does not have."""


class TrainState(NamedTuple):
    """Everything that a step changes. Parameters, moments and averages are float32."""

    step: Int32[Array, ""]
    """Steps done."""
    params: Params
    """The trained ones, by model and dotted name."""
    opt_state: optax.OptState
    ema: Params
    """Their running mean; empty where none is kept."""
    key: UInt32[Array, "2"]
    """What every step's random numbers come from, with its number."""


def model_config(source: StableAnimatorConfig, config: ModelConfig) -> StableAnimatorConfig:
    """The configuration of the model to train: its source's, but for the ablations. Training makes StableAnimator."""
    return replace(
        source,
        kind="stableanimator",
        unet=replace(source.unet, id_injection=config.id_injection),
        face_encoder=replace(source.face_encoder, refine=config.refine_face_tokens),
    )


def training_blueprints(
    config: StableAnimatorConfig, dtype: StoredDtype, *, arcface: bool
) -> dict[str, Blueprint[Any]]:
    """The models of a run by name. The VAE and ArcFace are float32 always.

    Args:
        dtype: what the others compute in and hold frozen parameters in.
        arcface: with ArcFace: training does without, but what is trained is exported with it, and validated by it.
    """
    names = [*TRAINED_MODELS, "vae", "image_encoder", *["arcface"] * arcface]
    return {name: blueprint(config, name, dtype) for name in names}


def abstract_state(trained: Params, optimizer: optax.GradientTransformation, mesh: Mesh, *, ema: bool) -> TrainState:
    """The state's shapes, dtypes and shardings; nothing is allocated."""
    scalar: Any = jax.ShapeDtypeStruct((), jnp.int32)
    key: Any = jax.ShapeDtypeStruct((2,), jnp.uint32)
    opt_state = jax.eval_shape(optimizer.init, trained)
    return with_shardings(TrainState(scalar, trained, opt_state, trained if ema else {}, key), mesh)


def with_shardings(tree: PyTree[Any], mesh: Mesh) -> PyTree[Any]:
    """Abstract arrays, each with the sharding that it is to have."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
        fsdp_shardings(tree, mesh),
    )


def begin(params: Params, optimizer: optax.GradientTransformation, mesh: Mesh, *, ema: bool, seed: int) -> TrainState:
    """The state at step 0."""
    wanted = abstract_state(jax.eval_shape(lambda: params), optimizer, mesh, ema=ema)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, wanted)

    def rest(params: Params) -> tuple[Any, ...]:
        # Copies, because donated buffers must not be shared.
        average = jax.tree.map(jnp.copy, params) if ema else {}
        return jnp.zeros((), jnp.int32), optimizer.init(params), average, jax.random.key_data(jax.random.key(seed))

    made = jax.jit(rest, out_shardings=(shardings.step, shardings.opt_state, shardings.ema, shardings.key))(params)
    step, opt_state, average, key = made
    return TrainState(step, params, opt_state, average, key)


def load(
    source: CheckpointSource, blueprints: Mapping[str, Blueprint[Any]], config: TrainConfig, mesh: Mesh
) -> tuple[Params, Params, list[str]]:
    """Parameters to begin from, read straight into their dtypes and shards. `config` says which of them are trained,
    and the seed of those made anew.

    Returns:
        trained and frozen parameters, and the names of the models that were made anew.

    Raises:
        InputError: the checkpoint has no UNet, VAE or CLIP, or is damaged.
    """
    abstract_trained, abstract_frozen = split_abstract(blueprints, config.trainable)
    abstract_trained, abstract_frozen = (with_shardings(t, mesh) for t in (abstract_trained, abstract_frozen))
    held = describe(source.path).models
    trained: Params = {}
    frozen: Params = {}
    anew = []
    for model, made_from in blueprints.items():
        wanted = abstract_frozen[model] | abstract_trained.get(model, {})
        same = getattr(source.config, model) == made_from.config or model not in MADE_ANEW
        if model == "pose_net" and member(source.config).swaps_colours:
            same = False  # it knows limbs by other colours
        if model in held and same:
            leaves = by_name(load_params(source.path, model, nested_as(made_from.abstract_params(), wanted)))
        elif model in MADE_ANEW:
            anew.append(model)
            leaves = _place(by_name(_initial(made_from, config.seed)), wanted)
        else:
            raise InputError(
                f"checkpoint {source.path} has no {model}, from which training must begin; {called('convert')} makes "
                "one from Stable Video Diffusion or StableAnimator"
            )
        frozen[model] = {name: leaves[name] for name in abstract_frozen[model]}
        if own := abstract_trained.get(model):
            factors = _initial_factors({n: a for n, a in own.items() if n not in leaves}, config.seed)
            trained[model] = {name: leaves[name] if name in leaves else factors[name] for name in own}
    return trained, frozen, anew


def frozen_digest(frozen: Params) -> str:
    """Tells whether two runs have the same frozen weights: a hash of every element of every array.

    They are rounded to bfloat16 first, so that the dtype that the run holds them in makes no difference; and summed as
    integers, so that neither does the mesh. All processes compute it together, each on what it holds.
    """
    arrays = {f"{model}.{name}": leaf for model, leaves in frozen.items() for name, leaf in leaves.items()}
    sums = jax.device_get({name: _checksum(leaf) for name, leaf in sorted(arrays.items())})
    text = json.dumps([[name, list(arrays[name].shape), int(sums[name])] for name in sorted(arrays)])
    return hashlib.sha256(text.encode()).hexdigest()


@jax.jit
def _checksum(array: Float[Array, "..."]) -> UInt32[Array, ""]:
    """The sum modulo 2**32 of an array's elements as 16 bits, each multiplied by an odd number that its place gives.

    It is the same in any order. An odd factor has an inverse, so one other element always shows; of several, all but
    one of 2**32 changes.
    """
    bits = jax.lax.bitcast_convert_type(array.astype(jnp.bfloat16), jnp.uint16).astype(jnp.uint32)
    place = jnp.zeros(array.shape, jnp.uint32)
    for axis, length in enumerate(array.shape):
        place = place * jnp.uint32(length) + jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis)
    mixed = (place + jnp.uint32(1)) * jnp.uint32(0x9E3779B1)
    factor = (mixed ^ (mixed >> jnp.uint32(15))) * jnp.uint32(0x2C1B3C6D)
    return jnp.sum(bits * (factor | jnp.uint32(1)), dtype=jnp.uint32)


def _initial(made_from: Blueprint[Any], seed: int) -> dict[Any, Any]:
    """A model's parameters by its own initialisers, made on this host's CPU."""
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        module = made_from.kind(made_from.config, precision=Precision(), rngs=nnx.Rngs(seed))
        return nnx.to_pure_dict(nnx.state(module))


def _place(arrays: Mapping[str, Any], wanted: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
    """The same numbers on every host, each device taking its part."""
    placed = {}
    for name, found in arrays.items():
        array = np.asarray(found).astype(wanted[name].dtype)
        placed[name] = jax.make_array_from_callback(array.shape, wanted[name].sharding, lambda i, a=array: a[i])
    return placed


def _initial_factors(wanted: Mapping[str, jax.ShapeDtypeStruct], seed: int) -> dict[str, jax.Array]:
    """Low-rank factors: one of each pair Gaussian, with a spread of 1/sqrt(inputs), the other zero: no change yet."""
    generator = np.random.Generator(np.random.PCG64(seed))
    factors = {}
    for name, leaf in wanted.items():
        factors[name] = np.zeros(leaf.shape, np.float32)
        if name.endswith("lora_a"):
            factors[name] = generator.standard_normal(leaf.shape, np.float32) / np.sqrt(leaf.shape[0], dtype=np.float32)
    return _place(factors, wanted)

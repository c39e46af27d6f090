"""HJB-based face optimisation: Adam on the predicted clean sample, inside denoising (paper section 3.4).

At a denoising step the predicted clean latents are decoded, each frame's face is cropped and embedded, and Adam moves
the latents towards the reference's identity. Chunks of frames are decoded apart from each other and Adam works element
by element, so optimising chunk after chunk gives what optimising the whole video would, in one chunk's memory.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, Sharding
from jaxtyping import Array, Float

from stableanimator_jax.data.face_track import FaceTrack
from stableanimator_jax.models.arcface import ArcFace, cosine
from stableanimator_jax.models.functional import Model
from stableanimator_jax.models.vae import VAE
from stableanimator_jax.parallel import on_each_device, replicated
from stableanimator_jax.sampling.config import Crop
from stableanimator_jax.sampling.face_crop import AlignedCrops, BoxCrops, Crops, crops_of
from stableanimator_jax.sampling.face_region import face_regions, whole_frames
from stableanimator_jax.sampling.programs import kept

ADAM = optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8)
FLOAT16_LOSS_SCALE = 2.0**10
"""Of the loss whose gradients pass through float16: those to single pixels of large frames would vanish in it."""


class Refinement(NamedTuple):
    """What one optimised step gives. Nothing here is checked: not finite numbers in a frame make these so too."""

    latents: Float[Array, "f h w c"]
    losses: Float[np.ndarray, "iterations"]
    """Mean of |1 - cosine| over the frames with a face, before each iteration."""
    similarity_before: float
    """Mean cosine of the frames with a face to the reference."""
    similarity_after: float


def refine(
    vae: Model[VAE],
    arcface: Model[ArcFace],
    latents: Float[Array, "f h w c"],
    faces: FaceTrack,
    reference: Float[Array, "d"],
    learning_rate: float,
    *,
    iterations: int,
    chunk: int,
    crop: Crop = "box",
    margin: float | None = None,
    mesh: Mesh | None = None,
    on_chunk: Callable[[int, int], None] | None = None,
) -> Refinement:
    """Move predicted clean latents towards the reference's identity by Adam, a fresh optimiser each time.

    Adam acts almost like a sign: each iteration moves every latent by about the learning rate, however little the
    face depends on it. With whole frames that is the background too. With a margin, only the latents around the faces
    are decoded and moved, and all others stay as they are. That is quicker, and approximate: the decoder's group
    norms and its attention see the region alone, and the convolutions its edge.

    Args:
        vae, arcface: the models; float32 is the published precision. One of the same parameters whose blueprint
            computes in 16 bits decodes faster; latents, Adam and the similarity are float32 always.
        latents: the predicted clean sample as the UNet sees it (multiplied by the VAE's scaling factor), float32.
        faces: where they are. A frame without a face contributes nothing and stays as it is, whatever its box says.
        reference: the reference face's raw ArcFace embedding.
        learning_rate: Adam's; published: 0.1 * (1 - step / steps).
        iterations: of Adam, at least 1.
        chunk: frames decoded at once; they see each other.
        crop: what ArcFace sees of a face; "aligned" needs landmarks.
        margin: around the faces of a chunk, in lengths of the longer side of what they fill together (see
            `face_regions`); None decodes whole frames.
        mesh: whose devices take a chunk each.
        on_chunk: called with the frames that are done and all frames, after each chunk, or as many as the mesh takes at
            once. Waits for them.

    Returns:
        the refined latents with what they did. Without a face anywhere the latents come back as they are, with
        no losses and similarities of NaN.
    """
    total, counted = len(latents), int(np.sum(faces.valid))
    if counted == 0:
        if on_chunk:
            on_chunk(total, total)
        return Refinement(latents, np.zeros(0, np.float32), float("nan"), float("nan"))
    # Gradients pass through a masked frame's crop all the same: it must be one that gives finite numbers.
    rows = np.where(faces.valid, np.arange(total), np.argmax(faces.valid))
    crops = _taken(crops_of(faces, crop), rows)
    frame, downscale = (latents.shape[1], latents.shape[2]), vae.blueprint.config.downscale
    if margin is None:
        regions = whole_frames(frame, -(-total // chunk))
    else:
        regions = face_regions(crops, faces.valid, chunk=chunk, frame=frame, downscale=downscale, margin=margin)

    parts = [slice(first, min(first + chunk, total)) for first in range(0, total, chunk)]
    items = [
        (latents[part], _taken(crops, part).seen_from(downscale * start[::-1]), faces.valid[part], start)
        for part, start in zip(parts, regions.starts, strict=True)
    ]
    shared = (vae, arcface, reference, np.float32(learning_rate), np.float32(counted))
    settings = {"size": regions.size, "iterations": iterations}
    refined, reports = [latents[part] for part in parts], []
    for group in _groups([i for i, item in enumerate(items) if item[2].any()], items, 1 if mesh is None else mesh.size):
        if mesh is None or len(group) == 1:
            moved, report = refine_chunk(shared, *items[group[0]], **settings)
            moved, report = moved[None], jax.tree.map(lambda x: x[None], report)
        else:
            filled = [items[i] for i in (*group, *[group[-1]] * (mesh.size - len(group)))]
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *filled)
            # No device waits for another, and where all of it goes they need no program together.
            moved, report = jax.device_put(refine_each(shared, stacked, mesh=mesh, **settings), replicated(mesh))
        for place, i in enumerate(group):
            refined[i] = moved[place]
            reports.append(jax.tree.map(lambda x, place=place: x[place], report))
        if on_chunk:
            jax.block_until_ready(moved)
            on_chunk(parts[group[-1]].stop, total)
    if on_chunk and not items[-1][2].any():
        on_chunk(total, total)
    # Each chunk's numbers are its share of the mean over all frames with a face.
    losses, before, after = (np.sum([np.asarray(r[i]) for r in reports], axis=0) for i in range(3))
    return Refinement(jnp.concatenate(refined), losses, float(before), float(after))


_Chunk = tuple[Array, Crops, np.ndarray, np.ndarray]
"""Latents, crops, which frames have a face, and the region's corner."""


def _groups(numbers: Sequence[int], items: Sequence[_Chunk], at_once: int) -> Iterator[Sequence[int]]:
    """Chunks, by their numbers, that are refined at once. A last one that is shorter than the others is by itself."""
    alone = [i for i in numbers if len(items[i][0]) < len(items[0][0])]
    others = numbers[: len(numbers) - len(alone)]
    yield from (others[start : start + at_once] for start in range(0, len(others), at_once))
    if alone:
        yield alone


def _taken(crops: Crops, frames: slice | np.ndarray) -> Crops:
    return jax.tree.map(lambda numbers: numbers[frames], crops)


@kept
@partial(jax.jit, static_argnames=("size", "iterations"))
def refine_chunk(
    shared: tuple[Model[VAE], Model[ArcFace], Array, Array, Array],
    latents: Array,
    crops: Crops,
    valid: Array,
    start: Array,
    *,
    size: tuple[int, int],
    iterations: int,
) -> tuple[Array, tuple[Array, Array, Array]]:
    """The one program of `refine`: all iterations of one chunk. See `lower_chunk` for its memory and cost.

    Args:
        shared: `refine`'s models, reference and learning rate, and the frames of the whole video with a face.
        crops: in pixels of the region.
        valid: which frames have a face.
        start: first row and column of the region, in latent cells.
        size: its height and width.
        The others are `refine`'s, one chunk of them.

    Returns:
        the chunk's latents, and its share of the losses and of the similarity before and after.
    """
    vae, arcface, reference, learning_rate, counted = shared
    decoder, recogniser = vae.module(), arcface.module()

    def mean(values: Array) -> Array:
        """This chunk's share of the mean over the video's frames with a face."""
        return jnp.where(valid, values, 0).sum() / counted

    is_float16 = jnp.float16 in (vae.blueprint.precision.compute, arcface.blueprint.precision.compute)
    scale = FLOAT16_LOSS_SCALE if is_float16 else 1.0

    def loss(x: Array) -> tuple[Array, Array]:
        similarities = face_similarities(decoder, recogniser, x, crops, reference)
        return scale * mean(jnp.abs(1 - similarities)), mean(similarities)

    def iterate(carry: tuple[Array, optax.OptState], _: None) -> tuple[tuple[Array, optax.OptState], tuple]:
        x, state = carry
        (value, similarity), gradient = jax.value_and_grad(loss, has_aux=True)(x)
        with jax.numpy_dtype_promotion("standard"):  # optax counts in integers
            update, state = ADAM.update(gradient / scale, state)
            assert isinstance(update, jax.Array)  # optax promises any tree
        # The temporal decoder leaks gradients into frames without a face, and Adam would blow them up to full steps.
        update = jnp.where(valid[:, None, None, None], update, 0)
        return (x - learning_rate * update, state), (value / scale, similarity)

    corner = (0, start[0], start[1], 0)
    region = jax.lax.dynamic_slice(latents, corner, (len(latents), *size, latents.shape[-1]))
    (refined, _), (losses, similarities) = jax.lax.scan(iterate, (region, ADAM.init(region)), length=iterations)
    moved = jax.lax.dynamic_update_slice(latents, refined, corner)
    return moved, (losses, similarities[0], loss(refined)[1])


@kept
@partial(jax.jit, static_argnames=("size", "iterations", "mesh"))
def refine_each(shared: Any, items: Any, *, size: tuple[int, int], iterations: int, mesh: Mesh) -> Any:
    """`refine_chunk` of as many chunks, stacked, as the mesh has devices, each on one of them."""
    return on_each_device(partial(refine_chunk, size=size, iterations=iterations), mesh)(shared, items)


def lower_chunk(
    vae: Model[VAE],
    arcface: Model[ArcFace],
    *,
    frames: int,
    latent_size: tuple[int, int],
    iterations: int,
    region: tuple[int, int] | None = None,
    aligned: bool = False,
    sharding: Sharding | None = None,
) -> jax.stages.Lowered:
    """The program that `refine` runs for every chunk, for its memory and cost; nothing is allocated.

    `lower_chunk(...).compile().memory_analysis()` is the memory of videos of any length.

    Args:
        vae, arcface: the models; `Model(blueprint.abstract_params(), blueprint)` will do.
        frames: in the chunk.
        latent_size: height and width of the latents.
        iterations: of Adam.
        region: height and width of the region in latent cells, as `face_regions` finds it; None is whole frames.
        aligned: faces are aligned, not boxes.
        sharding: where everything lies, if not on the default device; compiles for that.
    """
    vae_config, arcface_config = vae.blueprint.config, arcface.blueprint.config

    def array(*shape: int, dtype: type = np.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype)

    zeros = np.zeros((frames, 2, 3) if aligned else (frames, 4), np.float32)
    arguments = (
        (vae, arcface, array(arcface_config.embedding_dim), array(), array()),
        array(frames, *latent_size, vae_config.latent_channels),
        AlignedCrops(zeros) if aligned else BoxCrops(zeros),
        array(frames, dtype=np.bool_),
        array(2, dtype=np.int32),
    )
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), arguments)
    return refine_chunk.lower(*abstract, size=region or latent_size, iterations=iterations)


def face_similarities(vae: VAE, arcface: ArcFace, latents: Array, crops: Crops, reference: Array) -> Float[Array, "f"]:
    """Cosine between each frame's face and the reference embedding, in float32.

    Args:
        latents: one chunk's clean latents as the UNet sees them, decoded together.
        crops: of each frame's face.
        reference: the reference's raw embedding.
    """
    frames = vae.decode(latents[None] / vae.config.scaling_factor)[0].astype(jnp.float32)
    frames = jnp.clip(frames / 2 + 0.5, 0, 1)
    embeddings = arcface(crops.cut(frames) * 2 - 1).astype(jnp.float32)
    return cosine(embeddings, reference[None])

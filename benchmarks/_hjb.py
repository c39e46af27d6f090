"""Stage of the report: an optimised step of the face optimisation, in its production function (`refine`).

The decoder and ArcFace hold random weights, and go towards a random direction: similarities say nothing of faces.
"""

import time
from collections.abc import Iterator
from functools import partial

import jax
import numpy as np

from benchmarks._case import HJB_ITERATIONS, Case, Row, plan, timed
from benchmarks._device import random_model
from stableanimator_jax.data.face_track import Face, FaceTrack
from stableanimator_jax.models.arcface import ArcFace
from stableanimator_jax.models.catalogue import blueprint
from stableanimator_jax.models.flops import matmul_flops, matmul_rate
from stableanimator_jax.models.functional import Model
from stableanimator_jax.models.vae import VAE
from stableanimator_jax.sampling.face_crop import crops_of
from stableanimator_jax.sampling.face_region import face_regions
from stableanimator_jax.sampling.hjb import Refinement, lower_chunk, refine, refine_chunk

LEARNING_RATE = 0.1  # the published first step's
MARGIN = 0.25
Models = tuple[Model[VAE], Model[ArcFace]]


def face_track(case: Case) -> FaceTrack:
    return FaceTrack.of([Face(np.array(case.face_box, np.float32))] * case.frames)


def region_size(case: Case, margin: float | None) -> tuple[int, int]:
    """Height and width, in latent cells, of what is decoded."""
    if margin is None:
        return case.latent_size
    faces, downscale = face_track(case), case.config.vae.downscale
    return face_regions(
        crops_of(faces, "box"),
        faces.valid,
        chunk=case.chunk,
        frame=case.latent_size,
        downscale=downscale,
        margin=margin,
    ).size


def step(models: Models, case: Case, margin: float | None) -> tuple[float, Refinement]:
    """Seconds of one optimised step, and what it gave."""
    latents = jax.random.normal(jax.random.key(1), (case.frames, *case.latent_size, case.config.vae.latent_channels))
    reference = jax.random.normal(jax.random.key(2), (case.config.arcface.embedding_dim,))
    start = time.perf_counter()
    out = refine(
        *models,
        latents.block_until_ready(),
        face_track(case),
        reference,
        LEARNING_RATE,
        iterations=HJB_ITERATIONS,
        chunk=case.chunk,
        margin=margin,
    )
    out.latents.block_until_ready()
    return time.perf_counter() - start, out


def measure(case: Case) -> Iterator[Row]:
    """Whole frames and the faces' region in bfloat16, and whole frames in float32, the reference."""
    exact = tuple(random_model(blueprint(case.config, name)) for name in ("vae", "arcface"))
    for dtype, margin in (("bfloat16", None), ("bfloat16", MARGIN), ("float32", None)):
        vae, arcface = (model.computing_in(dtype) for model in exact)
        size = region_size(case, margin)
        height, width = (n * case.config.vae.downscale for n in size)
        name = f"HJB step of {HJB_ITERATIONS} iterations, {dtype}, " + ("whole frames" if margin is None else "region")
        lowered = lower_chunk(
            vae, arcface, frames=case.chunk, latent_size=case.latent_size, iterations=HJB_ITERATIONS, region=size
        )
        arguments, _ = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), lowered.args_info)
        flop = matmul_flops(partial(refine_chunk, size=size, iterations=HJB_ITERATIONS), *arguments)
        first, out = step((vae, arcface), case, margin)
        yield timed(f"first {name}, which compiles", first, dtype=dtype)
        yield timed(
            name,
            *(step((vae, arcface), case, margin)[0] for _ in range(case.repeats)),
            flop=flop * case.frames / case.chunk,
            rate=matmul_rate(dtype),
            dtype=dtype,
            decoded=f"{width}x{height}",
            similarity=[out.similarity_before, out.similarity_after],
        )
        yield plan(f"{name}: its program", lowered.compile())

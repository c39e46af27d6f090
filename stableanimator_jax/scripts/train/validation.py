"""How well the model does on clips that it is not trained on: its loss at noise that never changes, and videos."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, PyTree, UInt8

from stableanimator_jax import diffusion
from stableanimator_jax.config import StableAnimatorConfig
from stableanimator_jax.data.clips import Clips, Pixels
from stableanimator_jax.data.device_batches import place_batch
from stableanimator_jax.data.loader import Loader
from stableanimator_jax.data.video import open_writer
from stableanimator_jax.files import replacing
from stableanimator_jax.hosts import wait_for_all
from stableanimator_jax.models.arcface import ArcFace, cosine
from stableanimator_jax.models.catalogue import sampling_models
from stableanimator_jax.models.functional import Model
from stableanimator_jax.parallel import rows_apart
from stableanimator_jax.sampling.config import SamplingConfig
from stableanimator_jax.sampling.face_crop import crop_boxes
from stableanimator_jax.sampling.pipeline import Animator
from stableanimator_jax.scripts.sample.contact_sheet import ContactSheet
from stableanimator_jax.scripts.train.best import Best
from stableanimator_jax.training.config import ValidationConfig
from stableanimator_jax.training.latents import EncodingNoise
from stableanimator_jax.training.objective import Draws
from stableanimator_jax.training.step import Metrics, Task, clip_errors, encoding_noise, latent_shape, means
from stableanimator_jax.training.trainable import Params, assemble

_SEED = 0  # another would make curves of two runs hard to compare


@dataclass(frozen=True)
class Validation:
    """What is validated on, and how."""

    config: ValidationConfig
    task: Task
    model: StableAnimatorConfig
    mesh: Mesh
    loader: Loader
    """Of this process's rows of the clips."""
    pixels: Loader
    """Of one whole clip at a time, for videos."""
    best: Best | None = None
    """Keeps the weights with the lowest loss, where that is asked for."""

    def loss(self, params: Params, frozen: Params, check: Callable[[], None]) -> dict[str, float]:
        """The means of `step.means` over the clips, each at every level, without dropout; by all processes together.

        `check` is called between batches.
        """
        rows = rows_apart(self.mesh)
        total: Metrics | None = None
        for number in range(-(-self.config.clips // rows)):
            batch = place_batch(self.loader.batch_at(number), self.mesh)
            for level in range(self.config.levels):
                check()
                key = jax.random.fold_in(jax.random.key(_SEED), level)
                u = (level + 0.5) / self.config.levels
                found = jax.device_get(
                    self._measured(
                        params, frozen, batch, jax.random.key_data(key), np.int32(number * rows), np.float32(u)
                    )
                )
                total = found if total is None else cast(Metrics, jax.tree.map(np.add, total, found))
        assert total is not None
        return means(total)

    def videos(
        self, params: Params, frozen: Params, directory: Path, check: Callable[[], None]
    ) -> tuple[dict[str, float], dict[str, UInt8[np.ndarray, "h w 3"]]]:
        """Make videos of the first clips into `directory`, by process 0 on one device; the others wait.

        Returns:
            `csim`, the mean over the frames with a face of the cosine similarity of ArcFace's embeddings of the made
            face and the true one, both cropped by the true one's box (no value without ArcFace in the checkpoint, or
            without a face); and contact sheets by name.
        """
        if not self.config.videos:
            return {}, {}
        models = _on_one_device(assemble(self.task.blueprints, params, frozen, self.task.trainable))
        similarities: dict[str, list[float]] = {}
        sheets = {}
        if jax.process_index() == 0:
            animator = Animator(self.model, **{name: models[name] for name in sampling_models(self.model)})
            for number in range(self.config.videos):
                clip = self.pixels.batch_at(number)
                pixels = cast(Pixels[np.ndarray], clip.images)
                name = f"{number}_{_file_name(clip.names[0])}"
                made, sheet = self._animate(animator, pixels.reference[0], clip, check)
                fps = self.task.objective.fps
                # Replacing what the run left there before it went back to an earlier step.
                with open_writer(directory / f"{name}.mp4", *made.shape[2:0:-1], fps=fps, overwrite=True) as video:
                    for frame in made:
                        video.write(frame)
                with replacing(directory / f"{name}.png") as path:
                    sheet.save(path)
                sheets[f"validation/{number}"] = np.asarray(sheet.image())
                if "arcface" in models:
                    similarities[name] = face_similarities(models["arcface"], made, pixels.frames[0], clip.masks[0])
            with replacing(directory / "csim.json") as path:
                path.write_text(json.dumps(similarities, indent=1) + "\n", encoding="utf-8")
        wait_for_all()
        found = [value for values in similarities.values() for value in values]
        return {"csim": float(np.mean(found))} if found else {}, sheets

    def _measured(self, params: Params, frozen: Params, batch: Clips[Array], *rest: Any) -> Metrics:
        size = batch.masks.shape
        with jax.set_mesh(self.mesh):
            if size not in self._programs:
                self._programs[size] = self._measure.lower(params, frozen, batch, *rest).compile()
                wait_for_all()
            return self._programs[size](params, frozen, batch, *rest)

    @cached_property
    def _programs(self) -> dict[Any, Any]:
        return {}

    @cached_property
    def _measure(self) -> Any:
        """Sums over one batch at one noise level."""

        def measure(params: Params, frozen: Params, batch: Clips[Array], key: Array, first: Array, u: Array) -> Metrics:
            b = len(batch.masks)
            one = jax.tree.map(lambda rows: rows[:1], batch)
            latents = latent_shape(self.task, one)

            def drawn(row: Array) -> tuple[EncodingNoise, Array]:
                own = jax.random.fold_in(jax.random.wrap_key_data(key), first + row)
                noise = diffusion.standard_noise(jax.random.fold_in(own, 1), latents)
                return jax.tree.map(lambda rows: rows[0], (encoding_noise(own, latents, one), noise))

            # Each clip has noise of its own, in whatever batch it is.
            encoding, noise = jax.vmap(drawn)(jnp.arange(b, dtype=jnp.int32))
            rows = jnp.ones((b,), jnp.float32)
            draws = Draws(noise, diffusion.training_sigmas(u * rows), rows)
            return clip_errors(self.task, params, frozen, batch, encoding, draws, dropout=0.0)

        return jax.jit(measure)

    def _animate(
        self,
        animator: Animator,
        reference: UInt8[np.ndarray, "H W 3"],
        clip: Clips[np.ndarray],
        check: Callable[[], None],
    ) -> tuple[np.ndarray, ContactSheet]:
        objective = self.task.objective
        poses = clip.poses[0]
        sampling = SamplingConfig(
            steps=self.config.steps,
            guidance_min=self.config.guidance,
            guidance_max=self.config.guidance,
            window=max(2, len(poses)),
            overlap=1,
            noise_augmentation=objective.noise_augmentation,
            fps=objective.fps,
            motion_bucket=objective.motion_bucket,
            seed=_SEED,
        )
        sheet = ContactSheet(reference, poses, len(poses))
        made = animator.animate(
            reference,
            poses,
            id_embedding=clip.id_embedding[0],
            sampling=sampling,
            on_denoise=lambda done, total: check(),
            on_decode=lambda done, total: check(),
        )
        for frame in made:
            sheet.add(frame)
        return made, sheet


def face_similarities(
    arcface: Model[ArcFace],
    made: UInt8[np.ndarray, "f H W 3"],
    true: UInt8[np.ndarray, "f H W 3"],
    masks: Bool[np.ndarray, "f h w"],
) -> list[float]:
    """Cosine similarities of ArcFace's embeddings of two videos' faces, of each frame with one.

    Args:
        arcface: the model.
        made, true: the same frames twice.
        masks: where the true face is, at latent resolution; all over: not known, left out.
    """
    scale = true.shape[1] // masks.shape[1]
    frames = [k for k, mask in enumerate(masks) if mask.any() and not mask.all()]
    boxes = []
    for k in frames:
        rows, columns = (np.flatnonzero(masks[k].any(axis)) for axis in (1, 0))
        sides = (columns[0] * scale, rows[0] * scale, (columns[-1] + 1) * scale - 1, (rows[-1] + 1) * scale - 1)
        boxes.append(np.asarray(sides, np.float32))
    return [float(_similarity(arcface, made[k], true[k], box)) for k, box in zip(frames, boxes, strict=True)]


@jax.jit
def _similarity(
    arcface: Model[ArcFace], made: UInt8[Array, "H W 3"], true: UInt8[Array, "H W 3"], box: Float[Array, "4"]
) -> Float[Array, ""]:
    both = jnp.stack([made, true]).astype(jnp.float32) / 255
    embeddings = arcface.module()(crop_boxes(both, jnp.stack([box, box])) * 2 - 1)
    return cosine(*embeddings)


def _on_one_device(tree: PyTree[Array]) -> PyTree[Array]:
    """Copies on process 0's first device, of arrays that many devices may hold; nothing on other processes."""

    def copy(array: Array) -> Array | None:
        if jax.process_count() == 1:
            return jax.device_put(array, jax.local_devices()[0])
        whole = multihost_utils.process_allgather(array, tiled=True)
        return jax.device_put(whole, jax.local_devices()[0]) if jax.process_index() == 0 else None

    return jax.tree.map(copy, tree)


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)[-64:]

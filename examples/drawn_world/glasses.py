"""Whether a face wears glasses, told by a few convolutions: a small thing that made faces often get wrong."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import einops
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Float32, UInt8

from examples.drawn_world.arcface import augmented, draw_faces
from examples.drawn_world.clips import TRAIN_SEEDS, VALIDATION_SEEDS
from examples.drawn_world.fitting import FitConfig, fit
from examples.drawn_world.people import make_person
from stableanimator_jax.data.face_track import FaceTrack
from stableanimator_jax.errors import InputError, reason_of
from stableanimator_jax.files import replacing
from stableanimator_jax.sampling.face_crop import crop_boxes
from stableanimator_jax.training.latents import pixels
from stableanimator_jax.weights.rules import dotted, flatten, unflatten

_WIDTHS = (16, 32, 64, 64)
GLASSES_FILE = "glasses.npz"

WearsGlasses = Callable[[UInt8[np.ndarray, "f h w 3"], Float32[np.ndarray, "f 4"]], Bool[np.ndarray, "f"]]
"""Of frames, and the faces' boxes in them (left, top, right, bottom in pixels, inclusive)."""


@dataclass(frozen=True)
class GlassesTraining(FitConfig):
    """Training of what tells faces with glasses from those without."""

    output: Path = Path("outputs/drawn_world/glasses")
    """Where it goes; `OUTPUT.progress` beside it is what a stopped run goes on from, and holds the curves."""
    steps: int = 300
    batch: int = 32
    learning_rate: float = 3e-3
    optimizer: Literal["adamw", "muon"] = "muon"
    people: int = 2000
    """To learn from."""
    tests: int = 1000
    """Unseen people, a face each, to count mistakes on."""
    size: int = 64
    """Of the pictures that faces are cut out of."""


class GlassesNetwork(nnx.Module):
    """Face crops in [-1, 1] to the logit that they wear glasses."""

    def __init__(self, *, rngs: nnx.Rngs):
        inputs = (3, *_WIDTHS[:-1])
        sides = zip(inputs, _WIDTHS, strict=True)
        self.convs = nnx.List([nnx.Conv(i, o, (3, 3), strides=2, rngs=rngs) for i, o in sides])
        self.norms = nnx.List([nnx.GroupNorm(width, num_groups=8, rngs=rngs) for width in _WIDTHS])
        self.out = nnx.Linear(_WIDTHS[-1], 1, rngs=rngs)

    def __call__(self, faces: Float[Array, "b h w 3"]) -> Float[Array, "b"]:
        x = einops.reduce(faces, "b (h 2) (w 2) c -> b h w c", "mean")  # faces were enlarged to this size
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = jax.nn.silu(norm(conv(x)))
        return self.out(x.mean(axis=(1, 2)))[:, 0]


def train(config: GlassesTraining) -> None:
    """Train it, write it, and tell how often it is right about people that it never saw.

    Raises:
        InputError: the output is there already, or cannot be written.
    """
    if (config.output / GLASSES_FILE).exists():
        raise InputError(f"{config.output} is there already; remove it, or name another --output")
    graphdef, params = nnx.split(GlassesNetwork(rngs=nnx.Rngs(config.seed)), nnx.Param)

    def loss(params: Any, statistics: Any, batch: Any, key: Array) -> Any:
        logits = nnx.merge(graphdef, params)(augmented(batch["pictures"], batch["boxes"], key))
        wears = batch["wears"]
        value = -jax.nn.log_sigmoid(jnp.where(wears, logits, -logits)).mean()
        accuracy = jnp.mean(((logits > 0) == wears).astype(jnp.float32))
        return value, (statistics, {"loss": value, "accuracy": accuracy})

    def draw_batch(random: np.random.Generator) -> dict[str, np.ndarray]:
        people = TRAIN_SEEDS + random.integers(0, config.people, config.batch)
        pictures, boxes = draw_faces(people, random, config.size)
        return {"pictures": pictures, "boxes": boxes, "wears": np.array([has_glasses(int(p)) for p in people])}

    fitted = fit(config, nnx.to_pure_dict(params), {}, loss, draw_batch)
    config.output.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {dotted(path): np.asarray(leaf) for path, leaf in flatten(fitted.params).items()}
    with replacing(config.output / GLASSES_FILE) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)
    wears = load_glasses(config.output)
    people = VALIDATION_SEEDS + np.arange(config.tests)
    found = wears(*draw_faces(people, np.random.default_rng([config.seed, 0, 8]), config.size))  # no step's
    right = np.mean(found == np.array([has_glasses(int(person)) for person in people]))
    print(f"{config.output}: right about {right:.1%} of {config.tests} people it never saw")


def has_glasses(person: int) -> bool:
    """Whether the person of this seed wears any."""
    return make_person(person).glasses != "none"


def load_glasses(folder: Path) -> WearsGlasses:
    """What `train` left in a folder.

    Raises:
        InputError: there is nothing, or something else.
    """
    graphdef, wanted = nnx.split(nnx.eval_shape(lambda: GlassesNetwork(rngs=nnx.Rngs(0))), nnx.Param)
    shapes = flatten(nnx.to_pure_dict(wanted))
    try:
        with (folder / GLASSES_FILE).open("rb") as file, np.load(file) as arrays:
            params = unflatten({path: jnp.asarray(arrays[dotted(path)].reshape(s.shape)) for path, s in shapes.items()})
    except (OSError, ValueError, KeyError, EOFError, TypeError, BadZipFile) as e:
        why = reason_of(e) if isinstance(e, OSError) else "it is something else"
        raise InputError(f"cannot read {folder / GLASSES_FILE}, which `glasses` makes: {why}") from e

    @jax.jit
    def logits(params: Any, frames: Array, boxes: Array) -> Array:
        return nnx.merge(graphdef, params)(crop_boxes(pixels(frames), boxes))

    return lambda frames, boxes: np.asarray(logits(params, frames, boxes)) > 0


def share_right(wears: WearsGlasses, frames: UInt8[np.ndarray, "f h w 3"], faces: FaceTrack, person: int) -> float:
    """The share of frames with a face in which glasses are there, or not, as the person of this seed has them."""
    found = wears(frames, faces.boxes)[faces.valid]
    return float(np.mean(found == has_glasses(person)))

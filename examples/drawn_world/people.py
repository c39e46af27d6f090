"""Drawn people: who somebody is (face, hair, clothes), by a seed."""

import typing
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32

Colour = tuple[int, int, int]
Hair = Literal["bald", "short", "fringe", "side", "long", "bun", "curls"]
Glasses = Literal["none", "round", "square"]
Beard = Literal["none", "moustache", "goatee", "full"]
Shirt = Literal["plain", "stripes", "hoops", "dots", "collar"]

SKINS: tuple[Colour, ...] = (
    (255, 224, 196), (241, 194, 150), (224, 172, 122), (198, 134, 90), (160, 104, 66), (120, 76, 48), (88, 56, 40),
)  # fmt: skip
HAIRS: tuple[Colour, ...] = (
    (24, 20, 20), (66, 42, 28), (112, 70, 36), (168, 110, 52), (224, 184, 104), (172, 60, 28), (150, 150, 156),
    (92, 48, 120),
)  # fmt: skip
EYES: tuple[Colour, ...] = ((60, 36, 20), (110, 72, 30), (40, 110, 60), (46, 96, 176), (120, 124, 132))
LIPS: tuple[Colour, ...] = ((196, 96, 96), (168, 64, 72), (214, 120, 112), (140, 60, 60), (176, 40, 72))


@dataclass(frozen=True)
class Person:
    """Lengths are in head half-heights: 1 is from the middle of the head to its top."""

    skin: Colour
    hair: Hair
    hair_colour: Colour
    eye_colour: Colour
    lip_colour: Colour
    head_width: float
    jaw_width: float
    """Of the chin's side, as a share of the head's width."""
    eye_distance: float
    eye_size: float
    brow_thickness: float
    brow_tilt: float
    """Positive: the outer end is higher."""
    brow_height: float
    nose_length: float
    nose_width: float
    mouth_width: float
    lip_thickness: float
    ear_size: float
    glasses: Glasses
    glasses_colour: Colour
    beard: Beard
    mole: tuple[float, float] | None
    """(x, y) on the face."""
    freckles: bool
    shirt: Shirt
    shirt_colour: Colour
    shirt_second: Colour
    shoulders: float


def make_person(seed: int) -> Person:
    """The same seed, the same person; attributes are independent of each other but for what cannot be together."""
    r = np.random.Generator(np.random.PCG64([7, seed]))

    def uniform(low: float, high: float) -> float:
        return float(r.uniform(low, high))

    def pick(options: tuple, weights: tuple[float, ...] | None = None):
        p = None if weights is None else np.asarray(weights) / sum(weights)
        return options[int(r.choice(len(options), p=p))]

    def colour(low: int = 30, high: int = 235) -> Colour:
        return tuple(int(c) for c in r.integers(low, high, 3))  # type: ignore[return-value]

    return Person(
        skin=pick(SKINS),
        hair=pick(("bald", "short", "fringe", "side", "long", "bun", "curls"), (0.7, 1, 1, 1, 1, 1, 1)),
        hair_colour=pick(HAIRS),
        eye_colour=pick(EYES),
        lip_colour=pick(LIPS),
        head_width=uniform(0.66, 0.86),
        jaw_width=uniform(0.45, 0.85),
        eye_distance=uniform(0.26, 0.36),
        eye_size=uniform(0.085, 0.13),
        brow_thickness=uniform(0.03, 0.085),
        brow_tilt=uniform(-0.08, 0.08),
        brow_height=uniform(0.17, 0.26),
        nose_length=uniform(0.22, 0.38),
        nose_width=uniform(0.08, 0.17),
        mouth_width=uniform(0.17, 0.30),
        lip_thickness=uniform(0.035, 0.085),
        ear_size=uniform(0.12, 0.22),
        glasses=pick(("none", "round", "square"), (3, 1, 1)),
        glasses_colour=pick(((20, 20, 24), (150, 30, 40), (40, 60, 140), (170, 130, 40))),
        beard=pick(("none", "moustache", "goatee", "full"), (4, 1, 1, 1)),
        mole=(uniform(-0.4, 0.4), uniform(0.15, 0.5)) if r.random() < 0.35 else None,
        freckles=bool(r.random() < 0.2),
        shirt=pick(("plain", "stripes", "hoops", "dots", "collar")),
        shirt_colour=colour(),
        shirt_second=colour(),
        shoulders=uniform(1.25, 1.6),
    )


_NUMBERS = {
    "head_width": (0.66, 0.86),
    "jaw_width": (0.45, 0.85),
    "eye_distance": (0.26, 0.36),
    "eye_size": (0.085, 0.13),
    "brow_thickness": (0.03, 0.085),
    "nose_length": (0.22, 0.38),
    "nose_width": (0.08, 0.17),
    "mouth_width": (0.17, 0.30),
    "shoulders": (1.25, 1.6),
}
_CHOICES: dict[str, tuple[str, ...]] = {
    name: typing.get_args(kind)
    for name, kind in (("hair", Hair), ("glasses", Glasses), ("beard", Beard), ("shirt", Shirt))
}
_COLOURS = ("skin", "hair_colour", "eye_colour", "lip_colour", "glasses_colour", "shirt_colour", "shirt_second")


def description(person: Person) -> Float32[np.ndarray, " d"]:
    """What could be said of somebody, in numbers about from -1 to 1."""
    numbers = [2 * (getattr(person, name) - low) / (high - low) - 1 for name, (low, high) in _NUMBERS.items()]
    choices = [float(getattr(person, name) == option) for name, options in _CHOICES.items() for option in options]
    colours = [channel / 127.5 - 1 for name in _COLOURS for channel in getattr(person, name)]
    return np.array([*numbers, *choices, *colours, person.freckles, person.mole is not None], np.float32)

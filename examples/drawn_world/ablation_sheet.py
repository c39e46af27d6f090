"""One picture of unseen people: each one's reference, true frames, and the same frames as they were made."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from examples.drawn_world.study import Study
from stableanimator_jax.scripts.sample.contact_sheet import chosen_frames

_ENLARGED = 128  # pixels of a picture on the sheet, about
_FRAMES = 3  # of each video
_GAP, _GROUP_GAP, _LABEL = 4, 16, 24
_INK = (40, 40, 40)


def draw_sheet(study: Study, names: Sequence[str], people: int) -> Image.Image:
    """The sheet, a row a person.

    Args:
        study: the videos.
        names: of the conditions that are shown, from left to right.
        people: that are shown: the first ones, whatever became of them.
    """
    rows = study.pairs[:people]
    chosen = chosen_frames(len(rows[0].truth), _FRAMES)
    numbers = ", ".join(map(str, chosen))
    groups: list[tuple[str, list[list[np.ndarray]]]] = [
        ("reference", [[p.reference] for p in rows]),
        (f"truth, frames {numbers}", [list(p.truth[chosen]) for p in rows]),
    ]
    for name in names:
        groups.append(
            (study.conditions[name].title, [list(v[chosen]) for v in study.measured[name].videos[: len(rows)]])
        )
    size = rows[0].reference.shape[0]
    scale = max(1, round(_ENLARGED / size))
    step = scale * size + _GAP
    lefts = np.cumsum([_GAP] + [len(pictures[0]) * step + _GROUP_GAP for _, pictures in groups]).tolist()
    sheet = Image.new("RGB", (lefts[-1] - _GROUP_GAP, _LABEL + len(rows) * step), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=14)
    for left, (label, pictures) in zip(lefts[:-1], groups, strict=True):
        draw.text((left, 3), label, fill=_INK, font=font)
        for row, some in enumerate(pictures):
            for column, picture in enumerate(some):
                # Hard pixels: what was computed is what is seen.
                large = picture.repeat(scale, axis=0).repeat(scale, axis=1)
                sheet.paste(Image.fromarray(large), (left + column * step, _LABEL + row * step))
    return sheet

"""A video, its truth and its reference in one small picture."""

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stableanimator_jax.data.images import fit
from stableanimator_jax.evaluation.measures import Measured, VideoPair
from stableanimator_jax.scripts.sample.contact_sheet import chosen_frames

_SIDE = 144  # pixels of a picture's longer side
_GAP = 6
_LABEL = 18
_INK, _WORST = (60, 60, 60), (170, 20, 20)
_FRAMES = 6
_CURVES = ("psnr", "ssim", "csim_reference", "pck")


def strip(pair: VideoPair, measured: Measured) -> bytes:
    """A JPEG: at the left the reference; at the right some frames, the worst one among them, over the true ones."""
    worst = worst_frame(measured)
    shown = {*chosen_frames(len(pair.generated), _FRAMES - (worst is not None))}
    shown = sorted(shown if worst is None else {*shown, worst})
    rows = [("generated", pair.generated)] + ([] if pair.truth is None else [("truth", pair.truth)])
    height, width = pair.generated.shape[1:3]
    scale = _SIDE / max(height, width)
    cell = max(1, round(width * scale)), max(1, round(height * scale))
    left = 0 if pair.reference is None else cell[0] + 3 * _GAP
    size = (left + len(shown) * (cell[0] + _GAP) + _GAP, len(rows) * (cell[1] + _LABEL) + _GAP)
    picture = Image.new("RGB", size, (255, 255, 255))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=12)

    def paste(image: np.ndarray, label: str, x: int, y: int, ink: tuple[int, int, int] = _INK) -> None:
        picture.paste(Image.fromarray(fit(image, *cell, "pad", filter="bicubic")), (x, y))
        draw.text((x, y + cell[1] + 1), label, fill=ink, font=font)

    if pair.reference is not None:
        paste(pair.reference, "reference", _GAP, _GAP)
    for row, (title, frames) in enumerate(rows):
        for column, i in enumerate(shown):
            label = f"{title} {i}" if column == 0 else str(i)
            bad = i == worst and row == 0
            x, y = left + _GAP + column * (cell[0] + _GAP), _GAP + row * (cell[1] + _LABEL)
            paste(frames[i], f"{label}: worst" if bad else label, x, y, _WORST if bad else _INK)
    file = io.BytesIO()
    picture.save(file, format="JPEG", quality=88, subsampling=0)
    return file.getvalue()


def worst_frame(measured: Measured) -> int | None:
    """By the first measure there is that says so; None where there is none, or frames hardly differ in it."""
    for name in _CURVES:
        curve = np.array(measured.frames.get(name, []), np.float64)
        known = curve[np.isfinite(curve)]
        if known.size > 1 and np.ptp(known) > 1e-9:
            return int(np.nanargmin(curve))
    return None

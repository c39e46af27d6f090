"""One picture that shows a run: the reference, and some poses with the frames made from them."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

_COLUMNS = 4
_CELL = 256  # pixels of a cell's longer side: frames are scaled to it, small ones up
_GAP = 8
_LABEL = 20
_BACKGROUND = (255, 255, 255)
_INK = (40, 40, 40)


def chosen_frames(frames: int, most: int = 2 * _COLUMNS) -> list[int]:
    """At most `most` frame numbers, evenly spaced, with the first and the last among them."""
    return [int(i) for i in np.unique(np.linspace(0, frames - 1, min(frames, most)).round().astype(int))]


@dataclass
class ContactSheet:
    """Collects the frames that the sheet shows while the video streams by; the others are not kept."""

    reference: UInt8[np.ndarray, "h w 3"]
    """At any size."""
    poses: UInt8[np.ndarray, "f height width 3"] | None
    """None shows frames alone."""
    count: int
    """Frames of the video."""
    frames: dict[int, UInt8[np.ndarray, "height width 3"]] = field(default_factory=dict)
    seen: int = 0

    def __post_init__(self):
        self.chosen = chosen_frames(self.count)

    def add(self, frame: UInt8[np.ndarray, "height width 3"]) -> None:
        """Take the video's next frame."""
        if self.seen in self.chosen:
            self.frames[self.seen] = frame.copy()
        self.seen += 1

    def image(self) -> Image.Image:
        """Draw the sheet: the reference at the left; at the right, four to a band, poses over their frames."""
        height, width = self.frames[0].shape[:2]
        cell_w, cell_h = _scaled(width, height)
        columns = min(len(self.chosen), _COLUMNS)
        bands = -(-len(self.chosen) // _COLUMNS)
        step_x, step_y = cell_w + _GAP, cell_h + _LABEL
        rows = 1 if self.poses is None else 2
        band = rows * step_y + 2 * _GAP
        left = _GAP + step_x + _GAP  # of the first pose, right of the reference
        size = (left + columns * step_x, bands * band)
        sheet = Image.new("RGB", size, _BACKGROUND)
        draw = ImageDraw.Draw(sheet)
        font = ImageFont.load_default(size=14)

        def paste(picture: np.ndarray, label: str, x: int, y: int) -> None:
            sheet.paste(_cell(picture, cell_w, cell_h), (x, y))
            draw.text((x, y + cell_h + 2), label, fill=_INK, font=font)

        paste(self.reference, "reference", _GAP, _GAP)
        for k, i in enumerate(self.chosen):
            x, y = left + (k % _COLUMNS) * step_x, _GAP + (k // _COLUMNS) * band
            if self.poses is not None:
                paste(_brightened(self.poses[i]), f"pose {i}", x, y)
            paste(self.frames[i], f"frame {i}", x, y + (rows - 1) * step_y)
        return sheet

    def save(self, path: Path) -> None:
        """Write the sheet as a PNG file."""
        self.image().save(path, format="PNG")


def _scaled(width: int, height: int) -> tuple[int, int]:
    scale = _CELL / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _brightened(pose: np.ndarray) -> np.ndarray:
    """Up to full brightness: of thin lines made small little is left to be seen."""
    return (pose * (255 / max(1, pose.max()))).round().astype(np.uint8)


def _cell(picture: np.ndarray, width: int, height: int) -> Image.Image:
    """`picture` as large as fits the cell, centred. Small ones keep hard pixels: what was computed is what is seen."""
    image = Image.fromarray(picture)
    scale = min(width / image.width, height / image.height)
    fitted = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    if abs(fitted[0] - width) <= 1 and abs(fitted[1] - height) <= 1:
        fitted = width, height  # of the cell's aspect but for rounding: no black sliver
    image = image.resize(fitted, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS)
    cell = Image.new("RGB", (width, height), (0, 0, 0))
    cell.paste(image, ((width - fitted[0]) // 2, (height - fitted[1]) // 2))
    return cell

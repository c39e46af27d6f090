"""Images: any file to 8-bit sRGB as a person sees it, and fitting to a size without stretching."""

import functools
import io
import math
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageCms, ImageOps

from stableanimator_jax.errors import InputError
from stableanimator_jax.files import require_file

FitMode = Literal["crop", "pad"]
Filter = Literal["lanczos", "bicubic"]
Colour = tuple[int, int, int]
ImageArray = UInt8[np.ndarray, "h w 3"]
ImageLike = ImageArray | Image.Image | Path | str
"""An image as people have it: an array, Pillow's, or a file."""

WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)

_MOST_PADDED_PIXELS = 2**28  # 0.8 GB; photos stay well below

_MOST_ASPECT = 4  # of an output whose size is not given
_LYING = (5, 6, 7, 8)  # EXIF's orientations that exchange width and height
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

_FILTERS = {"lanczos": Image.Resampling.LANCZOS, "bicubic": Image.Resampling.BICUBIC}


def load_image(path: Path | str, *, what: str = "image", background: Colour = WHITE) -> UInt8[np.ndarray, "h w 3"]:
    """Read an image file as 8-bit sRGB, upright.

    Rotation by EXIF is applied, and an embedded colour profile is converted from; one that is broken is passed over
    with a warning on stderr. Transparency is laid over `background`: white, as viewers and browsers show a cut-out
    person; skeletons want black. Of an animation the first frame counts. Deeper images are scaled to 8 bits: integers
    as 16-bit (0 to 65535), floats as 0 to 1, or as 0 to 255 where any value is above 1. HEIC is read where
    pillow-heif is installed (the extra `heif`).

    Args:
        path: the file.
        what: names the file in errors, as in "reference image".
        background: RGB behind transparent pixels.

    Raises:
        InputError: the file is missing, empty, a directory, no image, damaged, or too large to be a photo; or it is
            HEIC, and pillow-heif is not installed.
    """
    path = Path(path)
    with _opened(path, what) as image:
        image.load()
        return _to_rgb(ImageOps.exif_transpose(image), background, f"{what} {path}")


def as_image(image: ImageLike, *, what: str = "image", background: Colour = WHITE) -> UInt8[np.ndarray, "h w 3"]:
    """What `load_image` makes of a file or of an image of Pillow's; an array is taken as it is.

    Raises:
        InputError: as `load_image`; an array that is not uint8 RGB, or something else altogether.
    """
    if isinstance(image, str | Path):
        return load_image(image, what=what, background=background)
    if isinstance(image, Image.Image):
        with _explained(what):
            return _to_rgb(ImageOps.exif_transpose(image), background, what)
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3 or 0 in array.shape:
        got = f"{array.dtype} {list(array.shape)}" if array.ndim else type(image).__name__
        raise InputError(f"{what} must be uint8 RGB [height, width, 3], not empty; got {got}")
    return array


def image_size(path: Path, *, what: str = "image") -> tuple[int, int]:
    """Width and height of what `load_image` reads, from the file's header alone. Raises `InputError` as it does."""
    with _opened(path, what) as image:
        width, height = image.size
        return (height, width) if image.getexif().get(ExifTags.Base.Orientation, 1) in _LYING else (width, height)


@contextmanager
def _opened(path: Path, what: str) -> Iterator[Image.Image]:
    """The image for a `with` block; every way in which opening it, and the block, can fail is an `InputError`."""
    require_file(path, what)
    # A large photo is welcome; from twice as large on, Pillow raises an error.
    quiet = warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning)
    heic = _is_heic(path)
    with _explained(f"{what} {path}", unknown="it may be damaged" if heic else "or of a kind that Pillow cannot read"):
        if heic:
            _register_heic()
        with quiet, Image.open(path) as image:
            yield image


@contextmanager
def _explained(label: str, unknown: str = "it may be damaged") -> Iterator[None]:
    """What goes wrong with an image in the block is an `InputError` that names it."""
    try:
        yield
    except Image.UnidentifiedImageError:
        raise InputError(f"{label} is not an image, {unknown}") from None
    except Image.DecompressionBombError:
        raise InputError(f"{label} is far too large for a photo; scale it down first") from None
    except InputError as e:
        raise InputError(f"{label}: {e}") from None
    except MemoryError as e:
        raise InputError(f"not enough memory for {label}; scale it down first") from e
    except Exception as e:  # Pillow's decoders raise all kinds of exceptions for damaged files
        raise InputError(f"cannot read {label}, it may be damaged: {e}") from e


def _is_heic(path: Path) -> bool:
    """Whether it is HEIF with HEVC inside, as iPhones write it; AVIF is Pillow's own."""
    with path.open("rb") as file:
        head = file.read(64)
    return head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS and b"avif" not in head


def _register_heic() -> None:
    try:
        import pillow_heif  # pyright: ignore[reportMissingImports]  # an extra
    except ImportError:
        raise InputError(
            "a HEIC image needs the package pillow-heif: pip install 'stableanimator-jax[heif]' (in a clone: "
            "pip install -e '.[heif]'); or save it as JPEG or PNG"
        ) from None
    pillow_heif.register_heif_opener()


def _to_rgb(image: Image.Image, background: Colour, label: str) -> ImageArray:
    profile = image.info.get("icc_profile")
    alpha = None
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = Image.fromarray(_to_8_bit(np.asarray(image)))
    elif image.has_transparency_data:
        alpha = image.convert("RGBA").getchannel("A")
    if profile:
        try:
            image = _to_srgb(image, profile)
        except (ImageCms.PyCMSError, OSError, ValueError) as e:
            _warn_of_profile(label, str(e))
    image = image.convert("RGB")
    if alpha is not None:
        image.putalpha(alpha)
        image = laid_over(image, background)
    return np.array(image)


def laid_over(image: Image.Image, background: Colour) -> Image.Image:
    """An RGBA image as RGB, on a colour where it is transparent."""
    return Image.alpha_composite(Image.new("RGBA", image.size, (*background, 255)), image).convert("RGB")


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Raises `PyCMSError`, `OSError` or `ValueError` for a profile that is broken or another kind of image's."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    colours = profile[16:20].decode("ascii").strip()  # of its header
    grey = image.mode in ("1", "L", "LA", "La")
    own = "GRAY" if grey else "CMYK" if image.mode == "CMYK" else "RGB"
    if colours != own and not (grey and colours == "RGB"):  # writers give grey images sRGB's
        raise ValueError(f"it is for {colours} colours, but the image is {own}")
    image = image.convert({"GRAY": "L"}.get(colours, colours))
    converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert converted is not None  # it is only where an image is changed in place
    return converted


@functools.cache  # once a file: training reads it again and again
def _warn_of_profile(label: str, reason: str) -> None:
    print(f"warning: {label}: its colour profile is ignored: {reason}", file=sys.stderr)


def _to_8_bit(deep: np.ndarray) -> np.ndarray:
    low, high = float(deep.min()), float(deep.max())
    floating = np.issubdtype(deep.dtype, np.floating)
    limit = (1.0 if high <= 1 else 255.0) if floating else 65535.0
    if not (low >= 0 and high <= limit):  # written so that NaN fails too
        kind = "floats must lie in 0 to 1 or 0 to 255" if floating else "integers must lie in 0 to 65535"
        raise InputError(f"its pixels go from {low:g} to {high:g}, but {kind}; save it as an 8-bit image")
    return np.round(deep * (255.0 / limit)).astype(np.uint8)


class Window(NamedTuple):
    """A part of an image in pixels, or, where it reaches beyond, the image with bars around it."""

    left: int
    """Column of the image where it begins; negative where there is a bar."""
    top: int
    width: int
    height: int


def aspect_window(image_width: int, image_height: int, width: int, height: int, mode: FitMode) -> Window:
    """What `fit_aspect` makes of an image of this size: its centre, cut out or between bars, in the aspect
    width:height (to the nearest pixel). `fit` then resizes it to width x height."""
    by_height, by_width = max(1, round(image_height * width / height)), max(1, round(image_width * height / width))
    too_wide = image_width * height > image_height * width
    if too_wide == (mode == "crop"):
        new_width, new_height = by_height, image_height
    else:
        new_width, new_height = image_width, by_width
    return Window((image_width - new_width) // 2, (image_height - new_height) // 2, new_width, new_height)


def automatic_size(image_width: int, image_height: int) -> tuple[int, int]:
    """Width and height of an output that shows (nearly) all of an image: multiples of 64 of its aspect.

    A square gives 512x512 and 9:16 gives 576x1024, the sizes of the published training; aspects between them lie
    between those in area, and flatter ones have the area of the larger.
    """
    aspect = image_width / image_height
    aspect = min(max(aspect, 1 / _MOST_ASPECT), _MOST_ASPECT)
    share = min(1.0, abs(math.log(aspect)) / math.log(1024 / 576))
    area = 512**2 * (576 * 1024 / 512**2) ** share

    def cost(size: tuple[int, int]) -> float:
        cut_off = 1 - math.exp(-abs(math.log(size[0] / size[1] / aspect)))
        return cut_off + 0.1 * abs(math.log(size[0] * size[1] / area))

    sides = range(256, 1536 + 1, 64)
    return min(product(sides, sides), key=cost)


def fit(
    image: ImageArray, width: int, height: int, mode: FitMode, *, filter: Filter, fill: Colour = BLACK
) -> UInt8[np.ndarray, "height width 3"]:
    """Bring an image to a size without stretching: `fit_aspect`, then `resize`."""
    return resize(fit_aspect(image, width, height, mode, fill=fill), width, height, filter)


def fit_aspect(
    image: ImageArray, width: int, height: int, mode: FitMode, *, fill: Colour = BLACK
) -> UInt8[np.ndarray, "fitted_h fitted_w 3"]:
    """Give an image the aspect width:height (to the nearest pixel) at its own resolution.

    "crop" cuts the centre out; "pad" centres the image between bars of the RGB colour `fill`. An image that has the
    aspect already is returned as it is, so that fitting it is then exactly the published resize.

    Raises:
        InputError: with its bars the image would be absurdly large.
    """
    image_height, image_width = image.shape[:2]
    left, top, new_width, new_height = aspect_window(image_width, image_height, width, height, mode)
    if (new_width, new_height) == (image_width, image_height):
        return image
    if mode == "crop":
        return image[top : top + new_height, left : left + new_width]
    if new_width * new_height > _MOST_PADDED_PIXELS:
        raise InputError(
            f"an image of {image_width}x{image_height} pixels would be {new_width}x{new_height} when padded to the "
            f"aspect {width}:{height}, which is too large; crop it instead, or scale it down first"
        )
    padded = np.full((new_height, new_width, 3), fill, np.uint8)
    padded[-top : image_height - top, -left : image_width - left] = image
    return padded


def resize(image: ImageArray, width: int, height: int, filter: Filter) -> UInt8[np.ndarray, "height width 3"]:
    """Pillow's antialiased resize. The published code uses Lanczos for references and bicubic for poses."""
    if image.shape[:2] == (height, width):
        return image
    return np.array(Image.fromarray(image).resize((width, height), _FILTERS[filter]))


def cover(image: ImageArray, width: int, height: int, mode: FitMode) -> UInt8[np.ndarray, "height width 3"]:
    """Bring an image to a size by bilinear interpolation without antialiasing, as MimicMotion and ControlNeXt do.

    It is scaled until it covers the size, its free side rounded up, and its middle is taken; to "pad", bars come first.
    """
    if mode == "pad":
        image = fit_aspect(image, width, height, mode)
    image_height, image_width = image.shape[:2]
    scale = max(width / image_width, height / image_height)
    lines = zip((image_height, image_width), (height, width), strict=True)
    rows, columns = (
        _between_lines(length, max(side, math.ceil(length * scale - 1e-9)), side) for length, side in lines
    )
    cut = image[rows.first : rows.last + 1, columns.first : columns.last + 1]
    cut = rows.of(cut, axis=0) if len(cut) > height else cut.astype(np.float32)
    cut = columns.of(cut, axis=1)
    cut = cut if len(cut) == height else rows.of(cut, axis=0)
    return np.round(cut).astype(np.uint8)


class _Lines(NamedTuple):
    """Lines of an image to interpolate between, along one axis."""

    first: int
    last: int
    low: np.ndarray
    """Of each new line the one before it, counted from `first`."""
    share: np.ndarray
    """Of the one behind that."""

    def of(self, image: np.ndarray, axis: int) -> np.ndarray:
        low = np.take(image, self.low, axis).astype(np.float32)
        high = np.take(image, np.minimum(self.low + 1, self.last - self.first), axis).astype(np.float32)
        return low + (high - low) * self.share.reshape(-1, *(1,) * (2 - axis)).astype(np.float32)


def _between_lines(length: int, scaled: int, side: int) -> _Lines:
    """The middle `side` of the lines that `length` of them become when scaled; their centres lie at halves."""
    begin = round((scaled - side) / 2)
    centres = np.clip((np.arange(begin, begin + side) + 0.5) * length / scaled - 0.5, 0, length - 1)
    low = np.floor(centres).astype(int)
    first, last = int(low[0]), min(int(low[-1]) + 1, length - 1)
    return _Lines(first, last, low - first, centres - low)

"""Reading photos: formats, orientations, transparency, depths, colour profiles, and files that are no photos."""

import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from stableanimator_jax.data.images import image_size, load_image
from stableanimator_jax.errors import InputError
from tests.data.clips import one_line


def save(path, array, mode=None, **options):
    Image.fromarray(array).convert(mode).save(path, **options) if mode else Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "ppm"])
def test_lossless_formats_read_exactly(tmp_path, gradient, suffix):
    image = load_image(save(tmp_path / f"a.{suffix}", gradient))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, gradient)


def test_result_may_be_written_to(tmp_path, gradient):
    load_image(save(tmp_path / "a.png", gradient))[0, 0] = 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(tmp_path, gradient, orientation):
    """Every orientation that a camera may write, undone: what is stored is turned so that its reading is upright."""
    as_stored = {
        1: gradient,
        2: gradient[:, ::-1],
        3: gradient[::-1, ::-1],
        4: gradient[::-1],
        5: gradient.transpose(1, 0, 2),
        6: np.rot90(gradient, 1),  # to be turned clockwise for display
        7: gradient.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(gradient, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(
        load_image(save(tmp_path / "a.png", np.ascontiguousarray(as_stored), exif=exif)), gradient
    )


def test_transparency_over_white_or_the_given_background(tmp_path, gradient):
    alpha = np.zeros((40, 60, 1), np.uint8)
    alpha[:, 20:40] = 255
    alpha[:, 40:] = 51  # a fifth
    path = save(tmp_path / "a.png", np.concatenate([gradient, alpha], axis=-1))
    white, red = load_image(path), load_image(path, background=(255, 0, 0))
    assert (white[:, :20] == 255).all()
    assert (red[:, :20] == (255, 0, 0)).all()
    np.testing.assert_array_equal(white[:, 20:40], gradient[:, 20:40])
    np.testing.assert_allclose(white[:, 40:], gradient[:, 40:] * 0.2 + 255 * 0.8, atol=1)


def test_grey_with_alpha_and_transparent_palette(tmp_path):
    grey_alpha = np.zeros((8, 8, 2), np.uint8)
    grey_alpha[:, :4] = (100, 255)
    image = load_image(save(tmp_path / "la.png", grey_alpha))
    assert (image[:, :4] == 100).all()
    assert (image[:, 4:] == 255).all()

    palette = Image.fromarray(np.repeat(np.arange(2, dtype=np.uint8), 32).reshape(8, 8), "P")
    palette.putpalette([10, 20, 30, 200, 100, 0])
    palette.save(tmp_path / "p.png", transparency=1)
    image = load_image(tmp_path / "p.png")
    assert (image[:4] == (10, 20, 30)).all()
    assert (image[4:] == 255).all()


def test_grey_and_bilevel(tmp_path, gradient):
    grey = gradient[..., 0]
    np.testing.assert_array_equal(load_image(save(tmp_path / "l.png", grey)), np.repeat(grey[..., None], 3, axis=-1))
    bilevel = load_image(save(tmp_path / "1.png", grey, "1"))
    assert set(np.unique(bilevel)) == {0, 255}


def test_cmyk(tmp_path):
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[..., 0] = 255  # cyan alone
    Image.fromarray(ink, "CMYK").save(tmp_path / "a.tiff")
    assert (load_image(tmp_path / "a.tiff") == (0, 255, 255)).all()


def test_jpeg_is_close(tmp_path, gradient):
    image = load_image(save(tmp_path / "a.jpg", gradient, quality=95))
    assert np.abs(image.astype(int) - gradient).mean() < 4


def test_16_bit_grey(tmp_path):
    deep = np.linspace(0, 65535, 64 * 64).round().astype(np.uint16).reshape(64, 64)
    image = load_image(save(tmp_path / "a.png", deep))
    np.testing.assert_array_equal(image[..., 0], np.round(deep / 257).astype(np.uint8))
    np.testing.assert_array_equal(load_image(save(tmp_path / "a.tiff", deep)), image)


def png_16_bit_rgb(path, pixels):
    """Pillow does not write these, so: signature, header, one IDAT of unfiltered rows, end."""
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    data = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def test_16_bit_rgb(tmp_path, gradient):
    png_16_bit_rgb(tmp_path / "a.png", gradient.astype(np.uint16) * 257)
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), gradient)


def test_32_bit_integers_and_floats(tmp_path, gradient):
    grey = gradient[..., 0]
    expected = np.repeat(grey[..., None], 3, axis=-1)
    for name, deep in {
        "integer": grey.astype(np.int32) * 257,
        "unit": grey.astype(np.float32) / 255,
        "bytes": grey.astype(np.float32),
    }.items():
        np.testing.assert_array_equal(load_image(save(tmp_path / f"{name}.tiff", deep)), expected)


@pytest.mark.parametrize("value", [-1.0, 256.0, np.nan, np.inf])
def test_floats_out_of_range(tmp_path, value):
    path = save(tmp_path / "a.tiff", np.full((8, 8), value, np.float32))
    with pytest.raises(InputError, match=r"a\.tiff.*8-bit") as error:
        load_image(path)
    one_line(error)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tiff"])
def test_first_frame_of_an_animation(tmp_path, gradient, suffix):
    frames = [Image.fromarray(np.full((16, 16, 3), colour, np.uint8)) for colour in ((255, 0, 0), (0, 255, 0))]
    # Lossless, which WebP is not by default and the others ignore.
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], lossless=True)
    assert (load_image(tmp_path / f"a.{suffix}") == (255, 0, 0)).all()


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp", "tiff"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated(tmp_path, suffix, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(tmp_path / f"a.{suffix}", noise)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError, match=r"a\.") as error:
        load_image(path, what="reference image")
    assert "reference image" in one_line(error)


def test_bad_files(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not an image")
    for path, words in (
        (tmp_path / "missing.png", "does not exist"),
        (tmp_path / "empty.png", "is empty"),
        (tmp_path / "text.png", "not an image"),
        (tmp_path, "is a directory"),
        (tmp_path / "text.png" / "a.png", "cannot read"),
        (tmp_path / ("a" * 300), "cannot read"),
    ):
        with pytest.raises(InputError, match=words) as error:
            load_image(path)
        assert str(path) in one_line(error)


def test_unreadable_file(tmp_path, gradient, monkeypatch):
    path = save(tmp_path / "a.png", gradient)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", refuse)  # as chmod would, but for root
    with pytest.raises(InputError, match=r"cannot read image .*a\.png: Permission denied"):
        load_image(path)


def test_decompression_bomb(tmp_path, monkeypatch, gradient):
    path = save(tmp_path / "a.png", gradient)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 60 // 3)
    with pytest.raises(InputError, match="far too large"):
        load_image(path)


def test_a_large_photo_is_no_warning_and_a_path_may_be_text(tmp_path, monkeypatch):
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)  # 600 is more, and not twice as many
    assert load_image(str(tmp_path / "a.png")).shape == (20, 30, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    with pytest.raises(InputError, match="far too large"):
        load_image(tmp_path / "a.png")


# Colour profiles


def curve(gamma):
    return b"curv" + struct.pack(">4xIH", 1, round(gamma * 256))


def xyz(*values):
    return b"XYZ " + struct.pack(">4x3i", *(round(v * 65536) for v in values))


def profile(space, tags, *, kind=b"mntr", connection=b"XYZ "):
    """An ICC profile of version 2."""
    tags = {b"desc": b"desc" + struct.pack(">4xI5s78x", 5, b"test\0"), b"wtpt": xyz(0.9642, 1, 0.8249)} | tags
    table, data = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        table += name + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(data), len(value))
        data += value + bytes(-len(value) % 4)
    head = b"test" + bytes.fromhex("02400000") + kind + space + connection + bytes(12) + b"acsp" + bytes(28)
    head += struct.pack(">3i", *(round(v * 65536) for v in (0.9642, 1, 0.8249)))
    size = 128 + len(table) + len(data)
    return (struct.pack(">I", size) + head).ljust(128, b"\0") + table + data


# The columns are the primaries adapted to D50, as the profiles that Apple, Adobe and the W3C ship have them.
P3 = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
ADOBE = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
GAMMA = 563 / 256  # Adobe's


def rgb_profile(primaries):
    colours = {bytes([c]) + b"XYZ": xyz(*column) for c, column in zip(b"rgb", primaries.T, strict=True)}
    return profile(b"RGB ", colours | {bytes([c]) + b"TRC": curve(GAMMA) for c in b"rgb"})


def srgb_of_linear(light):
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def as_shown(stored, primaries):
    """By the definition: light of the stored numbers, XYZ, light of sRGB, its curve."""
    light = np.linalg.solve(SRGB, primaries @ (np.array(stored) / 255) ** GAMMA)
    return srgb_of_linear(light.clip(0, 1))


GREY = profile(b"GRAY", {b"kTRC": curve(461 / 256)})  # about 1.8, as old Macintoshes had it


def ink():
    """A press whose ink is neutral: L* falls with the sum of the four inks."""
    grid = b"".join(bytes([max(0, 255 - 85 * bin(i).count("1")), 128, 128]) for i in range(16))
    identity = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 * int(i % 4 == 0) for i in range(9)))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + identity * 4 + grid + identity * 3
    return profile(b"CMYK", {b"A2B0": table}, kind=b"prtr", connection=b"Lab ")


@pytest.mark.parametrize(("primaries", "stored"), [(P3, (201, 80, 70)), (P3, (128,) * 3), (ADOBE, (120, 160, 100))])
@pytest.mark.parametrize("suffix", ["png", "tiff", "jpg", "webp", "avif"])
def test_colour_profiles_are_converted_from(tmp_path, primaries, stored, suffix):
    options = {"quality": 100} | ({"subsampling": "4:4:4"} if suffix in ("jpg", "avif") else {})
    pixels = np.full((16, 16, 3), stored, np.uint8)
    path = save(tmp_path / f"a.{suffix}", pixels, icc_profile=rgb_profile(primaries), **options)
    lossless = suffix in ("png", "tiff")
    np.testing.assert_allclose(load_image(path)[8, 8], as_shown(stored, primaries), atol=1.5 if lossless else 5)


def test_grey_profiles_at_8_and_16_bits_and_with_alpha(tmp_path):
    grey = np.arange(0, 256, 5, np.uint8)[None].repeat(2, 0)
    expected = srgb_of_linear((grey / 255) ** (461 / 256))
    for name, array in {
        "8.png": grey,
        "16.png": grey.astype(np.uint16) * 257,
        "16.tiff": grey.astype(np.uint16) * 257,
    }.items():
        image = load_image(save(tmp_path / name, array, icc_profile=GREY))
        np.testing.assert_allclose(image, expected[..., None].repeat(3, -1), atol=1.5)
    half = np.stack([grey, np.full_like(grey, 51)], axis=-1)
    image = load_image(save(tmp_path / "alpha.png", half, icc_profile=GREY), background=(0, 0, 0))
    np.testing.assert_allclose(image[..., 0], expected / 5, atol=2)


def test_transparent_and_palette_images_with_a_profile(tmp_path):
    pixels = np.full((8, 8, 4), (201, 80, 70, 255), np.uint8)
    pixels[:, 4:, 3] = 0
    image = load_image(save(tmp_path / "a.png", pixels, icc_profile=rgb_profile(P3)))
    np.testing.assert_allclose(image[:, :4], np.broadcast_to(as_shown((201, 80, 70), P3), (8, 4, 3)), atol=3)
    assert (image[:, 4:] == 255).all()
    palette = Image.new("P", (8, 8))
    palette.putpalette([201, 80, 70])
    palette.save(tmp_path / "p.png", icc_profile=rgb_profile(P3))
    np.testing.assert_allclose(load_image(tmp_path / "p.png")[0, 0], as_shown((201, 80, 70), P3), atol=3)


def test_cmyk_with_a_profile(tmp_path):
    inks = np.zeros((8, 8, 4), np.uint8)
    inks[..., 0] = 255  # cyan alone: plainly blue-green without the profile
    path = tmp_path / "a.tiff"
    Image.fromarray(inks, "CMYK").save(path, icc_profile=ink())
    # L* = 100 * 170 / 255 is a light of ((66.7 + 16) / 116) ** 3.
    grey = srgb_of_linear(np.array(((100 * 170 / 255 + 16) / 116) ** 3))
    np.testing.assert_allclose(load_image(path)[0, 0], [grey] * 3, atol=2)


def test_srgb_and_grey_images_with_srgb_profiles_stay_as_they_are(tmp_path, gradient):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    np.testing.assert_array_equal(load_image(save(tmp_path / "a.png", gradient, icc_profile=srgb)), gradient)
    grey = gradient[..., 0]
    image = load_image(save(tmp_path / "l.png", grey, icc_profile=srgb))
    np.testing.assert_array_equal(image, grey[..., None].repeat(3, -1))


@pytest.mark.parametrize(
    "icc", [b"nonsense" * 40, rgb_profile(P3)[:200], GREY, ink()], ids=["no", "cut", "grey", "cmyk"]
)
def test_a_broken_or_foreign_profile_is_passed_over_and_said_once(tmp_path, gradient, capsys, icc):
    path = save(tmp_path / "a.png", gradient, icc_profile=icc)
    for _ in range(2):
        np.testing.assert_array_equal(load_image(path, what="frame"), gradient)
    err = capsys.readouterr().err
    assert err.startswith(f"warning: frame {path}: its colour profile is ignored: ")
    assert err.count("\n") == 1


# HEIC


def test_heic(tmp_path, gradient):
    heif = pytest.importorskip("pillow_heif")
    photo = heif.from_pillow(Image.fromarray(np.full((24, 16, 3), (201, 80, 70), np.uint8)))
    photo.info["icc_profile"] = rgb_profile(P3)
    photo.save(tmp_path / "a.heic", quality=100)
    image = load_image(tmp_path / "a.heic")
    assert image.shape[:2] == image_size(tmp_path / "a.heic")[::-1] == (24, 16)
    np.testing.assert_allclose(image[12, 8], as_shown((201, 80, 70), P3), atol=4)
    data = (tmp_path / "a.heic").read_bytes()
    (tmp_path / "b.heic").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"b\.heic.*damaged") as error:
        load_image(tmp_path / "b.heic")
    one_line(error)


def test_heic_without_the_extra_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as where it is not installed
    (tmp_path / "IMG_1.HEIC").write_bytes(b"\0\0\0\x24ftypheic\0\0\0\0mif1heic" + bytes(99))
    with pytest.raises(InputError, match=r"photo .*IMG_1\.HEIC: .*pip install 'stableanimator-jax\[heif\]'") as error:
        load_image(tmp_path / "IMG_1.HEIC", what="photo")
    one_line(error)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_from_the_header_is_that_of_the_upright_image(tmp_path, gradient, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.jpg", gradient, exif=exif)
    assert image_size(path) == load_image(path).shape[1::-1]

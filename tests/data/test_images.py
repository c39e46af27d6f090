import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from stableanimator_jax.data.images import fit, fit_aspect, load_image, resize
from stableanimator_jax.errors import InputError
from tests.data.clips import one_line


@pytest.fixture
def gradient():
    """An RGB picture in which every pixel differs from its neighbours: [40, 60, 3]."""
    y, x = np.mgrid[:40, :60]
    return np.stack([4 * x, 6 * y, 255 - 4 * x], axis=-1).astype(np.uint8)


def save(path, array, mode=None, **options):
    Image.fromarray(array).convert(mode).save(path, **options) if mode else Image.fromarray(array).save(path, **options)
    return path


# Reading


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


# Fitting


@pytest.mark.parametrize(("mode", "size"), [("crop", (40, 60)), ("pad", (40, 60)), ("crop", (20, 30))])
def test_matching_aspect_is_only_resized(gradient, mode, size):
    height, width = size
    assert fit_aspect(gradient, width, height, mode) is gradient
    np.testing.assert_array_equal(
        fit(gradient, width, height, mode, filter="lanczos"),
        np.asarray(Image.fromarray(gradient).resize((width, height), Image.Resampling.LANCZOS)),
    )


def test_crop_takes_the_centre(gradient):
    np.testing.assert_array_equal(fit_aspect(gradient, 512, 512, "crop"), gradient[:, 10:50])
    np.testing.assert_array_equal(fit_aspect(gradient, 60, 20, "crop"), gradient[10:30])


def test_pad_centres_between_bars(gradient):
    square = fit_aspect(gradient, 512, 512, "pad", fill=(1, 2, 3))
    assert square.shape == (60, 60, 3)
    np.testing.assert_array_equal(square[10:50], gradient)
    assert (square[:10] == (1, 2, 3)).all()
    assert (square[50:] == (1, 2, 3)).all()
    wide = fit_aspect(gradient, 200, 100, "pad")
    assert wide.shape == (40, 80, 3)
    np.testing.assert_array_equal(wide[:, 10:70], gradient)
    assert not wide[:, :10].any()


@pytest.mark.parametrize("mode", ["crop", "pad"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (37, 53), (64, 36), (1080, 1920)])
@pytest.mark.parametrize("target", [(512, 512), (576, 1024), (1024, 576), (64, 640)])
def test_aspect_is_right_to_a_pixel(mode, shape, target):
    width, height = target
    image = fit_aspect(np.full((*shape, 3), 7, np.uint8), width, height, mode)
    h, w = image.shape[:2]
    assert abs(w - h * width / height) <= max(1, width / height)
    if mode == "pad":
        assert (image == 7).all(axis=-1).sum() == shape[0] * shape[1]
    fitted = resize(image, width, height, "bicubic")
    assert fitted.shape == (height, width, 3)


def test_a_circle_stays_round():
    y, x = np.mgrid[:100, :180]
    disc = ((x - 90) ** 2 + (y - 50) ** 2 <= 20**2)[..., None].repeat(3, axis=-1).astype(np.uint8) * 255
    for mode in ("crop", "pad"):
        seen = fit(disc, 576, 1024, mode, filter="bicubic")[..., 0] > 127
        assert abs(seen.any(axis=0).sum() - seen.any(axis=1).sum()) <= 12  # pixels of the source are this large


def test_filters(gradient):
    for method in (Image.Resampling.LANCZOS, Image.Resampling.BICUBIC):
        name = "lanczos" if method is Image.Resampling.LANCZOS else "bicubic"
        expected = np.asarray(Image.fromarray(gradient).resize((128, 64), method))
        np.testing.assert_array_equal(resize(gradient, 128, 64, name), expected)
    assert (resize(gradient, 128, 64, "lanczos") != resize(gradient, 128, 64, "bicubic")).any()


def test_a_large_photo_is_no_warning_and_a_path_may_be_text(tmp_path, monkeypatch):
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)  # 600 is more, and not twice as many
    assert load_image(str(tmp_path / "a.png")).shape == (20, 30, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    with pytest.raises(InputError, match="far too large"):
        load_image(tmp_path / "a.png")


def test_bars_larger_than_any_photo_are_refused():
    with pytest.raises(InputError, match=r"60000x1 pixels would be 60000x60000 .* crop it instead"):
        fit_aspect(np.zeros((1, 60000, 3), np.uint8), 64, 64, "pad")

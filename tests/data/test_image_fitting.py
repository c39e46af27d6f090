"""Photos brought to the output's aspect and size."""

import numpy as np
import pytest
from PIL import Image

from stableanimator_jax.data.images import aspect_window, automatic_size, fit, fit_aspect, resize
from stableanimator_jax.errors import InputError


@pytest.mark.parametrize(
    ("photo", "size"),
    [
        ((1000, 1000), (512, 512)),
        ((1080, 1920), (576, 1024)),
        ((1920, 1080), (1024, 576)),
        ((3024, 4032), (576, 768)),
        ((4032, 3024), (768, 576)),
        ((1080, 1350), (512, 640)),
    ],
)
def test_automatic_size_has_the_photos_aspect(photo, size):
    assert automatic_size(*photo) == size


def test_automatic_sizes_cut_little_off_and_keep_to_the_published_area():
    for aspect in np.geomspace(1 / 3, 3, 101):
        width, height = automatic_size(round(1000 * aspect), 1000)
        assert width % 64 == height % 64 == 0
        assert 0.85 * 512**2 < width * height < 1.2 * 576 * 1024
        window = aspect_window(round(1000 * aspect), 1000, width, height, "crop")
        assert window.width * window.height >= 0.94 * 1000 * round(1000 * aspect)


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


def test_bars_larger_than_any_photo_are_refused():
    with pytest.raises(InputError, match=r"60000x1 pixels would be 60000x60000 .* crop it instead"):
        fit_aspect(np.zeros((1, 60000, 3), np.uint8), 64, 64, "pad")

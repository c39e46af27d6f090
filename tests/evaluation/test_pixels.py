"""Pictures against the truth: values known beforehand, and plain restatements."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, uniform_filter

from stableanimator_jax.errors import InputError
from stableanimator_jax.evaluation import pixels
from stableanimator_jax.evaluation.protocol import PROTOCOLS

DISCO, STANDARD = PROTOCOLS["disco"], PROTOCOLS["standard"]


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).integers(0, 256, (2, 2, 128, 128, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def smooth():
    """A smooth picture and the same with noise."""
    rng = np.random.default_rng(1)
    truth = gaussian_filter(rng.uniform(0, 255, (3, 48, 40, 3)), (0, 3, 3, 0)) * 3 - 255
    generated = truth + rng.normal(0, 6, truth.shape)
    return tuple(np.clip(x.round(), 0, 255).astype(np.uint8) for x in (generated, truth))


def test_independent_noise_has_the_published_and_the_true_psnr(noise):
    """The mean square of two uniform bytes' difference is (256^2 - 1) / 6; wrapped round twice it is about 105."""
    assert pixels.psnr_legacy(*noise, DISCO) == pytest.approx(27.90, abs=0.02)
    assert pixels.psnr(*noise, DISCO) == pytest.approx(10 * np.log10(255**2 * 6 / (256**2 - 1)), abs=0.05)
    assert pixels.psnr(*noise, DISCO) == pytest.approx(7.75, abs=0.06)


def test_the_wrapped_psnr_has_a_floor():
    """Black against white differs by 255, whose square is 1 in 8 bits."""
    black, white = np.zeros((1, 8, 8, 3), np.uint8), np.full((1, 8, 8, 3), 255, np.uint8)
    assert pixels.psnr_legacy(black, white, DISCO) == pytest.approx(20 * np.log10(255))
    assert pixels.psnr(black, white, DISCO) == pytest.approx(0)
    worst = np.full_like(black, 225)  # 225^2 = 193 of 256, and none is above 255
    assert pixels.psnr_legacy(black, worst, DISCO).min() >= 24.07 - 0.01


def test_identical_frames_have_100_db_and_no_difference(smooth):
    truth = smooth[1]
    for protocol in (DISCO, STANDARD):
        np.testing.assert_array_equal(pixels.psnr(truth, truth, protocol), 100)
        np.testing.assert_array_equal(pixels.l1(truth, truth, protocol), 0)
        np.testing.assert_allclose(pixels.ssim(truth, truth, protocol), 1, atol=1e-12)


def test_l1_by_both_protocols(smooth):
    generated, truth = smooth
    levels = np.abs(generated.astype(int) - truth).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(pixels.l1(generated, truth, STANDARD), levels / 255)
    np.testing.assert_allclose(pixels.l1(generated, truth, DISCO), levels / (48 * 40))
    # What a published pair of L1 and PSNR has to obey, as the root mean square is at least the mean.
    bound = 255 * 10 ** (-pixels.psnr(generated, truth, DISCO) / 20)
    assert (pixels.l1(generated, truth, DISCO) * 48 * 40 <= bound).all()


def plain_ssim(a, b, smoothed, border, bias):
    """Wang et al. (2004), of one channel."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    mean_a, mean_b = smoothed(a), smoothed(b)
    var_a, var_b = bias * (smoothed(a * a) - mean_a**2), bias * (smoothed(b * b) - mean_b**2)
    cov = bias * (smoothed(a * b) - mean_a * mean_b)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    found = (2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return found[border:-border, border:-border].mean()


def test_ssim_of_grey_by_uniform_windows(smooth):
    grey = [np.round(x @ np.array([0.299, 0.587, 0.114])) for x in smooth]
    expected = [plain_ssim(a, b, lambda x: uniform_filter(x, 7), 3, 49 / 48) for a, b in zip(*grey, strict=True)]
    np.testing.assert_allclose(pixels.ssim(*smooth, DISCO), expected, rtol=1e-4)  # OpenCV rounds in integers


def test_ssim_of_rgb_by_gaussian_windows(smooth):
    expected = [
        np.mean(
            [plain_ssim(a[..., c], b[..., c], lambda x: gaussian_filter(x, 1.5, truncate=3.5), 5, 1) for c in range(3)]
        )
        for a, b in zip(*smooth, strict=True)
    ]
    np.testing.assert_allclose(pixels.ssim(*smooth, STANDARD), expected, rtol=1e-9)


def test_flicker_counts_changes_and_its_error_not_what_stands_still(smooth):
    truth = smooth[1]
    brighter = np.minimum(truth, 200) + np.uint8(5)
    np.testing.assert_allclose(pixels.flicker(np.stack([truth[0]] * 3)), 0)
    np.testing.assert_allclose(
        pixels.flicker(truth), np.abs(np.diff(truth.astype(float), axis=0)).mean(axis=(1, 2, 3)) / 255
    )
    np.testing.assert_allclose(pixels.flicker_error(brighter, np.minimum(truth, 200)), 0)
    blinking = np.minimum(truth, 200)
    blinking[1] += np.uint8(10)
    np.testing.assert_allclose(pixels.flicker_error(blinking, np.minimum(truth, 200)), 10 / 255)


def test_what_cannot_be_compared_is_refused(noise, monkeypatch):
    with pytest.raises(InputError, match="2 frames of 128x128 pixels, the truth 1 of 128x128"):
        pixels.l1(noise[0], noise[1][:1], STANDARD)
    with pytest.raises(InputError, match="7x7 pixels at least, got 6x128"):
        pixels.ssim(noise[0, :, :, :6], noise[1, :, :, :6], DISCO)
    monkeypatch.setitem(__import__("sys").modules, "skimage.metrics", None)
    with pytest.raises(InputError, match=r"stableanimator-jax\[evaluate\]"):
        pixels.ssim(*noise, DISCO)

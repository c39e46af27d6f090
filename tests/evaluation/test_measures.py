"""One video measured: planted faults move the measures that they should, and what cannot be measured is said."""

import json
import math

import numpy as np
import pytest

from stableanimator_jax.data.keypoints import POINTS, Keypoints
from stableanimator_jax.errors import InputError
from stableanimator_jax.evaluation.measures import METRICS, Measured, Tools, VideoPair, measure
from stableanimator_jax.evaluation.networks.network import features
from stableanimator_jax.evaluation.protocol import PROTOCOLS
from stableanimator_jax.perception.people import People
from tests.evaluation.drawn_videos import DIM, networks, noisy, video

DISCO, STANDARD = PROTOCOLS["disco"], PROTOCOLS["standard"]


class Standing:
    """Whoever is in a picture stands at one place; nobody is in a black one."""

    def people(self, images):
        points = np.random.default_rng(0).uniform(0, 30, (1, POINTS, 2)).astype(np.float32)
        one = People(np.array([[0, 0, 30, 30]], np.float32), points, np.ones((1, POINTS), np.float32))
        nobody = People(one.boxes[:0], one.keypoints[:0], one.scores[:0])
        return [one if image.any() else nobody for image in images]


def driving(frames=20):
    points = Standing().people([np.ones(1)])[0].keypoints
    return Keypoints(points.repeat(frames, axis=0), np.ones((frames, POINTS), np.float32), 32, 40, 25.0)


@pytest.fixture(scope="module")
def truth():
    return video(1)


def measured(generated, truth, protocol=STANDARD, **given):
    pair = VideoPair("a", generated, truth, reference=truth[0], driving=driving(len(truth)), **given)
    return measure(pair, protocol, networks(estimator=Standing()))


@pytest.fixture(scope="module")
def good(truth):
    return measured(noisy(truth, 0), truth)


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_everything_is_measured(truth, protocol):
    found = measured(noisy(truth, 0), truth, protocol)
    missing = {"fid", "fid_vid", "fvd", "kvd"}  # of all videos together
    if protocol is STANDARD:
        missing.add("psnr_legacy")
    else:
        missing.add("lpips_alex")
    assert set(found.scores) == set(METRICS) - missing
    assert not found.notes
    assert (found.name, found.length, found.size) == ("a", 20, (32, 40))
    clips = 5 if protocol is DISCO else 1
    for side in ("generated", "truth"):
        assert found.features[f"fid/{side}"].shape == (20, DIM)
        assert found.features[f"fvd/{side}"].shape == found.features[f"fid_vid/{side}"].shape == (clips, DIM)
    for name, curve in found.frames.items():
        assert len(curve) == (19 if "flicker" in name else 20)
        assert found.scores[name] == pytest.approx(np.nanmean(curve))


def test_the_truth_and_a_still_picture_beside_it(truth, good):
    assert good.truths["flicker"] == pytest.approx(measured(truth, truth).scores["flicker"])
    assert good.truths["csim_reference"] == pytest.approx(measured(truth, truth).scores["csim_reference"])
    still = measured(np.repeat(truth[:1], 20, axis=0), truth)
    for name in ("l1", "psnr", "ssim"):
        assert good.baselines[name] == pytest.approx(np.mean(still.frames[name][1:]))


def test_a_shifted_video_is_seen(truth, good):
    late = measured(noisy(np.roll(truth, 3, axis=0), 0), truth)
    for name in ("l1", "lpips_vgg"):
        assert late.scores[name] > 1.5 * good.scores[name], name
    assert late.scores["flicker_error"] > good.scores["flicker_error"]
    assert late.scores["psnr"] < good.scores["psnr"] - 3
    assert late.scores["ssim"] < good.scores["ssim"]
    assert late.scores["face_rate"] == 1


def test_one_shifted_frame_is_seen_where_it_is(truth):
    faulty = truth.copy()
    faulty[7] = np.roll(faulty[7], 4, axis=1)
    found = measured(faulty, truth)
    assert [i for i, value in enumerate(found.frames["psnr"]) if value < 100] == [7]
    assert [i for i, value in enumerate(found.frames["flicker_error"]) if value > 0] == [6, 7]


def test_swapped_channels_are_seen(truth, good):
    swapped = measured(noisy(truth, 0)[..., ::-1], truth)
    for name in ("l1", "lpips_vgg"):
        assert swapped.scores[name] > 1.5 * good.scores[name], name
    assert swapped.scores["csim_truth"] < 0.9 < good.scores["csim_truth"]
    apart = [np.abs(m.features["fid/generated"] - m.features["fid/truth"]).max() for m in (swapped, good)]
    assert apart[0] > 3 * apart[1]


def test_a_black_video_is_seen(truth, good):
    black = measured(np.zeros_like(truth), truth)
    assert black.scores["face_rate"] == 0
    assert black.scores["csim_reference"] == 0
    assert "csim_reference_found" not in black.scores
    assert black.scores["pose_missed"] == 1
    assert black.scores["pck"] == 0
    assert black.scores["flicker"] == 0 < black.truths["flicker"]
    assert black.scores["psnr"] < good.scores["psnr"] - 10
    assert good.scores["pose_missed"] == good.scores["pose_body"] == 0


def test_a_face_that_is_lost_sometimes_counts_as_zero(truth, good):
    faulty = noisy(truth, 0)
    faulty[-5:] = 0
    found = measured(faulty, truth)
    assert found.scores["face_rate"] == 0.75
    assert found.scores["csim_reference"] == pytest.approx(0.75 * found.scores["csim_reference_found"])


def test_without_a_truth_what_needs_none_is_measured(truth):
    found = measure(VideoPair("a", truth, reference=truth[0]), DISCO, networks(estimator=Standing()))
    assert set(found.scores) == {
        "flicker", "face_rate", "csim_reference", "csim_reference_found", "csim_slope", "csim_change"
    }  # fmt: skip
    assert any("no truth" in note for note in found.notes)
    assert any("no driving keypoints" in note for note in found.notes)


def test_without_weights_what_needs_none_is_measured_and_the_rest_is_said(truth):
    found = measure(VideoPair("a", noisy(truth, 0), truth, truth[0], driving()), STANDARD, Tools())
    assert set(found.scores) == {"l1", "psnr", "ssim", "flicker", "flicker_error"}
    assert not found.notes
    assert Tools().lacking(STANDARD) == [
        "no weights of LPIPS (alex): no LPIPS (alex)",
        "no weights of LPIPS (vgg): no LPIPS (vgg)",
        "no weights of Inception: no FID",
        "no weights of the 3D ResNet-50: no FID-VID",
        "no weights of I3D: no FVD and KVD",
        "no face recogniser: no CSIM",
        "no pose estimator: no pose error",
    ]


def test_a_video_shorter_than_a_window_has_no_clips(truth):
    found = measured(truth[:15], truth[:15])
    assert not [name for name in found.features if name.startswith(("fvd", "fid_vid"))]
    assert "shorter than 16 frames: no FVD" in found.notes


def test_sizes_may_differ_and_numbers_of_frames_not(truth):
    found = measured(truth[:, :, :16], truth)
    assert found.size == (16, 40)
    assert found.notes == ["the truth is 32x40, cut and resized to 16x40"]
    with pytest.raises(InputError, match="20 frames, the truth 19"):
        measure(VideoPair("a", truth, truth[:19]), STANDARD, Tools())
    with pytest.raises(InputError, match="no frames"):
        measure(VideoPair("a", truth[:0]), STANDARD, Tools())


def test_lpips_is_given_the_protocols_range(truth):
    for protocol, low in ((DISCO, 0), (STANDARD, -1)):
        ends = []

        def distance(a, b, ends=ends):
            ends.append((a.min(), a.max(), b.min(), b.max()))
            return np.zeros(len(a))

        extremes = truth[:2].copy()
        extremes[0, :20], extremes[0, 20:] = 0, 255
        measure(VideoPair("a", extremes, extremes), protocol, Tools(lpips={"vgg": distance, "alex": distance}))
        assert min(e[0] for e in ends) == min(e[2] for e in ends) == low
        assert max(e[1] for e in ends) == max(e[3] for e in ends) == 1


def test_batches_are_always_full():
    sizes = []

    def double(a, b):
        sizes.append(len(a))
        return 2 * a + b

    x = np.arange(7.0)
    np.testing.assert_array_equal(features(double, x, x + 1, batch=3), 3 * x + 1)
    assert sizes == [3, 3, 3]


def test_what_was_measured_is_written_and_read(truth):
    faulty = noisy(truth, 0)
    faulty[3] = 0
    found = measured(faulty, truth)
    text = json.dumps(found.plain(), allow_nan=False)
    again = Measured.of_plain(json.loads(text))
    assert not again.features
    assert again.scores == found.scores
    assert again.size == found.size
    assert math.isnan(again.frames["csim_truth_found"][3])
    with pytest.raises(InputError, match="not what was measured"):
        Measured.of_plain({"name": "a"})

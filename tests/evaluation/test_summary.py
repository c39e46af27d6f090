"""All videos together: shards add up, faults show, and what cannot be compared is refused."""

import dataclasses
import json

import numpy as np
import pytest

from stableanimator_jax.errors import InputError
from stableanimator_jax.evaluation import clips
from stableanimator_jax.evaluation import totals as totals_module
from stableanimator_jax.evaluation.frechet import Sums, frechet, kernel_distance
from stableanimator_jax.evaluation.measures import METRICS, Measured, VideoPair, measure
from stableanimator_jax.evaluation.protocol import PROTOCOLS
from stableanimator_jax.evaluation.summary import Summary, merge_tables, require_comparable, summarise
from stableanimator_jax.evaluation.totals import Totals
from tests.evaluation.drawn_videos import networks, noisy, video

DISCO, STANDARD = PROTOCOLS["disco"], PROTOCOLS["standard"]
VIDEOS = 12


@pytest.fixture(scope="module", autouse=True)
def _small_inputs():
    """The networks of these tests take any size."""
    with pytest.MonkeyPatch.context() as patch:
        for side in ("FID_SIDE", "FVD_SIDE", "FID_VID_SIDE"):
            patch.setattr(clips, side, 32)
        yield


@pytest.fixture(scope="module")
def truths():
    return [video(seed, height=24, width=24) for seed in range(VIDEOS)]


def measure_all(generated, truths, protocol=STANDARD):
    return [
        measure(VideoPair(f"v{i:02}", g, t, reference=t[0]), protocol, networks())
        for i, (g, t) in enumerate(zip(generated, truths, strict=True))
    ]


def total(found, videos=None):
    totals = Totals()
    for i in range(len(found)) if videos is None else videos:
        totals.add(i, found[i].features)
    return totals


def summary_of(found, totals=None, protocol=STANDARD, **given):
    given = {"weights": {"i3d": "ab" * 32}, "decoder": "PyAV 18", "resamples": 200} | given
    return summarise(found, totals or total(found), protocol, **given)


@pytest.fixture(scope="module")
def good(truths):
    return measure_all([noisy(t, i) for i, t in enumerate(truths)], truths)


@pytest.fixture(scope="module")
def summary(good):
    return summary_of(good)


def test_means_and_distances(good, summary):
    assert list(summary.metrics) == [
        name for name in METRICS if name != "psnr_legacy" and not name.startswith(("pose", "pck"))
    ]
    psnr = summary.metrics["psnr"]
    assert psnr.value == pytest.approx(np.mean([m.scores["psnr"] for m in good]))
    assert psnr.interval.low < psnr.value < psnr.interval.high
    assert psnr.baseline == pytest.approx(np.mean([m.baselines["psnr"] for m in good]))
    sides = [np.concatenate([m.features[f"fvd/{side}"] for m in good]) for side in ("generated", "truth")]
    fvd = summary.metrics["fvd"]
    assert fvd.value == pytest.approx(frechet(*map(Sums.of, sides)), rel=1e-9)
    assert fvd.clips == fvd.videos == VIDEOS
    assert fvd.effective == pytest.approx(VIDEOS)
    assert not fvd.headline
    assert "only 12 independent clips" in fvd.reason
    videos = np.arange(VIDEOS)
    assert summary.metrics["kvd"].value == pytest.approx(kernel_distance(*sides, videos_x=videos, videos_y=videos))


def test_half_the_truth_against_the_other(good, summary):
    halves = [
        Sums.of(np.concatenate([m.features["fid/truth"] for i, m in enumerate(good) if i % 10 % 2 == side]))
        for side in (0, 1)
    ]
    assert summary.metrics["fid"].truth == pytest.approx(frechet(*halves), rel=1e-9)


def test_another_persons_face_is_the_baseline(good, summary):
    references, faces = (
        np.concatenate([m.features[f"identity/{which}"] for m in good]) for which in ("reference", "truth")
    )
    cosines = references @ faces.T
    expected = (cosines.sum() - np.trace(cosines)) / (VIDEOS * (VIDEOS - 1))
    csim = summary.metrics["csim_reference"]
    assert csim.baseline == pytest.approx(expected)
    assert csim.baseline < csim.value
    assert csim.truth == pytest.approx(np.mean([m.truths["csim_reference"] for m in good]))


def test_shards_are_the_whole(good, summary, tmp_path):
    """In any order, and through files, as hosts exchange them."""
    shards = [total(good, [9, 3, 0]), total(good, [11, 1, 2, 8]), total(good, [4, 5, 6, 7, 10])]
    together = Totals()
    for i, shard in enumerate(reversed(shards)):
        shard.save(tmp_path / f"{i}.npz")
        together.merge(Totals.load(tmp_path / f"{i}.npz"))
    found = summary_of(good, together)
    for name, estimate in found.metrics.items():
        for key, value in dataclasses.asdict(estimate).items():
            expected = getattr(summary.metrics[name], key)
            if isinstance(value, float | tuple):
                np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-9, err_msg=f"{name} {key}")
            else:
                assert value == expected


def test_memory_does_not_grow_with_the_videos(monkeypatch):
    monkeypatch.setattr(totals_module, "KEPT_CLIPS", 50)
    rng = np.random.default_rng(0)
    sizes = []
    totals = Totals()
    for i in range(60):
        sides = rng.normal(size=(2, 5, 3)).astype(np.float32)
        totals.add(i, {"fvd/generated": sides[0], "fvd/truth": sides[1]})
        sizes.append(sum(array.nbytes for _, array in totals._arrays()))
    assert sizes[-1] == sizes[29]
    sample = totals.networks["fvd"][0].sample
    assert len(sample.features) == 50
    assert len(set(sample.videos)) > 20  # by lot, not the first


def test_planted_faults_show(truths, good, summary):
    """One black video of twelve, and swapped channels in all."""
    black = measure_all([np.zeros_like(truths[0])], truths[:1]) + good[1:]
    swapped = measure_all([noisy(t, i)[..., ::-1] for i, t in enumerate(truths)], truths)
    for faulty, names in ((black, ("fid", "fvd", "l1", "lpips_vgg")), (swapped, ("fid", "fid_vid", "fvd", "kvd"))):
        found = summary_of(faulty).metrics
        for name in names:
            assert found[name].value > 1.5 * summary.metrics[name].value, name
    assert summary_of(black).metrics["face_rate"].value == pytest.approx(1 - 1 / VIDEOS)


def test_frames_or_videos_count_the_same():
    short, long = (
        Measured(name, length, (8, 8), scores={"psnr": value})
        for name, length, value in (("a", 10, 20.0), ("b", 30, 40.0))
    )
    assert summary_of([short, long], protocol=DISCO).metrics["psnr"].value == 35
    assert summary_of([short, long], protocol=STANDARD).metrics["psnr"].value == 30


def test_a_score_that_some_videos_lack_is_no_headline(good):
    one = dataclasses.replace(good[0], scores={"psnr": 30.0})
    found = summary_of([*good[1:], one]).metrics
    assert (found["psnr"].videos, found["psnr"].headline) == (VIDEOS, True)
    assert (found["ssim"].videos, found["ssim"].headline) == (VIDEOS - 1, False)
    assert found["ssim"].reason == "1 of 12 videos lack it"


def test_few_groups_are_enough_for_a_value(good):
    """Of one video, and of videos that all lie in two groups."""
    one = summary_of(good[:1], total(good, [0])).metrics
    for name, reason in (("fvd", "it needs 2 clips or frames at least"), ("kvd", "it needs clips of two videos")):
        assert np.isnan(one[name].value)
        assert not one[name].headline
        assert reason in one[name].reason
    written = json.loads(json.dumps(summary_of(good[:1], total(good, [0])).plain()))
    written["metrics"]["fvd"]["value"] = None  # as result.json has it
    assert np.isnan(Summary.of_plain(written).metrics["fvd"].value)
    assert one["psnr"].interval is None
    two = summary_of([good[0], good[2]], total(good, [0, 2])).metrics
    assert two["fvd"].interval is None
    assert two["fvd"].extrapolated is None
    assert np.isfinite(two["kvd"].value)


def test_intervals_hold_nothing_that_cannot_be():
    scores = [{"l1": 0.0, "ssim": 1.0, "csim_slope": 0.0}, {"l1": 0.5, "ssim": 0.1, "csim_slope": 1.0}]
    found = summary_of([Measured(f"v{i}", 8, (8, 8), s) for i, s in enumerate(scores)], Totals()).metrics
    assert found["l1"].interval.low == 0 < found["l1"].interval.high
    assert found["ssim"].interval == (-1, 1)
    assert found["csim_slope"].interval.low < 0  # a slope can be anything


def test_enough_clips_are_a_headline():
    rng = np.random.default_rng(0)
    sides = rng.normal(size=(2, 2500, 3)).astype(np.float32) + np.array([0, 0.2], np.float32)[:, None, None]
    totals = Totals()
    for i in range(250):
        part = slice(10 * i, 10 * i + 10)
        totals.add(i, {"fvd/generated": sides[0, part], "fvd/truth": sides[1, part]})
    fvd = summary_of([Measured("a", 16, (8, 8))], totals).metrics["fvd"]
    assert fvd.headline
    assert not fvd.reason
    assert fvd.interval.low < 3 * 0.2**2 < fvd.interval.high
    assert fvd.extrapolated == pytest.approx(3 * 0.2**2, rel=0.3)


def test_nothing_measured_is_refused():
    with pytest.raises(InputError, match="no video to summarise"):
        summary_of([], Totals())


def test_a_summary_is_written_and_read(summary, good):
    data = json.loads(json.dumps(summary.plain(), allow_nan=False))
    assert Summary.of_plain(data) == summary
    assert summary.frames["v03"] == 20
    assert summary.sizes["v03"] == (24, 24)
    noted = dataclasses.replace(good[3], notes=["no face in the reference"])
    assert summary_of([noted]).notes == ["v03: no face in the reference"]
    with pytest.raises(InputError, match="not a summary"):
        Summary.of_plain({"metrics": {}})


def test_results_in_one_table(summary, good):
    other = dataclasses.replace(summary, decoder="another")
    assert merge_tables({"ours": summary, "theirs": other})["psnr"]["theirs"].value == summary.metrics["psnr"].value
    assert require_comparable({"ours": summary, "theirs": other}) == [
        "ours and theirs differ in decoder: compare with care"
    ]
    refused = {
        "their protocols are standard and disco": summary_of(good, protocol=DISCO),
        "their weights of i3d differ": dataclasses.replace(summary, weights={"i3d": "cd" * 32}),
        "SSIM of the protocol standard differ": dataclasses.replace(
            summary, choices=summary.choices | {"SSIM": "otherwise"}
        ),
    }
    for message, result in refused.items():
        with pytest.raises(InputError, match=message):
            merge_tables({"ours": summary, "theirs": result})


def test_features_of_two_networks_are_not_added():
    totals = Totals()
    totals.add(0, {"fvd/generated": np.zeros((2, 3)), "fvd/truth": np.zeros((2, 3))})
    with pytest.raises(InputError, match="two networks"):
        totals.add(1, {"fvd/generated": np.zeros((2, 4)), "fvd/truth": np.zeros((2, 4))})


def test_damaged_totals_are_refused(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="cannot read"):
        Totals.load(tmp_path / "a.npz")
    with pytest.raises(InputError, match="cannot read"):
        Totals.load(tmp_path / "b.npz")
    Totals().save(tmp_path / "c.npz")
    (tmp_path / "c.npz").write_bytes((tmp_path / "c.npz").read_bytes()[:12])
    with pytest.raises(InputError, match="cannot read"):
        Totals.load(tmp_path / "c.npz")

"""Protocols say everything that the code reads of them."""

import dataclasses

import pytest

from stableanimator_jax.errors import InputError
from stableanimator_jax.evaluation.protocol import PROTOCOLS, describe, protocol_named

OTHERS = {
    "name": "other",
    "side": 128,
    "l1": "unit",
    "psnr_legacy": False,
    "ssim": "rgb_gaussian",
    "lpips": ("alex",),
    "lpips_range": (-1.0, 1.0),
    "fid_filter": "bicubic",
    "fid_antialias": True,
    "fid_vid_filter": "bicubic",
    "fvd_filter": "bilinear",
    "fvd_antialias": False,
    "stride": 4,
    "mean_over": "videos",
    "window": 32,
    "ddof": 0,
    "identical_psnr": 48.0,
    "missing_face": -1.0,
    "least_confidence": 0.5,
    "pck": 0.2,
}


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(PROTOCOLS["disco"])])
def test_every_choice_is_described(field):
    """Two protocols that differ in one choice differ in words, by which results are told apart."""
    disco = PROTOCOLS["disco"]
    assert describe(dataclasses.replace(disco, **{field: OTHERS[field]})) != describe(disco)


def test_defects_are_named():
    told = describe(PROTOCOLS["disco"])
    assert all("defect" in told[title] for title in ("L1", "LPIPS", "PSNR (legacy)"))
    assert "defect" not in "".join(describe(PROTOCOLS["standard"]).values())


def test_an_unknown_protocol_is_refused():
    assert protocol_named("disco") is PROTOCOLS["disco"]
    with pytest.raises(InputError, match="no protocol 'tiktok'; choose one of disco, standard"):
        protocol_named("tiktok")

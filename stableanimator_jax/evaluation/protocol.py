"""Protocols: every choice that a figure depends on, frozen and named, so that figures of two are never mixed."""

from dataclasses import dataclass
from typing import Literal

from stableanimator_jax.errors import InputError

Filter = Literal["bilinear", "bicubic"]
LpipsNet = Literal["vgg", "alex"]


@dataclass(frozen=True)
class Protocol:
    """What is done to frames before and while they are measured. The code reads its choices from here."""

    name: str
    side: int | None
    """Frames are cut to their central square and brought to this many pixels; None leaves them as they are."""
    l1: Literal["levels_per_pixel", "unit"]
    """`levels_per_pixel`: mean absolute difference in 8-bit levels, divided by height times width once more."""
    psnr_legacy: bool
    """Whether `psnr_legacy` is measured too, with squares that wrap round at 256."""
    ssim: Literal["grey_uniform", "rgb_gaussian"]
    lpips: tuple[LpipsNet, ...]
    lpips_range: tuple[float, float]
    """What black and white are given as; the network was made for (-1, 1)."""
    fid_filter: Filter
    fid_antialias: bool
    fid_vid_filter: Filter
    fvd_filter: Filter
    fvd_antialias: bool
    """Pillow's filter on 8-bit frames, rounded, where true; else interpolation between four neighbours in float32."""
    stride: int
    """Frames between the beginnings of two windows."""
    mean_over: Literal["frames", "videos"]
    """Whether every frame counts the same, or every video."""
    window: int = 16
    """Frames of one window that a video network sees."""
    ddof: int = 1
    """A covariance is divided by the number of samples less this."""
    identical_psnr: float = 100.0
    """dB of frames without any difference."""
    missing_face: float = 0.0
    """Cosine of a generated frame where no face is found."""
    least_confidence: float = 0.3
    """Of a keypoint that counts as seen."""
    pck: float = 0.1
    """Share of the torso's length within which a joint is right."""


PROTOCOLS: dict[str, Protocol] = {
    "disco": Protocol(
        name="disco",
        side=256,
        l1="levels_per_pixel",
        psnr_legacy=True,
        ssim="grey_uniform",
        lpips=("vgg",),
        lpips_range=(0.0, 1.0),
        fid_filter="bilinear",
        fid_antialias=False,
        fid_vid_filter="bilinear",
        fvd_filter="bicubic",
        fvd_antialias=True,
        stride=1,
        mean_over="frames",
    ),
    "standard": Protocol(
        name="standard",
        side=None,
        l1="unit",
        psnr_legacy=False,
        ssim="rgb_gaussian",
        lpips=("alex", "vgg"),
        lpips_range=(-1.0, 1.0),
        fid_filter="bicubic",
        fid_antialias=True,
        fid_vid_filter="bilinear",
        fvd_filter="bilinear",
        fvd_antialias=False,
        stride=16,
        mean_over="videos",
    ),
}
"""`disco` is what published tables of human animation use, defects included; `standard` is how each metric is meant."""

FID_SIDE, FVD_SIDE, FID_VID_SIDE = 299, 224, 112
FID_VID_MEAN = (114.7748, 107.7354, 99.4750)
"""RGB, in 8-bit levels: of the data that the 3D ResNet-50 was trained on."""


def protocol_named(name: str) -> Protocol:
    """Raises `InputError` where there is none of this name."""
    if name not in PROTOCOLS:
        raise InputError(f"there is no protocol {name!r}; choose one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def describe(protocol: Protocol) -> dict[str, str]:
    """Every choice in words, under a short title, for printing and for result files."""
    p = protocol
    frames = (
        "as they are; the truth is cut to the aspect of the generated frames and resized to them (Pillow, bicubic) "
        "where sizes differ"
        if p.side is None
        else f"the central square of each, resized to {p.side}x{p.side} (Pillow, bilinear), 8 bits"
    )
    l1 = {
        "levels_per_pixel": "mean |a - b| of 0 to 255, divided by height x width (defect: it depends on the size)",
        "unit": "mean |a - b| of [0, 1]",
    }
    ssim = {
        "grey_uniform": "8-bit grey (0.299 R + 0.587 G + 0.114 B), uniform 7x7 windows, sample covariance",
        "rgb_gaussian": "RGB, Gaussian windows of sigma 1.5, covariance of the population (Wang et al. 2004)",
    }
    low, high = p.lpips_range
    lpips = f"{' and '.join(p.lpips)}, version 0.1, images in [{low:g}, {high:g}]"
    if p.lpips_range != (-1, 1):
        lpips += " (defect: the network was made for [-1, 1])"
    windows = "at every start (they overlap)" if p.stride == 1 else "one after the other, the rest left out"
    words = {
        "protocol": p.name,
        "frames": frames,
        "L1": l1[p.l1],
        "PSNR": f"float64 of 0 to 255, frame by frame; {p.identical_psnr:g} dB where nothing differs",
        "SSIM": ssim[p.ssim],
        "LPIPS": lpips,
        "FID": f"Inception of pytorch-fid, 2048 features, {_resized(FID_SIDE, p.fid_filter, p.fid_antialias)}",
        "FID-VID": f"3D ResNet-50, 2048 features, {_resized(FID_VID_SIDE, p.fid_vid_filter, True)}, less the mean "
        + ", ".join(f"{value:g}" for value in FID_VID_MEAN),
        "FVD": f"I3D of Kinetics-400, 400 logits, {_resized(FVD_SIDE, p.fvd_filter, p.fvd_antialias)}, in [-1, 1]",
        "windows": f"{p.window} frames, {windows}, never across videos",
        "Fréchet distance": f"covariances with ddof {p.ddof}; root by symmetric eigendecomposition in float64",
        "KVD": "I3D's logits; polynomial kernel of degree 3, unbiased; pairs of clips of one video left out",
        "CSIM": f"largest face, aligned by 5 points; frames without a face count {p.missing_face:g}",
        "pose error": f"keypoints surer than {p.least_confidence:g} in the driving poses; distance over the diagonal "
        f"of the person's box; PCK within {p.pck:g} of the torso",
        "flicker": "mean |change| from frame to frame, of [0, 1]",
        "means": f"every {p.mean_over.removesuffix('s')} counts the same",
    }
    if p.psnr_legacy:
        words["PSNR (legacy)"] = "squares in 8 bits, which wrap round at 256 (defect: never below 24.07 dB)"
    return words


def _resized(side: int, filter: Filter, antialias: bool) -> str:
    how = "antialiased as Pillow does" if antialias else "without antialiasing"
    return f"squashed to {side}x{side} ({filter}, {how})"

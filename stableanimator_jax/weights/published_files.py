"""Where the published files are: SVD's folder, StableAnimator's folder, ArcFace's file; each also on the hub.

SVD:             {unet,vae,image_encoder}/config.json and their *.safetensors or *.bin, fp16 or not, one or sharded; or
                 svd_xt.safetensors or (14 frames) svd.safetensors, all in one
StableAnimator:  {unet,pose_net,face_encoder}.{pth,safetensors,bin}, or as its training leaves them, unet-30000.pth;
                 config.json where this project exported them
ArcFace:         glintr100_torch.pth, glintr100.safetensors or glintr100.onnx
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from stableanimator_jax.config import ImageEncoderConfig, StableAnimatorConfig, UNetConfig, VAEConfig, read_json
from stableanimator_jax.errors import InputError
from stableanimator_jax.weights.hub import is_on_hub, local_directory
from stableanimator_jax.weights.published_configs import read_published_config

# The name that diffusers and transformers give a component's weights, without suffix.
_STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "image_encoder": "model"}
_BIN_STEMS = _STEMS | {"image_encoder": "pytorch_model"}
# What follows of its name, in full precision and in half, for one file and for several.
_FULL = ("{}.{}", "{}.{}.index.json")
_HALF = ("{}.fp16.{}", "{}.{}.index.fp16.json", "{}.fp16.{}.index.json")
_NETWORKS = ("unet", "pose_net", "face_encoder")
_SUFFIXES = (".pth", ".safetensors", ".bin")
_XT = StableAnimatorConfig()
"""What SVD-XT as one file, without configurations, is taken for."""
_SHORT_FRAMES = 14
_SHORT_NAMES = ("svd", "svd_image_decoder")
"""What SVD for so many frames is called as one file; SVD-XT's name has "xt" in it."""
_ARCFACE_NAMES = ("glintr100_torch.pth", "glintr100_torch.safetensors", "glintr100.safetensors", "glintr100.onnx")
# antelopev2's own download nests one folder too many.
_ARCFACE_FOLDERS = ("", "Animation", "antelopev2", "models/antelopev2", "models/antelopev2/antelopev2")


@dataclass(frozen=True)
class SvdFiles:
    """SVD's configurations, and the file (or index) of each component's weights."""

    num_frames_from: Path
    """The file that says, or whose name says, how many frames it is made for."""
    unet_config: UNetConfig
    vae_config: VAEConfig
    image_encoder_config: ImageEncoderConfig
    weights: dict[str, Path]


@dataclass(frozen=True)
class NetworkFiles:
    """The file of each network that StableAnimator trains, and their configuration where it is written down."""

    weights: dict[str, Path]
    config: StableAnimatorConfig | None
    config_file: Path


def find_svd(name: str, *, with_unet: bool) -> SvdFiles:
    """Find and read SVD's folder.

    Args:
        name: a directory or `hf://OWNER/REPOSITORY`; the folders may also lie in its `SVD/`. Or the one file
            `svd_xt.safetensors` or `svd.safetensors`, or a directory with it alone.
        with_unet: whether the UNet's weights are wanted; its configuration always is.

    Raises:
        InputError: a file is missing, or describes another network than SVD's kind.
    """
    components = ["vae", "image_encoder", *(["unet"] if with_unet else [])]
    if (whole := _single_file(name)) is not None:
        frames = _SHORT_FRAMES if whole.stem in _SHORT_NAMES else _XT.unet.num_frames
        unet = replace(_XT.unet, num_frames=frames)
        return SvdFiles(whole, unet, _XT.vae, _XT.image_encoder, dict.fromkeys(components, whole))
    root = _svd_root(name, components)
    return SvdFiles(
        num_frames_from=root / "unet" / "config.json",
        unet_config=read_published_config(root / "unet" / "config.json", UNetConfig),
        vae_config=read_published_config(root / "vae" / "config.json", VAEConfig),
        image_encoder_config=read_published_config(root / "image_encoder" / "config.json", ImageEncoderConfig),
        weights={component: _component_weights(root / component, component) for component in components},
    )


def _single_file(name: str) -> Path | None:
    """SVD as the one file that it is published as too: given itself, or alone in a folder."""
    path = Path(name)
    if is_on_hub(name) or (path / "unet").exists() or (path / "SVD").exists():
        return None
    if path.is_dir():
        there = sorted(path.glob("svd*.safetensors"))
        path = there[0] if len(there) == 1 else path
    if not path.is_file() or path.suffix != ".safetensors":
        return None
    if "xt" not in path.stem and path.stem not in _SHORT_NAMES:
        raise InputError(
            f"{path}: one file does not say how many frames it is made for, and its name is none that SVD is published "
            "by: svd_xt.safetensors, svd_xt_1_1.safetensors (25 frames) or svd.safetensors (14 frames)"
        )
    return path


def _svd_root(name: str, components: list[str]) -> Path:
    patterns = [
        f"{prefix}{pattern}"
        for prefix in ("", "SVD/")
        for pattern in ("*/config.json", *(f"{c}/*.safetensors*" for c in components))
    ]
    root = _inside(local_directory(name, patterns, without=["*fp16*"]), "SVD", "unet/config.json")
    # Only what has no other weights is taken as .bin or in half precision.
    for pattern in ("*.bin*", "*fp16*"):
        if is_on_hub(name) and (lacking := [c for c in components if not _candidates(root / c, c)]):
            patterns = [f"{prefix}{c}/{pattern}" for prefix in ("", "SVD/") for c in lacking]
            without = [] if "fp16" in pattern else ["*fp16*"]
            root = _inside(local_directory(name, patterns, without=without), "SVD", "unet/config.json")
    return root


def _inside(root: Path, folder: str, file: str) -> Path:
    """`root`, or its `folder` where `file` is only in there."""
    return root / folder if not (root / file).exists() and (root / folder / file).exists() else root


def _candidates(folder: Path, component: str) -> list[Path]:
    """Those that are there, the best first."""
    kinds = ((_STEMS[component], "safetensors"), (_BIN_STEMS[component], "bin"))
    names = [form.format(*names) for forms in (_FULL, _HALF) for names in kinds for form in forms]
    return [folder / name for name in names if (folder / name).exists()]


def _component_weights(folder: Path, component: str) -> Path:
    if found := _candidates(folder, component):
        return found[0]
    raise InputError(
        f"{folder} has no weights: it must hold {_STEMS[component]}.safetensors (or .fp16, .bin, or sharded)"
    )


def find_networks(name: str) -> NetworkFiles:
    """Find the three networks that StableAnimator trains.

    They are in a directory or `hf://OWNER/REPOSITORY`, or in its `Animation/`.

    Raises:
        InputError: a file is missing, or there twice.
    """
    patterns = [f"{prefix}{n}.*" for prefix in ("", "Animation/") for n in (*_NETWORKS, "config")]
    root = local_directory(name, patterns)
    if not _named(root, "unet") and not _trained(root, "unet"):
        root = root / "Animation" if (root / "Animation").is_dir() else root
    config_file = root / "config.json"
    config = None
    if config_file.exists():
        try:
            config = StableAnimatorConfig.from_dict(read_json(config_file))
        except InputError as e:
            raise InputError(f"{config_file}: {e}") from e
    weights = _last_trained(root) or {network: _network_weights(root, network) for network in _NETWORKS}
    return NetworkFiles(weights, config, config_file)


def _named(root: Path, stem: str) -> list[Path]:
    return [path for suffix in _SUFFIXES if (path := root / f"{stem}{suffix}").exists()]


def _trained(root: Path, network: str) -> set[int]:
    """The steps at which StableAnimator's training left a network there, as `unet-30000.pth`."""
    names = (re.fullmatch(rf"{network}-(\d+)", f.stem) for f in root.glob(f"{network}-*") if f.suffix in _SUFFIXES)
    return {int(name[1]) for name in names if name}


def _last_trained(root: Path) -> dict[str, Path] | None:
    """The three of the last step that there are all of, unless one has its published name."""
    steps = {network: _trained(root, network) for network in _NETWORKS}
    if not any(steps.values()) or any(_named(root, network) for network in _NETWORKS):
        return None
    common = set.intersection(*steps.values())
    if not common:
        there = "; ".join(f"{n}: {', '.join(map(str, sorted(s))) or 'none'}" for n, s in steps.items())
        raise InputError(f"{root} has no step with all of {', '.join(_NETWORKS)} (steps there, {there}): copy them")
    return {network: _network_weights(root, f"{network}-{max(common)}") for network in _NETWORKS}


def _network_weights(root: Path, network: str) -> Path:
    found = _named(root, network)
    if not found:
        raise InputError(f"{root} has no {network}.pth or {network}.safetensors: copy or download it")
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise InputError(f"{root} has both {names}: leave only the one that is meant")
    return found[0]


def find_arcface(name: str) -> Path:
    """Find ArcFace's file: `name` itself, or in a directory or `hf://OWNER/REPOSITORY` one under a published name.

    Raises:
        InputError: there is none.
    """
    if not is_on_hub(name) and not Path(name).is_dir():
        return Path(name)
    places = [f"{folder}/{file}".lstrip("/") for folder in _ARCFACE_FOLDERS for file in _ARCFACE_NAMES]
    root = local_directory(name, places)
    for place in places:
        if (root / place).exists():
            return root / place
    raise InputError(f"{name} has no {', '.join(_ARCFACE_NAMES[:-1])} or {_ARCFACE_NAMES[-1]}: give the file itself")

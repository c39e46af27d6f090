"""Where the published files are: SVD's folder, StableAnimator's folder, ArcFace's file; each also on the hub.

SVD:             {unet,vae,image_encoder}/config.json and their *.safetensors, fp16 or not, one file or sharded
StableAnimator:  {unet,pose_net,face_encoder}.{pth,safetensors}; config.json where this project exported them
ArcFace:         glintr100_torch.pth, glintr100.safetensors or glintr100.onnx
"""

from dataclasses import dataclass
from pathlib import Path

from stableanimator_jax.config import ImageEncoderConfig, StableAnimatorConfig, UNetConfig, VAEConfig, read_json
from stableanimator_jax.errors import InputError
from stableanimator_jax.weights.hub import is_on_hub, local_directory
from stableanimator_jax.weights.published_configs import read_published_config

# The name that diffusers and transformers give a component's weights, without suffix.
_STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "image_encoder": "model"}
_NETWORKS = ("unet", "pose_net", "face_encoder")
_SVD_XT_FRAMES = 25
_ARCFACE_NAMES = ("glintr100_torch.pth", "glintr100_torch.safetensors", "glintr100.safetensors", "glintr100.onnx")
# antelopev2's own download nests one folder too many.
_ARCFACE_FOLDERS = ("", "Animation", "antelopev2", "models/antelopev2", "models/antelopev2/antelopev2")


@dataclass(frozen=True)
class SvdFiles:
    """SVD's configurations, and the file (or index) of each component's weights."""

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
        name: a directory or `hf://OWNER/REPOSITORY`; the folders may also lie in its `SVD/`.
        with_unet: whether the UNet's weights are wanted; its configuration always is.

    Raises:
        InputError: a file is missing, or describes another network than SVD-XT's kind.
    """
    components = ["vae", "image_encoder", *(["unet"] if with_unet else [])]
    root = _svd_root(name, components)
    num_frames = _num_frames(root / "unet" / "config.json")
    if num_frames != _SVD_XT_FRAMES:
        raise InputError(
            f"{root / 'unet' / 'config.json'}: num_frames is {num_frames}, so this is not SVD-XT: StableAnimator "
            f"is built on the {_SVD_XT_FRAMES}-frame model, stable-video-diffusion-img2vid-xt"
        )
    return SvdFiles(
        unet_config=read_published_config(root / "unet" / "config.json", "unet"),
        vae_config=read_published_config(root / "vae" / "config.json", "vae"),
        image_encoder_config=read_published_config(root / "image_encoder" / "config.json", "image_encoder"),
        weights={component: _component_weights(root / component, component) for component in components},
    )


def _svd_root(name: str, components: list[str]) -> Path:
    patterns = [
        f"{prefix}{pattern}"
        for prefix in ("", "SVD/")
        for pattern in ("*/config.json", *(f"{c}/*.safetensors*" for c in components))
    ]
    root = _inside(local_directory(name, patterns, without=["*fp16*"]), "SVD", "unet/config.json")
    if is_on_hub(name) and any(not _candidates(root / c, c) for c in components):
        # Only what has no other weights is taken in half precision.
        lacking = [c for c in components if not _candidates(root / c, c)]
        patterns = [f"{prefix}{c}/*fp16*" for prefix in ("", "SVD/") for c in lacking]
        root = _inside(local_directory(name, patterns), "SVD", "unet/config.json")
    return root


def _inside(root: Path, folder: str, file: str) -> Path:
    """`root`, or its `folder` where `file` is only in there."""
    return root / folder if not (root / file).exists() and (root / folder / file).exists() else root


def _num_frames(config: Path) -> object:
    data = read_json(config)
    return data.get("num_frames", _SVD_XT_FRAMES) if isinstance(data, dict) else _SVD_XT_FRAMES


def _candidates(folder: Path, component: str) -> list[Path]:
    stem = _STEMS[component]
    names = [
        f"{stem}.safetensors",
        f"{stem}.safetensors.index.json",
        f"{stem}.fp16.safetensors",
        f"{stem}.safetensors.index.fp16.json",
        f"{stem}.fp16.safetensors.index.json",
    ]
    return [folder / name for name in names if (folder / name).exists()]


def _component_weights(folder: Path, component: str) -> Path:
    if found := _candidates(folder, component):
        return found[0]
    raise InputError(f"{folder} has no weights: it must hold {_STEMS[component]}.safetensors (or .fp16, or sharded)")


def find_networks(name: str) -> NetworkFiles:
    """Find the three networks that StableAnimator trains.

    Args:
        name: a directory or `hf://OWNER/REPOSITORY`; the files may also lie in its `Animation/`.

    Raises:
        InputError: a file is missing, or there twice.
    """
    patterns = [f"{prefix}{n}.*" for prefix in ("", "Animation/") for n in (*_NETWORKS, "config")]
    root = local_directory(name, patterns)
    if not any((root / f"unet{suffix}").exists() for suffix in (".pth", ".safetensors")):
        root = root / "Animation" if (root / "Animation").is_dir() else root
    config_file = root / "config.json"
    config = None
    if config_file.exists():
        try:
            config = StableAnimatorConfig.from_dict(read_json(config_file))
        except InputError as e:
            raise InputError(f"{config_file}: {e}") from e
    return NetworkFiles({network: _network_weights(root, network) for network in _NETWORKS}, config, config_file)


def _network_weights(root: Path, network: str) -> Path:
    found = [path for suffix in (".pth", ".safetensors") if (path := root / f"{network}{suffix}").exists()]
    if not found:
        raise InputError(f"{root} has no {network}.pth or {network}.safetensors: copy or download it")
    if len(found) > 1:
        raise InputError(f"{root} has both {network}.pth and {network}.safetensors: leave only the one that is meant")
    return found[0]


def find_arcface(name: str) -> Path:
    """Find ArcFace's file.

    Args:
        name: a file, or a directory or `hf://OWNER/REPOSITORY` that holds one under a published name.

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

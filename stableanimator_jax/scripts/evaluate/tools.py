"""The networks that an evaluation has, opened from the files given; and what it lacks, with where to get it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from stableanimator_jax.evaluation.identity import circular, onnx_recogniser, recogniser_digest, same_network
from stableanimator_jax.evaluation.measures import Tools
from stableanimator_jax.evaluation.networks import loading
from stableanimator_jax.evaluation.networks.network import Network
from stableanimator_jax.evaluation.networks.published import FILES
from stableanimator_jax.evaluation.protocol import Protocol
from stableanimator_jax.perception.dwpose import DWPose, model_files
from stableanimator_jax.perception.faces import FaceAnalyser, model_folder
from stableanimator_jax.provenance import sha256_of
from stableanimator_jax.scripts.evaluate.settings import WeightFiles

_RECOGNISER = (
    "CSIM takes a face recogniser, --recogniser FILE.onnx, and a face detector, --insightface-root DIR: get "
    "w600k_r50.onnx of buffalo_l, and antelopev2, by https://github.com/deepinsight/insightface/tree/master/model_zoo "
    "(non-commercial research), or export AdaFace's IResNet-100 by https://github.com/mk-minchul/AdaFace (MIT)"
)
_ESTIMATOR = (
    "pose errors take DWPose, --dwpose DIR: get yolox_l.onnx and dw-ll_ucoco_384.onnx by "
    "https://huggingface.co/yzd-v/DWPose (Apache-2.0)"
)


Embedder = Callable[[Float32[np.ndarray, "n 112 112 3"]], Float32[np.ndarray, "n 512"]]


@dataclass(frozen=True)
class Opened:
    """Everything there is to measure with."""

    tools: Tools
    missing: list[str]
    """What cannot be measured, with what to get, and where."""
    warnings: list[str]


def open_tools(files: WeightFiles, protocol: Protocol, batch: int, conditioning: Embedder | None) -> Opened:
    """Open what is given.

    Args:
        files: the networks' files.
        protocol: says which of them count.
        batch: images or clips at once.
        conditioning: the face recogniser that conditions the model, or is climbed while sampling; None where nobody
            knows it.

    Raises:
        InputError: a file is missing, or holds something else.
    """
    missing: list[str] = []
    weights: dict[str, str] = {}

    def network(flag: str, roles: list[str], load: Callable[..., Network], *given: Any) -> Network | None:
        if any(value is None for value in given):
            names = " and ".join(f"{flag}{'-heads' * role.endswith('_heads')} FILE" for role in roles)
            missing.append(f"{'; '.join(FILES[role].wanted() for role in roles)}; give {names}")
            return None
        opened = load(*given)
        prefix = "lpips_" if "lpips" in flag else ""
        weights.update({f"{prefix}{role}": digest for role, digest in opened.sha256.items()})
        return on_all_devices(opened)

    lpips = {}
    for net in protocol.lpips:
        pair = [getattr(files, f"lpips_{net}"), getattr(files, f"lpips_{net}_heads")]
        if opened := network(f"--lpips-{net}", [net, f"{net}_heads"], loading.load_lpips, net, *pair):
            lpips[net] = opened
    inception = network("--inception", ["inception"], loading.load_inception, files.inception)
    i3d = network("--i3d", ["i3d"], lambda path: loading.load_i3d(path, eps=files.i3d_eps), files.i3d)
    if i3d is not None and files.i3d_eps != WeightFiles.i3d_eps:
        weights["i3d"] = f"eps {files.i3d_eps:g}, {weights['i3d']}"  # other results, though of the same file
    resnet_3d = network("--resnet-3d", ["resnet_3d"], loading.load_resnet_3d, files.resnet_3d)

    recogniser, warnings = None, []
    if files.recogniser is not None and files.insightface_root is not None:
        detector = FaceAnalyser(files.insightface_root)
        recogniser = onnx_recogniser(files.recogniser, detector, channels=files.recogniser_channels)
        digest = recogniser_digest(files.recogniser)
        weights["recogniser"] = digest if files.recogniser_channels == "rgb" else f"bgr, {digest}"
        weights["detector"] = _folder_digest(model_folder(files.insightface_root, "antelopev2"))
        same = conditioning is not None and same_network(recogniser.network, conditioning)
        if warning := circular([digest], [digest] if same else []):
            warnings.append(warning)
    else:
        missing.append(_RECOGNISER)
    estimator = None
    if files.dwpose is not None:
        estimator = DWPose.from_folder(files.dwpose)
        weights["estimator"] = sha256_of(list(model_files(files.dwpose)), directory=files.dwpose.expanduser())
    else:
        missing.append(_ESTIMATOR)
    tools = Tools(
        lpips=lpips,
        inception=inception,
        i3d=i3d,
        resnet_3d=resnet_3d,
        recogniser=recogniser,
        estimator=estimator,
        batch=batch,
        weights=weights,
    )
    return Opened(tools, missing, warnings)


def on_all_devices(network: Network) -> Network:
    """Rows spread over this process's devices, where it has several."""
    import jax

    from stableanimator_jax.parallel import make_mesh

    devices = jax.local_devices()
    return network if len(devices) == 1 else network.on(make_mesh(devices=devices))


def _folder_digest(folder: Path) -> str:
    return sha256_of(sorted(folder.glob("*.onnx")), directory=folder)

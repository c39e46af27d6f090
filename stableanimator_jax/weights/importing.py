"""PyTorch's files to a checkpoint of this project.

Everything that names and shapes can tell is checked before a tensor is read, and all problems are told at once. Then
the tensors stream through, one at a time, into a directory beside the checkpoint's place, which takes it when whole.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from tqdm import tqdm

from stableanimator_jax.config import (
    FaceEncoderConfig,
    Kind,
    PoseNetConfig,
    StableAnimatorConfig,
    StoredDtype,
    UNetConfig,
)
from stableanimator_jax.errors import InputError
from stableanimator_jax.family import FAMILY
from stableanimator_jax.files import require_room
from stableanimator_jax.models.catalogue import blueprint
from stableanimator_jax.provenance import file_sha256
from stableanimator_jax.weights.checkpoint import MODELS, require_replaceable, save_checkpoint
from stableanimator_jax.weights.onnx_arcface import infer_arcface_config, read_onnx_arcface
from stableanimator_jax.weights.published_files import NetworkFiles, SvdFiles, find_arcface, find_networks, find_svd
from stableanimator_jax.weights.relatives import (
    EXPERIMENT,
    RELATIVES,
    Found,
    combined,
    put_together,
    takes_svd_unet,
)
from stableanimator_jax.weights.rules import (
    Assignment,
    Shape,
    WeightsError,
    flatten,
    plan_export,
    plan_import,
    stream,
)
from stableanimator_jax.weights.rules import Path as ParameterPath
from stableanimator_jax.weights.state_dict_files import StateDictFile, open_state_dict
from stableanimator_jax.weights.svd_single_file import SVD_PARTS, SvdPart, is_single_file
from stableanimator_jax.weights.tables import add_id_adapter, tables
from stableanimator_jax.weights.wider_vae import Narrowed, wider

_SHOWN = 20
_SVD_XT_FRAMES = UNetConfig().num_frames


@dataclass
class Weights(ABC):
    """What one model of the new checkpoint is made from."""

    model: str
    config: StableAnimatorConfig
    dtype: StoredDtype

    def check(self) -> None:  # noqa: B027 (what is made anew needs none)
        """Raise `InputError` if names or shapes do not fit the model."""

    @abstractmethod
    def size(self) -> int:
        """Bytes that its parameters take."""

    @abstractmethod
    def origin(self, show_progress: bool) -> dict[str, Any]:
        """Where it comes from, for the checkpoint's `source`. Reads every file once."""

    @abstractmethod
    def stream(self, show_progress: bool) -> Iterator[tuple[ParameterPath, np.ndarray]]:
        """The parameters one after the other. Raises `InputError` where values are not finite."""


@dataclass
class FileWeights(Weights):
    """Weights read from PyTorch's or ONNX's files."""

    state_dict: Mapping[str, np.ndarray]
    shapes: Mapping[str, Shape]
    files: tuple[Path, ...]
    note: str = ""
    _plan: list[Assignment] = field(default_factory=list)

    @property
    def _where(self) -> str:
        return str(self.files[0])

    def check(self) -> None:
        table = tables(self.config)[self.model]
        try:
            self._plan = plan_import(table, self.shapes, blueprint(self.config, self.model).abstract_params())
        except WeightsError as e:
            looks_like = _looks_like(self.shapes, self.config)
            if looks_like not in (None, self.model):
                raise InputError(
                    f"{self._where} holds the weights of {looks_like}, not of {self.model}: were files swapped?"
                ) from e
            raise InputError(f"{self._where}: {e}{_hint(e)}") from e
        stored = flatten(blueprint(self.config, self.model, self.dtype).abstract_params())
        self._plan = [replace(a, dtype=stored[a.path].dtype) for a in self._plan]

    def size(self) -> int:
        return sum(int(np.prod(a.source_shape)) * a.dtype.itemsize for a in self._plan)

    def origin(self, show_progress: bool) -> dict[str, Any]:
        files = [_fingerprint(file, show_progress) for file in self.files]
        return {"files": files} | ({"note": self.note} if self.note else {})

    def stream(self, show_progress: bool) -> Iterator[tuple[ParameterPath, np.ndarray]]:
        keys = {a.path: a.key for a in self._plan}
        bad = []
        tensors = stream(tables(self.config)[self.model], self._plan, self.state_dict)
        for path, array in tqdm(tensors, self.model, len(self._plan), unit=" tensors", disable=not show_progress):
            if not np.isfinite(array).all():
                bad.append(keys[path])
            yield path, array
        if bad:
            more = f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
            raise InputError(f"{self._where} has values that are NaN or infinite, in {', '.join(bad[:_SHOWN])}{more}")


@dataclass
class FreshWeights(Weights):
    """Weights as training starts from them, by the module's own initialisers."""

    seed: int

    def size(self) -> int:
        leaves = jax.tree.leaves(blueprint(self.config, self.model, self.dtype).abstract_params())
        return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)

    def origin(self, show_progress: bool) -> dict[str, Any]:
        del show_progress
        return {"initialised": f"as training starts, with seed {self.seed}"}

    def stream(self, show_progress: bool) -> Iterator[tuple[ParameterPath, np.ndarray]]:
        del show_progress  # seconds
        plan = blueprint(self.config, self.model, self.dtype)
        module = plan.kind(plan.config, precision=plan.precision, rngs=nnx.Rngs(self.seed))
        for path, array in flatten(nnx.to_pure_dict(nnx.state(module))).items():
            yield path, np.asarray(array)


def import_weights(
    output: Path,
    *,
    svd: str | None = None,
    stableanimator: str | None = None,
    mimicmotion: str | None = None,
    animatelcm: str | None = None,
    controlnext: str | None = None,
    arcface: str | None = None,
    dtype: StoredDtype = "float32",
    seed: int = 0,
    overwrite: bool = False,
    show_progress: bool = False,
) -> tuple[str, ...]:
    """Make a checkpoint of published files. SVD, StableAnimator and ArcFace, each alone, will do; a relative needs SVD.

    The checkpoint's `config.kind` says which system it is.

    Args:
        output: the checkpoint directory to make.
        svd: SVD's folder in diffusers' layout. Alone its UNet gets an ID adapter that copies its own
            cross-attention, and PoseNet and Face Encoder are initialised as training starts. Whatever is put together
            with it wants SVD-XT, of 25 frames.
        stableanimator: the folder of unet, pose_net and face_encoder. Without `svd` they must have the published
            sizes, or a `config.json` of this project's beside them.
        mimicmotion: MimicMotion's file, or a folder with it, or with the two that ComfyUI's users have.
        animatelcm: AnimateLCM-SVD's file, or a folder with it. With `stableanimator` too, each of that UNet's tensors
            is moved by what distillation changed in SVD's: an experiment, and no published model.
        controlnext: the folder of ControlNeXt-SVD-v2's UNet and control net. What its UNet lacks is SVD's.
        arcface: ArcFace's `.pth`, `.safetensors` or `.onnx` file, or a folder with one.
        dtype: of kernels and biases. Norms and scales are float32 always, and so are the VAE and ArcFace.
        seed: of what is initialised.
        overwrite: replace a checkpoint that is there; nothing else ever is.
        show_progress: bars on stderr.

        Folders may be `hf://OWNER/REPOSITORY`.

    Returns:
        the names of the models in the checkpoint.

    Raises:
        InputError: files are missing, damaged, do not fit (each other, or the flags), or hold values that are not
            finite; or `output` cannot be written. Then nothing is left of it, and a checkpoint that was there is as it
            was.
    """
    named: dict[Kind, str | None] = {"mimicmotion": mimicmotion, "animatelcm": animatelcm, "controlnext": controlnext}
    given: dict[Kind, str] = {kind: name for kind, name in named.items() if name is not None}
    if svd is None and stableanimator is None and arcface is None and not given:
        raise InputError("nothing to import: give --svd, --stableanimator or --arcface (or several)")
    require_replaceable(output, overwrite=overwrite)
    kind = combined(svd, stableanimator, given)
    relative = next(iter(given)) if given else None
    networks = find_networks(stableanimator) if stableanimator is not None else None
    found = RELATIVES[relative].find(given[relative]) if relative else {}
    with_unet = takes_svd_unet(relative, with_networks=networks is not None)
    svd_files = find_svd(svd, with_unet=with_unet) if svd is not None else None
    arcface_weights = _open_arcface(find_arcface(arcface)) if arcface is not None else None
    config = _configuration(kind, svd_files, networks, arcface_weights, onto_xt=bool(networks or relative))

    svd_parts, network_parts = (_opened(files.weights) if files else {} for files in (svd_files, networks))
    weights: dict[str, Weights] = {}
    for model, state_dict in put_together(relative, svd_parts, network_parts, found).items():
        if model == "vae" and config.vae != wider(config.vae):
            state_dict = Narrowed(state_dict, config)
        part = FileWeights(model, config, dtype, state_dict, state_dict.shapes, state_dict.files)
        if model == "unet" and networks is None:
            part = _with_id_adapter(part)
        elif model == "unet" and relative:
            part = replace(part, note=EXPERIMENT)
        weights[model] = part
    if svd_files and not networks and not relative:  # where training starts
        weights |= {model: FreshWeights(model, config, dtype, seed) for model in ("pose_net", "face_encoder")}
    if arcface_weights:
        weights["arcface"] = replace(arcface_weights, config=config)
    weights = {model: weights[model] for model in MODELS if model in weights}

    _check_all(weights)
    require_room(output, sum(w.size() for w in weights.values()))
    source = {model: w.origin(show_progress) for model, w in weights.items()}
    parameters = {model: w.stream(show_progress) for model, w in weights.items()}
    save_checkpoint(output, config, parameters, source, overwrite=overwrite)
    return tuple(weights)


def _opened(files: Mapping[str, Path]) -> Found:
    """Each model's state dict; of SVD as one file, its part."""
    return {model: _part(open_state_dict(path, model), model) for model, path in files.items()}


def _part(file: StateDictFile, model: str) -> StateDictFile:
    if not is_single_file(file) or model not in SVD_PARTS:
        return file
    part = SvdPart(file, model)
    if model == "vae" and not any(".temporal_res_block." in key for key in part):
        raise InputError(
            f"{file.files[0]} has a decoder of single images (svd_image_decoder), and this project's, which is SVD's "
            "own, has layers over time: give svd.safetensors or svd_xt.safetensors"
        )
    return part


def _with_id_adapter(weights: FileWeights) -> FileWeights:
    owner = FAMILY[weights.config.kind].title
    try:
        tensors, shapes = add_id_adapter(weights.state_dict), add_id_adapter(weights.shapes)
    except WeightsError as e:
        raise InputError(
            f"{weights.files[0]} has an ID adapter, so it is not {owner}'s own UNet; give it as --stableanimator"
        ) from e
    note = f"{owner}'s own UNet; the ID adapter starts as a copy of its to_k and to_v"
    return replace(weights, state_dict=tensors, shapes=shapes, note=note)


def _open_arcface(path: Path) -> FileWeights:
    if path.suffix == ".onnx":
        tensors = read_onnx_arcface(path)
        shapes, files = {key: array.shape for key, array in tensors.items()}, (path,)
    else:
        tensors = open_state_dict(path, "arcface")
        shapes, files = tensors.shapes, tensors.files
    try:
        inferred = infer_arcface_config(shapes)
    except InputError as e:
        looks_like = _looks_like(shapes, StableAnimatorConfig())
        raise InputError(f"{path}: {e}" + (f"; it holds the weights of {looks_like}" if looks_like else "")) from e
    config = StableAnimatorConfig()
    fitting = replace(config.face_encoder, id_embedding_dim=inferred.embedding_dim)
    return FileWeights(
        "arcface", replace(config, face_encoder=fitting, arcface=inferred), "float32", tensors, shapes, files
    )


def _configuration(
    kind: Kind,
    svd: SvdFiles | None,
    networks: NetworkFiles | None,
    arcface: FileWeights | None,
    *,
    onto_xt: bool,
) -> StableAnimatorConfig:
    """What all the files together describe, some of which are `onto_xt`: made for SVD of 25 frames."""
    known = networks.config if networks else None
    if svd is not None and known is None and onto_xt and svd.unet_config.num_frames != _SVD_XT_FRAMES:
        raise InputError(
            f"{svd.num_frames_from}: num_frames is {svd.unet_config.num_frames}, so this is not SVD-XT: "
            f"{FAMILY[kind].title} is built on the {_SVD_XT_FRAMES}-frame model, stable-video-diffusion-img2vid-xt"
        )
    if known is not None and networks is not None and svd is not None:
        for name, found in (
            ("unet", replace(svd.unet_config, id_injection=known.unet.id_injection)),
            ("vae", svd.vae_config),
            ("image_encoder", svd.image_encoder_config),
        ):
            described = wider(known.vae) if name == "vae" else getattr(known, name)
            if described != found:
                raise InputError(
                    f"{networks.config_file} describes another {name} than --svd does: {described}, not {found}"
                )
    elif svd is not None:
        context = svd.unet_config.cross_attention_dim
        known = StableAnimatorConfig(
            kind=kind,
            # Only StableAnimator's ID adapter knows faces; the others' are switched off until they are trained.
            unet=replace(svd.unet_config, id_injection="none") if networks is None else svd.unet_config,
            vae=svd.vae_config,
            image_encoder=svd.image_encoder_config,
            face_encoder=FaceEncoderConfig(cross_attention_dim=context, image_embedding_dim=context),
            pose_net=PoseNetConfig(svd.unet_config.block_out_channels[0]),
        )
    if arcface is None:
        return known or StableAnimatorConfig()
    if known is None:
        return arcface.config if networks is None else replace(StableAnimatorConfig(), arcface=arcface.config.arcface)
    return replace(known, arcface=arcface.config.arcface)


def _check_all(weights: Mapping[str, Weights]) -> None:
    problems = []
    for w in weights.values():
        try:
            w.check()
        except InputError as e:
            problems.append(str(e))
    if problems:
        raise InputError("; and ".join(problems))


def _looks_like(shapes: Mapping[str, Shape], config: StableAnimatorConfig) -> str | None:
    """The model that most of these keys are of, if they are mostly of one."""
    shares = {}
    for model, table in tables(config).items():
        expected = {a.key for a in plan_export(table, blueprint(config, model).abstract_params())}
        shares[model] = len(expected & set(shapes)) / len(expected | set(shapes))
    best = max(shares, key=lambda model: shares[model])
    return best if shares[best] > 0.5 else None


def _hint(error: WeightsError) -> str:
    unfilled = error.problems.get("unfilled", [])
    if error.problems.keys() == {"unfilled"} and all(".id_to_" in line for line in unfilled):
        return " (these weights have no ID adapter, as SVD's own UNet: to start from SVD, give --svd alone)"
    return ""


def _fingerprint(file: Path, show_progress: bool) -> dict[str, Any]:
    # Under two folders, as in SVD/unet/diffusion_pytorch_model.safetensors.
    name = "/".join(file.absolute().parts[-3:])
    size = file.stat().st_size
    with tqdm(total=size, desc=f"sha256 of {file.name}", unit="B", unit_scale=True, disable=not show_progress) as bar:
        return {"name": name, "bytes": size, "sha256": file_sha256(file, bar.update)}

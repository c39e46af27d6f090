"""Everything a run reads: found, checked and loaded before anything is computed, and hashed for its record."""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from stableanimator_jax.config import StableAnimatorConfig
from stableanimator_jax.data.face_track import Face
from stableanimator_jax.data.images import BLACK, automatic_size, fit, load_image
from stableanimator_jax.data.keypoint_formats import holds_keypoints
from stableanimator_jax.data.keypoints import keypoints_beside
from stableanimator_jax.data.poses import pose_files, pose_size
from stableanimator_jax.errors import InputError
from stableanimator_jax.family import FAMILY, Member, member
from stableanimator_jax.files import is_directory
from stableanimator_jax.models.catalogue import sampling_models
from stableanimator_jax.perception.boxes import centres
from stableanimator_jax.perception.driving_poses import DrivenPoses, drawn, find_reference_person, fitted_keypoints
from stableanimator_jax.perception.faces import FaceAnalyser, load_face_embedding
from stableanimator_jax.perception.skeleton import DWPOSE_STYLE
from stableanimator_jax.provenance import sha256_of
from stableanimator_jax.sampling.video_inputs import check_size, fitted_reference
from stableanimator_jax.scripts.sample.driving import (
    REFERENCE_POSE,
    open_estimator,
    save_poses,
    with_published_pace,
)
from stableanimator_jax.scripts.sample.faces import (
    FaceInputs,
    Portrait,
    face_to_reach,
    find_reference_face,
    read_boxes,
    read_faces,
    reference_choice,
)
from stableanimator_jax.scripts.sample.finishing import Finishing, check_background, read_finishing
from stableanimator_jax.scripts.sample.movement import read_movement
from stableanimator_jax.scripts.sample.outputs import check_kept_poses, check_outputs
from stableanimator_jax.scripts.sample.record import InputFile, Record
from stableanimator_jax.scripts.sample.settings import LARGEST_SIDE, REFERENCE_PERSON_NEEDS, SampleConfig, kind_of
from stableanimator_jax.shipped import EMBEDDED, EXAMPLE, is_shipped
from stableanimator_jax.weights.run_folder import checkpoint_path


@dataclass(frozen=True)
class Identity:
    """Whose face it is."""

    embedding: Float32[np.ndarray, "512"] | Portrait | None
    """Raw ArcFace embedding, or what the checkpoint's own ArcFace is to make it of; None where there is neither."""
    source: str
    """Where it comes from, in words."""


@dataclass(frozen=True)
class Inputs:
    """What the models take."""

    reference: UInt8[np.ndarray, "h w 3"]
    """Of the output's aspect, at its own resolution."""
    poses: UInt8[np.ndarray, "f H W 3"] | None
    """At the output's size; None where the weights take none."""
    reference_pose: UInt8[np.ndarray, "H W 3"] | None
    """Where the weights begin with it."""
    models: StableAnimatorConfig
    """What the weights are."""
    size: tuple[int, int]
    """Width and height of the output."""
    frames: int
    """Of the output."""
    fps: float
    """Frames a second that the output plays at."""
    identity: Identity
    face: FaceInputs | None
    """What the face optimisation needs; None where it is off."""
    driven: DrivenPoses | None
    """What was found in the driving video, if there is one."""
    pace: SampleConfig
    """The run's settings with the driving video's frames and the output's speed as rates."""
    finishing: Finishing
    """What is done with the frames."""

    @property
    def denoised(self) -> int:
        """Frames that are denoised; one of them may be left out of the output."""
        return self.frames + member(self.models).drops_first

    @property
    def shown_poses(self) -> UInt8[np.ndarray, "f H W 3"] | None:
        """Of the output's frames."""
        if self.poses is None or len(self.poses) == self.frames or self.reference_pose is None:
            return self.poses
        return np.concatenate([self.reference_pose[None], self.poses])


def read_inputs(config: SampleConfig) -> Inputs:
    """Check that the outputs can be written, then read every input but the weights.

    Raises:
        InputError: an output cannot be written, an input cannot be used, or the output's size does not suit the models.
    """
    reference_path = _reference(config)
    if config.check:
        check_kept_poses(config)
    elif not config.warm_up:
        check_outputs(config)
    unused = config.face_masks or (None if config.embeds_reference else config.face_boxes)
    if unused and not config.optimises_faces:
        print(f"warning: {unused} is not used: --hjb.iterations is 0", file=sys.stderr)
    models = _checked_models(config)
    kind = member(models)
    config = with_published_pace(config, kind)
    poses_path = _poses(config, kind)
    # The quick checks first: opening a checkpoint takes seconds, InsightFace too.
    reference = load_image(reference_path, what="reference image")
    if poses_path is not None:
        pose_files(poses_path)
    check_background(config, reference)
    _check_style(config, kind, poses_path)
    if config.insightface_root is not None and not is_directory(config.insightface_root):
        raise InputError(f"--insightface-root {config.insightface_root} is not a directory")
    embedding = None if config.face_embedding is None else load_face_embedding(config.face_embedding)
    width, height = _output_size(config, models, poses_path, reference)
    own_pose = _given_reference_pose(config, kind, poses_path, width, height)
    try:
        fitted = fitted_reference(kind, reference, width, height, config.fit)
    except InputError as e:
        raise InputError(f"reference image {reference_path}: {e}") from e
    # Before the poses, which take long to find in a video.
    analyser = None if config.insightface_root is None else FaceAnalyser(config.insightface_root)
    estimator = None if config.driving is None else open_estimator(config)
    boxes = read_boxes(config, reference)
    standing = None
    if estimator is not None and (config.aligns or kind.reference_pose_first):
        begins = f"with whose pose {kind.title} begins; take another photo" if kind.reference_pose_first else None
        standing = find_reference_person(estimator, reference, reference_choice(config, boxes), begins)
    elif config.reference_person is not None and analyser is None:
        raise InputError(REFERENCE_PERSON_NEEDS)
    if standing is not None and kind.reference_pose_first:
        own_pose = drawn(fitted_keypoints(standing, width, height, config.fit), config.skeletons)[0]
    portrait, found = find_reference_face(config, reference, (width, height), analyser, boxes, standing)
    if not models.unet.takes_faces:
        if embedding is not None or analyser is not None or config.embeds_reference:
            print("warning: these weights have no ID adapter: no face is given to them", file=sys.stderr)
        identity = Identity(None, "none (these weights have no ID adapter), the reference image alone")
    elif embedding is not None:
        identity = Identity(embedding, f"the embedding in {config.face_embedding}")
    elif config.embeds_reference:
        identity = _own_identity(portrait, analyser, reference_path)
    elif analyser is not None:
        identity = _found_identity(analyser, reference, found, reference_path)
    else:
        identity = Identity(None, "none (no --insightface-root or --face-embedding), the reference image alone")
    wanted = face_to_reach(config, portrait, analyser, embedding) if config.optimises_faces else None

    frames = config.frames or models.unet.num_frames
    movement = read_movement(config, kind, poses_path, estimator, standing, (width, height), frames)
    poses, driven, frames = movement.poses, movement.driven, len(movement.timing.frame)
    face = None
    if wanted is not None:
        face = read_faces(config, boxes, analyser, wanted, movement, (width, height))
    if own_pose is not None and not kind.drops_first:
        frames += 1
    finishing = read_finishing(config, kind, reference, fitted, movement, (width, height), frames)
    if driven is not None and config.save_poses is not None:
        save_poses(config.save_poses, config, reference, driven, own_pose)
    return Inputs(
        fitted, poses, own_pose, models, (width, height), frames, movement.fps, identity, face, driven, config,
        finishing,
    )  # fmt: skip


def hash_inputs(config: SampleConfig) -> dict[str, InputFile]:
    """The sha256 of every file that a run of `config` reads, by the name of the setting.

    Raises:
        InputError: one cannot be read.
    """
    return {name: _hash(name, path) for name, path in _input_paths(config).items()}


def verify_inputs(record: Record, config: SampleConfig) -> None:
    """Check that the inputs which a recorded run read are still what they were.

    Those that `config` names differently, by a flag given on purpose, are not looked at.

    Args:
        record: the run to be repeated.
        config: its configuration as flags have changed it, with absolute paths.

    Raises:
        InputError: an input is missing or has changed.
    """
    paths = _input_paths(config)
    for name, then in record.inputs.items():
        if name not in paths or _shown(paths[name]) != then.path:
            continue
        flag = "--poses" if name == "keypoints" else f"--{name.replace('_', '-')}"  # they lie beside the poses
        if not _exists(paths[name]):
            raise InputError(f"the recorded run's {flag} {paths[name]} is no longer there; give another by {flag}")
        if _hash(name, paths[name]).sha256 != then.sha256:
            raise InputError(
                f"the recorded run's {flag} {paths[name]} has changed since (its sha256 is another): restore it, "
                f"or give another by {flag}"
            )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # such as a name too long
        return False


def _reference(config: SampleConfig) -> Path:
    if config.reference is None and config.checkpoint != EMBEDDED:
        raise InputError("give the person's photo: --reference IMAGE")
    return config.reference or EXAMPLE / "reference.png"


def _poses(config: SampleConfig, kind: Member) -> Path | None:
    """None where the poses come from a driving video, or there are none."""
    if kind.driver is None:
        if config.driving is not None or config.poses is not None:
            raise InputError(
                f"{kind.title} takes no poses: it moves the picture by itself; leave out --poses and --driving "
                "(--frames says how long it is to be)"
            )
        return None
    if config.frames is not None:
        raise InputError(
            f"--frames is for weights that take no poses: of {kind.title} each pose makes a frame "
            "(--driving-max-frames takes fewer of a video)"
        )
    if config.driving is not None:
        return None
    if config.poses is None and config.checkpoint != EMBEDDED:
        raise InputError(
            "give the movement: --driving, a video of anybody, or --poses, a directory of frame_N.png, a video of "
            "skeletons, or keypoints"
        )
    return config.poses or EXAMPLE / "poses"


def _check_style(config: SampleConfig, kind: Member, poses: Path | None) -> None:
    """Raise `InputError` where skeletons are to be drawn otherwise, but none are drawn."""
    if config.skeletons == DWPOSE_STYLE or config.driving is not None:
        return
    if kind.driver is None:
        raise InputError(f"{kind.title} takes no poses: leave out --face-keypoints and --hands")
    if poses is not None and not holds_keypoints(poses):
        raise InputError(
            f"poses {poses} are pictures already: leave out --face-keypoints and --hands, or give what skeletons are "
            "drawn from, --driving or a file of keypoints"
        )


def _given_reference_pose(
    config: SampleConfig, kind: Member, poses: Path | None, width: int, height: int
) -> UInt8[np.ndarray, "H W 3"] | None:
    """Where weights that begin with it are not to find it themselves."""
    path = _reference_pose(config, poses)
    if not kind.reference_pose_first:
        if config.reference_pose is not None:
            raise InputError(f"{kind.title} has no use for the reference's own pose: leave out --reference-pose")
        return None
    if poses is None:
        return None
    if path is None:
        raise InputError(
            f"{kind.title} begins with the reference's own pose: give its skeleton by --reference-pose, or --driving, "
            "a video of anybody, with --dwpose, which finds it"
        )
    print(f"the reference's own pose: {path}")
    image = load_image(path, what="reference pose", background=BLACK)
    return fit(image, width, height, config.fit, filter="bicubic", fill=BLACK)


def _reference_pose(config: SampleConfig, poses: Path | None) -> Path | None:
    """The file given, or that which lies beside the poses."""
    if config.reference_pose is not None or poses is None:
        return config.reference_pose
    if is_directory(poses):
        beside = poses / REFERENCE_POSE
    elif holds_keypoints(poses):  # such as keypoints.json among the skeletons that --save-poses leaves
        beside = poses.parent / REFERENCE_POSE
    else:
        return None
    return beside if beside.is_file() else None


def _checked_models(config: SampleConfig) -> StableAnimatorConfig:
    """What the checkpoint holds. Raises `InputError` unless it is all that the run needs."""
    from stableanimator_jax.sampling.deep_cache import check_branch  # imports JAX
    from stableanimator_jax.sampling.strengths import check_strengths
    from stableanimator_jax.weights.checkpoint import describe, require_models
    from stableanimator_jax.weights.opening import open_checkpoint

    source = open_checkpoint(config.checkpoint)
    require_models(source.path, sampling_models(source.config))
    if (config.optimises_faces or config.embeds_reference) and "arcface" not in describe(source.path).models:
        asking = "the face optimisation" if config.optimises_faces else "--identity checkpoint"
        raise InputError(
            f"checkpoint {source.path} has no arcface, which {asking} needs: import the checkpoint again with "
            "--arcface glintr100_torch.pth (of StableAnimator's files) or glintr100.onnx (of antelopev2)"
        )
    check_branch(source.config.unet, config.sampling.cache_branch)
    check_strengths(source.config, config.sampling)
    return source.config


def _output_size(
    config: SampleConfig, models: StableAnimatorConfig, poses: Path | None, reference: np.ndarray
) -> tuple[int, int]:
    if config.width is not None and config.height is not None:
        check_size(models, width=config.width, height=config.height)
        return config.width, config.height
    if poses is None:
        return automatic_size(reference.shape[1], reference.shape[0])
    width, height = pose_size(poses)
    try:
        check_size(models, width=width, height=height)
    except InputError as e:
        raise InputError(f"without --width and --height the output has the poses' size, but {e}") from e
    if max(width, height) > LARGEST_SIDE:
        raise InputError(
            f"without --width and --height the output has the poses' size, {width}x{height}, but at most "
            f"{LARGEST_SIDE} pixels a side can be written"
        )
    return width, height


def _own_identity(portrait: Portrait | None, analyser: FaceAnalyser | None, path: Path) -> Identity:
    if portrait is not None:
        words = f"the reference's face, its box from {portrait.source}, by the checkpoint's own ArcFace"
        return Identity(portrait, words)
    if analyser is not None:
        return Identity(None, f"none: InsightFace finds no face of the person in {path}; the reference image alone")
    flags = '--face-boxes with a "reference", --insightface-root or --face-embedding'
    return Identity(None, f"none (no {flags}), the reference image alone")


def _found_identity(analyser: FaceAnalyser, reference: np.ndarray, found: Face | None, path: Path) -> Identity:
    if found is None:
        return Identity(None, f"none: InsightFace finds no face of the person in {path}; the reference image alone")
    x, y = centres(found.box[None])[0].round().astype(int)
    words = f"the face around {x},{y} in {path}, found by InsightFace (score {found.score:.2f})"
    return Identity(analyser.identify(reference, found).embedding, words)


def _input_paths(config: SampleConfig) -> dict[str, Path]:
    begins_with_a_pose = FAMILY[kind_of(config.checkpoint)].reference_pose_first
    poses = config.poses or (EXAMPLE / "poses" if config.checkpoint == EMBEDDED and config.driving is None else None)
    paths = {
        "reference": _reference(config),
        "poses": poses,
        "reference_pose": _reference_pose(config, poses) if begins_with_a_pose else None,
        "driving": config.driving,
        "dwpose": None if config.driving is None else config.dwpose,
        "insightface_root": config.insightface_root,
        "face_embedding": config.face_embedding,
        "keep_background": config.keep_background,
        "checkpoint": checkpoint_path(config.checkpoint),
    }
    beside = None if poses is None or holds_keypoints(poses) else keypoints_beside(poses)
    if config.keep_background is not None:
        paths["keypoints"] = beside
    if config.optimises_faces or config.embeds_reference:
        paths["face_boxes"] = config.face_boxes
    if config.optimises_faces:
        paths["face_masks"] = config.face_masks
        if config.face_boxes is None and config.face_masks is None:
            paths["keypoints"] = beside
    return {name: path for name, path in paths.items() if path is not None}


def _shown(path: Path) -> str | None:
    """As a record names it; what ships in this package, wherever that may lie, has no path."""
    return None if is_shipped(path) else str(path)


def _hash(name: str, path: Path) -> InputFile:
    if path.is_file():
        return InputFile(_shown(path), sha256_of([path]))
    if name in ("poses", "face_masks", "keep_background"):
        files = pose_files(path)
    else:
        files = sorted(
            f for f in path.rglob("*.onnx" if name in ("insightface_root", "dwpose") else "*") if f.is_file()
        )
    return InputFile(_shown(path), sha256_of(files, directory=path))

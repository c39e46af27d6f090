"""Whole-body poses of the people in images by DWPose: YOLOX-L finds persons, RTMPose their 133 keypoints.

Source: Yang et al., "Effective Whole-body Pose Estimation with Two-stages Distillation" (ICCV 2023 workshops), with
the processing before and after the networks that its authors published.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, UInt8

from stableanimator_jax.data.keypoints import from_wholebody
from stableanimator_jax.errors import InputError
from stableanimator_jax.files import is_directory
from stableanimator_jax.opencv import cv2, require_opencv
from stableanimator_jax.perception.boxes import best_of_each
from stableanimator_jax.perception.onnx_model import OnnxModel, require_model
from stableanimator_jax.perception.people import People

_SOURCE = "download {} from huggingface.co/yzd-v/DWPose"

_DETECTOR, _ESTIMATOR = "person detector", "pose estimator"
_DETECTOR_FILE, _ESTIMATOR_FILE = "yolox_l.onnx", "dw-ll_ucoco_384.onnx"
_DETECTOR_SIDE = 640
_PAD = 114  # YOLOX's grey
_PERSON = 0  # of COCO's 80 classes
_LEAST_CONFIDENCE = 0.3
_MOST_OVERLAP = 0.45

_CROP = np.array([288, 384])  # width and height
_PADDING = 1.25  # of a box, so that hands and feet at its edge are in the crop
_BINS = 2  # SimCC's for each pixel
_MEAN = np.array([123.675, 116.28, 103.53], np.float32)
_STD = np.array([58.395, 57.12, 57.375], np.float32)


class DWPose:
    """Both networks, loaded: a `PoseEstimator`."""

    def __init__(self, detector: Path, estimator: Path, *, providers: Sequence[str] | None = None):
        """Load the models; nothing is downloaded here.

        Args:
            detector: YOLOX-L as an ONNX file without its post-processing, `yolox_l.onnx`.
            estimator: DWPose's RTMPose-L for 384x288 pixels as an ONNX file, `dw-ll_ucoco_384.onnx`.
            providers: ONNX Runtime's execution providers by name; by default CUDA if this build of ONNX Runtime has
                it, else the CPU.

        Raises:
            InputError: a file is missing or not that model, or a provider is not there.
        """
        self._detector = OnnxModel(
            detector,
            _DETECTOR,
            image=(3, _DETECTOR_SIDE, _DETECTOR_SIDE),
            outputs=[(8400, 85)],
            source=_SOURCE.format(_DETECTOR_FILE),
            providers=providers,
        )
        width, height = (int(side) for side in _CROP)
        self._estimator = OnnxModel(
            estimator,
            _ESTIMATOR,
            image=(3, height, width),
            outputs=[(133, width * _BINS), (133, height * _BINS)],
            source=_SOURCE.format(_ESTIMATOR_FILE),
            providers=providers,
        )

    @classmethod
    def from_folder(cls, folder: Path | str, *, providers: Sequence[str] | None = None) -> "DWPose":
        """Load the models from a folder that has them by their published names, as `model_files` says.

        Raises:
            InputError: as `model_files` and `DWPose`.
        """
        require_opencv()
        return cls(*model_files(Path(folder)), providers=providers)

    def people(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[People]:
        """Find the people in each RGB image; where there is nobody, the arrays have no rows.

        The published detector falls back to the whole image where it sees nobody, and so sees somebody in every
        empty scene; this one does not.

        Raises:
            InputError: a model's outputs are not of the shapes they should be.
        """
        boxes = self.boxes(images)
        owners = [i for i, found in enumerate(boxes) for _ in found]
        everybody = np.concatenate([np.zeros((0, 4), np.float32), *boxes])
        keypoints, scores = self._keypoints(images, owners, everybody)
        ends = np.cumsum([len(found) for found in boxes])
        return [
            People(found, keypoints[end - len(found) : end], scores[end - len(found) : end])
            for found, end in zip(boxes, ends, strict=True)
        ]

    def boxes(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[Float32[np.ndarray, "_ 4"]]:
        """The boxes of the people in each RGB image, the surest first."""
        results = self._detector(map(_detector_input, images))
        return [
            _person_boxes(prediction, _letterbox_scale(image))
            for image, (prediction,) in zip(images, results, strict=True)
        ]

    def _keypoints(
        self, images: Sequence[np.ndarray], owners: Sequence[int], boxes: Float32[np.ndarray, "n 4"]
    ) -> tuple[Float32[np.ndarray, "n 134 2"], Float32[np.ndarray, "n 134"]]:
        centres, extents = _crop_regions(boxes)

        def crops() -> Iterator[np.ndarray]:
            for owner, centre, extent in zip(owners, centres, extents, strict=True):
                yield _estimator_input(images[owner], centre, extent)

        results = [_decode_simcc(x, y) for x, y in self._estimator(crops())]
        points = np.array([points for points, _ in results], np.float64).reshape(-1, 133, 2)
        scores = np.array([scores for _, scores in results], np.float32).reshape(-1, 133)
        points = points / _CROP * extents[:, None] + (centres - extents / 2)[:, None]
        return from_wholebody(points.astype(np.float32), scores)


def model_files(folder: Path) -> tuple[Path, Path]:
    """The person detector, `yolox_l.onnx`, and the pose estimator, `dw-ll_ucoco_384.onnx`, in a folder.

    Raises:
        InputError: the folder is none, or lacks one of them.
    """
    folder = folder.expanduser()
    if not is_directory(folder):
        raise InputError(
            f"--dwpose {folder} is not a directory: give the one that holds {_DETECTOR_FILE} and {_ESTIMATOR_FILE}"
        )
    detector, estimator = folder / _DETECTOR_FILE, folder / _ESTIMATOR_FILE
    for path, what in ((detector, _DETECTOR), (estimator, _ESTIMATOR)):
        require_model(path, what, _SOURCE.format(path.name))
    return detector, estimator


def _letterbox_scale(image: np.ndarray) -> float:
    return min(_DETECTOR_SIDE / image.shape[0], _DETECTOR_SIDE / image.shape[1])


def _detector_input(image: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "3 640 640"]:
    """The image in the upper left corner, BGR in [0, 255]: YOLOX was trained on what OpenCV reads."""
    scale = _letterbox_scale(image)
    height, width = (max(1, int(side * scale)) for side in image.shape[:2])
    canvas = np.full((_DETECTOR_SIDE, _DETECTOR_SIDE, 3), _PAD, np.uint8)
    canvas[:height, :width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return canvas[..., ::-1].transpose(2, 0, 1).astype(np.float32)


def _grid() -> tuple[Float32[np.ndarray, "8400 2"], Float32[np.ndarray, "8400 1"]]:
    """Each prediction's cell (column, row) and its stride in pixels."""
    cells, strides = [], []
    for stride in (8, 16, 32):
        side = _DETECTOR_SIDE // stride
        rows, columns = np.divmod(np.arange(side * side, dtype=np.float32), side)
        cells.append(np.stack([columns, rows], axis=1))
        strides.append(np.full((side * side, 1), stride, np.float32))
    return np.concatenate(cells), np.concatenate(strides)


_CELLS, _STRIDES = _grid()


def _person_boxes(prediction: Float[np.ndarray, "8400 85"], scale: float) -> Float32[np.ndarray, "n 4"]:
    """Columns: centre in cells from its own, logarithm of the size in strides, objectness, 80 classes."""
    confidence = prediction[:, 4] * prediction[:, 5 + _PERSON]
    seen = confidence > _LEAST_CONFIDENCE
    with np.errstate(over="ignore"):  # a size beyond float32 is dropped below
        centres = (prediction[seen, :2] + _CELLS[seen]) * _STRIDES[seen]
        sizes = np.exp(prediction[seen, 2:4]) * _STRIDES[seen]
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1) / scale
    whole = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    boxes = boxes[whole].astype(np.float32)
    # The published suppression counts a box's last pixel in.
    return boxes[best_of_each(boxes + np.array([0, 0, 1, 1], np.float32), confidence[seen][whole], _MOST_OVERLAP)]


def _crop_regions(
    boxes: Float32[np.ndarray, "n 4"],
) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n 2"]]:
    """Centre and (width, height) of what is cropped: the padded box, made as wide or as high as the crop's aspect."""
    boxes = boxes.astype(np.float64)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    sizes = (boxes[:, 2:] - boxes[:, :2]) * _PADDING
    return centres, (sizes / _CROP).max(axis=1, keepdims=True) * _CROP


def _estimator_input(
    image: UInt8[np.ndarray, "h w 3"], centre: Float[np.ndarray, " 2"], extent: Float[np.ndarray, " 2"]
) -> Float32[np.ndarray, "3 384 288"]:
    """The crop in RGB, black outside of the image: DWPose was trained so, and its mean is in that order."""
    scale = _CROP[0] / extent[0]
    shift = _CROP / 2 - scale * centre
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    crop = cv2.warpAffine(image, matrix, (int(_CROP[0]), int(_CROP[1])), flags=cv2.INTER_LINEAR)
    return ((crop - _MEAN) / _STD).transpose(2, 0, 1)


def _decode_simcc(
    x: Float32[np.ndarray, "133 576"], y: Float32[np.ndarray, "133 768"]
) -> tuple[Float[np.ndarray, "133 2"], Float[np.ndarray, "133"]]:
    """Pixels of the crop, and the smaller of both axes' maxima. What has no positive one is left of and above it."""
    points = np.stack([x.argmax(axis=1), y.argmax(axis=1)], axis=1) / _BINS
    scores = np.minimum(x.max(axis=1), y.max(axis=1))
    return np.where(scores[:, None] > 0, points, -1 / _BINS), scores

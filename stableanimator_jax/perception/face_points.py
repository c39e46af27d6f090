"""A face's box and landmarks out of whole-body keypoints, as InsightFace's detector (SCRFD) would give them."""

import numpy as np
from jaxtyping import Float

from stableanimator_jax.data.face_track import FaceTrack
from stableanimator_jax.data.keypoints import LEAST_SCORE, missing_joints
from stableanimator_jax.perception.skeleton import FACE

# iBUG's 68 points: 0 to 16 the jaw with the chin at 8, then brows, nose, eyes, mouth. "First" is the image-left one
# of an upright face.
_CHIN, _BROWS = 8, slice(17, 27)
_FIRST_EYE, _SECOND_EYE = slice(36, 42), slice(42, 48)
_NOSE_TIP, _MOUTH_CORNERS = 30, [48, 54]

# The 68 points end at the brows, but a detector's box has most of the forehead in it. This share of the distance from
# chin to brows makes the box of a frontal face about 1.3 times as high as wide, as detectors' boxes usually are.
_FOREHEAD = 0.3


def track_from_keypoints(points: Float[np.ndarray, "f 134 2"], scores: Float[np.ndarray, "f 134"]) -> FaceTrack:
    """The face of a person whose keypoints are known.

    Landmarks are the mean of each eye's six points, the tip of the nose and the corners of the mouth. The box goes
    around all 68 points and the brows moved up, away from the chin, by 0.3 of their distance from it.

    Args:
        points: (x, y) in pixels; rows as in `data.keypoints.Keypoints`.
        scores: confidence. A frame has a face where the mean of the face's 68 is at least 0.3, and none is missing.

    Returns:
        the track in the same pixels; boxes are not cut to the frame, which `FaceTrack.fitted` does.
    """
    face = points[:, FACE].astype(np.float64)  # [f, 68, 2]
    complete = ~missing_joints(points, scores)[:, FACE].any(axis=1)
    valid = (scores[:, FACE].mean(axis=1) >= LEAST_SCORE) & complete
    landmarks = np.stack(
        [face[:, _FIRST_EYE].mean(axis=1), face[:, _SECOND_EYE].mean(axis=1), face[:, _NOSE_TIP]]
        + [face[:, corner] for corner in _MOUTH_CORNERS],
        axis=1,
    )
    brows = face[:, _BROWS]
    up = brows.mean(axis=1) - face[:, _CHIN]  # of the head, however it is held
    head = np.concatenate([face, brows + _FOREHEAD * up[:, None]], axis=1)
    boxes = np.floor(np.concatenate([head.min(axis=1), head.max(axis=1)], axis=-1) + 0.5)
    return FaceTrack(
        boxes=np.where(valid[:, None], boxes, 0).astype(np.float32),
        landmarks=np.where(valid[:, None, None], landmarks, 0).astype(np.float32),
        valid=valid,
    )

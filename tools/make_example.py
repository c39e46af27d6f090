"""Make the example that ships in the package: a photo, a pose sequence of its person who turns and waves, and where
her face is.

    python tools/make_example.py [DIRECTORY]

The photo is scikit-image's `astronaut` (NASA, public domain). The poses are a small animated model of a person in
three dimensions, placed on the person in the photo and drawn in DWPose's style: no video and no detector is needed,
and the same files come out every time.
"""

import sys
from pathlib import Path

import cv2
import numpy as np
import skimage.data
from PIL import Image

from stableanimator_jax.data.face_track import FaceTrack, ReferenceFace, save_face_boxes
from stableanimator_jax.perception.face_points import track_from_keypoints
from stableanimator_jax.perception.skeleton import draw_skeletons

SIZE = 512
FRAMES = 32
EXAMPLE = Path(__file__).parents[1] / "stableanimator_jax" / "assets" / "example"

# Coordinates are pixels of the photo: x to the right, y down, z towards the viewer. Left and right are the
# person's own: her left hand is at the right of the picture.
CAMERA = 1800.0
SPINE = np.array([212.0, 260.0, -30.0])  # between the shoulders; the trunk turns about it
SHOULDERS = {"right": np.array([95.0, 258.0, 0.0]), "left": np.array([330.0, 262.0, 0.0])}
UPPER_ARM, FOREARM, HAND = 166.0, 136.0, 84.0

# Directions of the bones, each arm at rest and the left one raised; as in the photo, hands before the body.
ARMS_DOWN = {
    "right": (np.array([-37.0, 160.0, -20.0]), np.array([80.0, 76.0, 78.0])),
    "left": (np.array([37.0, 160.0, -20.0]), np.array([-80.0, 76.0, 78.0])),
}
ARM_UP = (np.array([62.0, 84.0, 122.0]), np.array([4.0, -132.0, 20.0]))

# The face, in halves of its width (45 pixels) from the point between the eyes; only its right side, of which the
# left one is the mirror image. iBUG's 68 points: jaw, brow, nose, eye, mouth.
FACE_CENTRE, FACE_UNIT = np.array([224.5, 102.5, 0.0]), 45.0
SKULL_BASE = np.array([223.0, 150.0, -80.0])  # the head turns about it
JAW = [
    (-1.00, 0.12, -1.00), (-0.99, 0.38, -0.95), (-0.95, 0.63, -0.88), (-0.89, 0.88, -0.78), (-0.79, 1.11, -0.60),
    (-0.63, 1.31, -0.40), (-0.43, 1.48, -0.20), (-0.22, 1.61, -0.08), (0.00, 1.66, -0.05),
]  # fmt: skip
BROW = [(-0.86, -0.16, -0.35), (-0.72, -0.29, -0.20), (-0.55, -0.34, -0.08), (-0.37, -0.32, 0.0), (-0.2, -0.25, 0.06)]
NOSE_BRIDGE = [(0.0, -0.02, 0.10), (0.0, 0.16, 0.25), (0.0, 0.33, 0.40), (0.0, 0.50, 0.52)]
NOSE_BASE = [(-0.20, 0.58, 0.18), (-0.10, 0.62, 0.25), (0.0, 0.65, 0.30)]
EYE = [
    (-0.70, 0.01, -0.15), (-0.58, -0.07, -0.08), (-0.44, -0.07, -0.04), (-0.32, 0.02, -0.04), (-0.44, 0.06, -0.04),
    (-0.58, 0.06, -0.08),
]  # fmt: skip
UPPER_LIP = [(-0.41, 0.88, 0.02), (-0.27, 0.85, 0.14), (-0.10, 0.83, 0.20), (0.0, 0.84, 0.21)]
LOWER_LIP = [(0.0, 1.06, 0.18), (-0.10, 1.05, 0.17), (-0.27, 1.00, 0.12)]
INNER_UPPER_LIP = [(-0.35, 0.89, 0.04), (-0.12, 0.89, 0.17), (0.0, 0.895, 0.18)]
INNER_LOWER_LIP = [(0.0, 0.98, 0.16), (-0.12, 0.97, 0.15)]
PUPIL, EAR = (-0.51, 0.0, -0.06), (-1.12, 0.50, -1.15)

# Read off the photo: eyes, nose, mouth corners.
PHOTO_LANDMARKS = np.array([(201.5, 101.5), (247.5, 103.5), (223.5, 125), (206, 142.5), (243, 143.5)], np.float32)

# Fingers in hand lengths: where each leaves the wrist's plane (along the hand, towards the thumb), the angle at
# which it spreads, and its three bones. The thumb's first joint is its base in the palm.
FINGERS = [
    ((0.12, 0.14), 0.75, (0.21, 0.16, 0.13)),
    ((0.48, 0.15), 0.17, (0.23, 0.13, 0.10)),
    ((0.50, 0.03), 0.03, (0.26, 0.15, 0.11)),
    ((0.47, -0.08), -0.12, (0.23, 0.14, 0.11)),
    ((0.42, -0.18), -0.30, (0.17, 0.10, 0.09)),
]


def unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v)


def turn(points: np.ndarray, centre: np.ndarray, *, yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0):
    """Rotate about `centre`, in degrees: yaw to the picture's right, pitch up, roll clockwise."""
    y, p, r = np.radians([yaw, pitch, roll])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    about_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return (points - centre) @ (about_z @ about_x @ about_y).T + centre


def between(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
    """The direction at `share` of the way from a to b along the great circle."""
    a, b = unit(a), unit(b)
    angle = np.arccos(np.clip(a @ b, -1, 1))
    return (np.sin((1 - share) * angle) * a + np.sin(share * angle) * b) / np.sin(angle)


def ease(x: float) -> float:
    """From 0 to 1 with neither end abrupt."""
    x = min(max(x, 0.0), 1.0)
    return x * x * (3 - 2 * x)


def head(yaw: float, pitch: float, roll: float, eyes_open: float) -> tuple[np.ndarray, np.ndarray]:
    """The face's 68 points, and the nose, eyes and ears of the body: [68, 3] and [5, 3]."""

    def mirrored(points):
        return [(-x, y, z) for x, y, z in reversed(points)]

    eye = [(x, y * eyes_open, z) for x, y, z in EYE]
    other_eye = [(-x, y, z) for x, y, z in (eye[3], eye[2], eye[1], eye[0], eye[5], eye[4])]
    face = (
        JAW + mirrored(JAW[:-1]) + BROW + mirrored(BROW) + NOSE_BRIDGE + NOSE_BASE + mirrored(NOSE_BASE[:-1])
        + eye + other_eye
        + UPPER_LIP + mirrored(UPPER_LIP[:-1]) + mirrored(LOWER_LIP[1:]) + LOWER_LIP
        + INNER_UPPER_LIP + mirrored(INNER_UPPER_LIP[:-1]) + mirrored(INNER_LOWER_LIP[1:]) + INNER_LOWER_LIP
    )  # fmt: skip
    body = [NOSE_BRIDGE[-1], PUPIL, *mirrored([PUPIL]), EAR, *mirrored([EAR])]
    points = np.array(face + body) * FACE_UNIT + FACE_CENTRE
    points = turn(points, SKULL_BASE, yaw=yaw, pitch=pitch, roll=roll)
    return points[:68], points[68:]


def hand(side: str, wrist: np.ndarray, along: np.ndarray, thumb: np.ndarray, curl: float) -> np.ndarray:
    """The 21 points of a hand that points `along`, its thumb on the side of `thumb`, fingers bent by `curl`."""
    along = unit(along)
    across = unit(thumb - (thumb @ along) * along)
    palm = np.cross(across, along) if side == "left" else np.cross(along, across)
    points = [wrist]
    for finger, ((base_along, base_across), spread, bones) in enumerate(FINGERS):
        point = wrist + HAND * (base_along * along + base_across * across)
        direction = np.cos(spread) * along + np.sin(spread) * across
        points.append(point)
        bend = 0.0
        for bone in bones:
            bend += curl * (0.4 if finger == 0 else 1.0)
            point = point + HAND * bone * (np.cos(bend) * direction + np.sin(bend) * palm)
            points.append(point)
    return np.array(points)


def person(t: float) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints [134, 2] in pixels and scores [134] at time `t` in [0, 1), after which the motion begins again.

    She lifts her left arm, waves twice while she turns a little to and fro, and lets it sink again.
    """
    cycle = 2 * np.pi * t
    lift = ease(t / 0.38) * ease((1 - t) / 0.38)
    wave = 4 * np.pi * (t - 0.3) / 0.45  # two swings while the arm is up
    trunk = {"yaw": 5 * np.sin(cycle), "roll": 1.5 * np.sin(cycle)}
    sway = np.array([5 * np.sin(cycle), 1.5 * np.sin(2 * cycle), 0.0])

    joints = np.zeros((18, 3))
    hands = {}
    for side, first in (("right", 2), ("left", 5)):
        upper, fore = ARMS_DOWN[side]
        curl, thumb, wrist_lag = 0.35, np.array([0.0, -1.0, 0.3]), 0.0
        if side == "left":
            upper, fore = between(upper, ARM_UP[0], lift), between(fore, ARM_UP[1], lift)
            fore = turn(fore, np.zeros(3), roll=lift * (15 * np.sin(wave) - 6))
            wrist_lag = lift * 12 * np.sin(wave - 1.0)  # the hand follows the forearm
            curl = 0.35 - 0.25 * lift
            thumb = (1 - lift) * thumb + lift * np.array([-1.0, -0.1, 0.1])
        else:
            upper = upper + np.array([0.0, 0.0, 12 * np.sin(cycle)])
            fore = fore + np.array([6 * np.sin(cycle), -8 * np.sin(cycle + 0.6), 0.0])
        shoulder = SHOULDERS[side] + np.array([0.0, -10 * lift if side == "left" else 2 * lift, 0.0])
        elbow = shoulder + UPPER_ARM * unit(upper)
        wrist = elbow + FOREARM * unit(fore)
        along = turn(unit(fore), np.zeros(3), roll=wrist_lag)
        hands[side] = turn(hand(side, wrist, along, thumb, curl), SPINE, **trunk) + sway
        joints[first : first + 3] = turn(np.stack([shoulder, elbow, wrist]), SPINE, **trunk) + sway
    joints[1] = (joints[2] + joints[5]) / 2

    # The head turns more than the trunk, and before it, towards the waving hand; it blinks once.
    blink = 1 - 0.9 * np.exp(-(((t - 0.6) * FRAMES) ** 2))
    look = {"yaw": 12 * np.sin(cycle) + 6 * lift, "pitch": 2 * np.sin(2 * cycle), "roll": 2.5 + 4 * lift}
    face, senses = head(**look, eyes_open=blink)
    moved = joints[1] - (SHOULDERS["right"] + SHOULDERS["left"]) / 2  # it sits on the neck
    face, senses = face + moved, senses + moved
    joints[0], joints[14:18] = senses[0], senses[1:]

    points = np.concatenate([joints, np.zeros((6, 3)), face, hands["left"], hands["right"]])
    scores = np.concatenate(
        [
            [0.93, 0.9, 0.9, 0.88, 0.85, 0.9, 0.88, 0.85],
            np.zeros(6),  # hips and legs, below the picture
            [0.95, 0.95, 0.9, 0.9],
            np.zeros(6),
            np.full(68, 0.95),
            np.full(42, 0.85),
        ]
    )
    centre = np.array([SIZE / 2, SIZE / 2])
    pixels = centre + (points[:, :2] - centre) * (CAMERA / (CAMERA - points[:, 2:]))
    # A detector is unsure of hands that the picture cuts off, and dims the ear that turns away.
    cut = np.clip((SIZE - pixels[92:, 1]) / 24, 0.15, 1.0)
    scores[92:] *= cut
    scores[16] *= 1 - ease((look["yaw"] - 8) / 20) * 0.5
    scores[17] *= 1 - ease((-look["yaw"] - 8) / 20) * 0.5
    return pixels, scores


def main(directory: Path) -> None:
    poses = directory / "poses"
    poses.mkdir(parents=True, exist_ok=True)
    photo = Image.fromarray(skimage.data.astronaut()).resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    photo.save(directory / "reference.jpg", quality=90, optimize=True)
    points, scores = map(np.stack, zip(*(person(i / FRAMES) for i in range(FRAMES)), strict=True))
    for i in range(FRAMES):
        image = draw_skeletons(points[i : i + 1] / SIZE, scores[i : i + 1], SIZE, SIZE)
        # Unfiltered rows: thin lines on black compress a fifth better so.
        png = [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE, cv2.IMWRITE_PNG_COMPRESSION, 9]
        cv2.imwrite(str(poses / f"frame_{i}.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR), png)
    track = track_from_keypoints(points, scores)
    assert track.landmarks is not None
    track = FaceTrack(track.boxes, np.round(track.landmarks, 1), track.valid)
    reference = ReferenceFace(track.boxes[0], PHOTO_LANDMARKS)  # she starts where the photo has her
    save_face_boxes(directory / "face_boxes.json", track=track, size=(SIZE, SIZE), reference=reference)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else EXAMPLE)

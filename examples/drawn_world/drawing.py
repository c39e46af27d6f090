"""One drawn person in one pose: the picture, and whole-body keypoints as DWPose gives them."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from examples.drawn_world.canvas import SUPERSAMPLED, Canvas, background, shade
from examples.drawn_world.head import HEAD, Head, draw_face, draw_hair_behind
from examples.drawn_world.motion import Motion
from examples.drawn_world.people import Colour, Person

_UPPER_ARM, _FOREARM = 0.2, 0.18
_SEEN, _HIDDEN = 0.95, 0.1  # scores of keypoints


class Drawn(NamedTuple):
    """One frame."""

    picture: UInt8[np.ndarray, "size size 3"]
    points: Float32[np.ndarray, "134 2"]
    """In pixels; rows as in `data.keypoints.Keypoints`."""
    scores: Float32[np.ndarray, "134"]


def draw(person: Person, motion: Motion, frame: int, size: int, wall: int, supersampled: int = SUPERSAMPLED) -> Drawn:
    """Draw a frame.

    Args:
        person: who.
        motion: how; its frame `frame` is drawn.
        frame: from 0.
        size: of the square picture in pixels; identity shows from 64 on.
        wall: the background's seed.
        supersampled: how many times as large it is drawn first. At four times the size and not supersampled it is the
            drawing that the usual picture is made of, line by line.
    """
    canvas = Canvas(size, background(wall), supersampled)
    neck = np.array([motion.x[frame], motion.y[frame]])
    lean, yaw, pitch, roll = (float(a[frame]) for a in (motion.lean, motion.yaw, motion.pitch, motion.roll))
    up = np.array([np.sin(lean), -np.cos(lean)])
    right = np.array([np.cos(lean), np.sin(lean)])
    half = 0.17 * person.shoulders * 0.95
    head = Head(person, neck + up * HEAD * 1.08 + np.array([np.sin(yaw) * 0.02, 0]), yaw, pitch, roll)
    shoulders = [neck - up * 0.04 + side * half * right for side in (-1, 1)]
    hips = [neck - up * 0.42 + side * half * 0.7 * right for side in (-1, 1)]
    elbows, wrists = [], []
    for k, side in enumerate((-1, 1)):
        angle = float(motion.upper_arms[frame, k])
        elbows.append(shoulders[k] + _UPPER_ARM * (side * right * np.sin(angle) - up * np.cos(angle)))
        angle += float(motion.forearms[frame, k])
        wrists.append(elbows[k] + _FOREARM * (side * right * np.sin(angle) - up * np.cos(angle)))

    draw_hair_behind(canvas, head)
    _draw_shirt(canvas, person, neck, shoulders, hips, up)
    canvas.line(np.array([neck - up * 0.02, head.silhouette([0, 0.6])[0]]), shade(person.skin, 0.82), HEAD * 0.55)
    face = draw_face(canvas, head, float(motion.mouth[frame]), float(motion.blink[frame]))
    hands = []
    for k in (0, 1):  # before the body, and before the face where they reach it
        canvas.line(np.array([shoulders[k], elbows[k]]), shade(person.shirt_colour, 0.85), 0.08)
        canvas.line(np.array([elbows[k], wrists[k]]), person.skin, 0.055)
        hands.append(_draw_hand(canvas, person.skin, elbows[k], wrists[k]))

    body = _body(person, head, neck, up, shoulders, elbows, wrists, hips)
    feet = np.repeat(body[[13, 10]], 3, axis=0)
    points = np.concatenate([body, feet, face, hands[1], hands[0]]) * size
    scores = np.full(134, _SEEN)
    scores[(points < 0).any(axis=1) | (points >= size).any(axis=1)] = _HIDDEN
    scores[18:24] = _HIDDEN
    if abs(yaw) > 0.5:  # the ear on the far side
        scores[17 if yaw > 0 else 16] = _HIDDEN
    return Drawn(canvas.picture(), points.astype(np.float32), scores.astype(np.float32))


def _body(person: Person, head: Head, neck, up, shoulders, elbows, wrists, hips) -> np.ndarray:
    """OpenPose's 18 joints. The person's right is the picture's left."""
    eye = person.eye_distance
    nose = head.surface([0, person.nose_length], 0.15)[0]
    eyes = head.surface([[-eye, -0.1], [eye, -0.1]])
    ears = head.silhouette([[-person.head_width, 0.0], [person.head_width, 0.0]])
    legs = [[hip, hip - up * 0.4, hip - up * 0.8] for hip in hips]
    arms = [[shoulders[k], elbows[k], wrists[k]] for k in (0, 1)]
    return np.array([nose, neck - up * 0.04, *arms[0], *arms[1], *legs[0], *legs[1], *eyes, *ears])


def _draw_shirt(canvas: Canvas, person: Person, neck, shoulders, hips, up) -> None:
    left, right = shoulders
    low = [hip - up * 0.4 for hip in hips]
    torso = np.array([neck + up * 0.01, left + up * 0.03, low[0], low[1], right + up * 0.03])
    canvas.fill(torso, person.shirt_colour)
    second, across, down = person.shirt_second, right - left, low[0] - left
    if person.shirt == "stripes":
        for k in np.linspace(0.12, 0.88, 5):
            canvas.line(np.array([left + k * across, left + k * across + down]), second, 0.025)
    elif person.shirt == "hoops":
        for k in np.linspace(0.08, 0.95, 9):
            canvas.line(np.array([left + k * down, right + k * (low[1] - right)]), second, 0.028)
    elif person.shirt == "dots":
        for i in np.linspace(0.1, 0.9, 5):
            for j in np.linspace(0.06, 0.9, 9):
                canvas.disc(left + i * across + j * down, 0.016, second)
    elif person.shirt == "collar":
        for side in (left, right):
            canvas.fill(np.array([neck, neck + 0.5 * (side - neck), neck - up * 0.14]), second)


def _draw_hand(canvas: Canvas, skin: Colour, elbow: np.ndarray, wrist: np.ndarray) -> np.ndarray:
    """A palm with five fingers; its 21 points."""
    along = (wrist - elbow) / np.linalg.norm(wrist - elbow)
    across = np.array([-along[1], along[0]])
    points = [wrist]
    canvas.disc(wrist + 0.02 * along, 0.03, skin)
    for finger, spread in enumerate((-0.9, -0.4, 0.0, 0.4, 0.8)):
        direction = along * np.cos(spread) + across * np.sin(spread)
        length = 0.05 if finger == 0 else 0.065
        joints = [wrist + direction * (0.02 + length * k / 4) for k in range(1, 5)]
        canvas.line(np.array([wrist, joints[-1]]), skin, 0.016)
        points += joints
    return np.array(points)

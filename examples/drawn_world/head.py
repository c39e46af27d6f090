"""A drawn head: turned in space, with everything that makes a face somebody's, and iBUG's 68 points of it."""

import numpy as np

from examples.drawn_world.canvas import Canvas, ellipse, shade
from examples.drawn_world.people import Person

HEAD = 0.2
"""Half the head's height, in frame heights: the length that everything of a person is measured in."""
_DEPTH = 0.8  # of the head, from its middle to the nose's root, in the same half-heights
_EYES = -0.1  # their height on the face


class Head:
    """Places on the head as (x, y) in half-heights from its middle, y down; turned, they are in frame heights.

    Args:
        person: whose.
        centre: of the head, [2] in frame heights.
        yaw, pitch, roll: of the head in radians; positive looks to the picture's right, down, and leans right.
    """

    def __init__(self, person: Person, centre: np.ndarray, yaw: float, pitch: float, roll: float):
        self.person, self.centre, self.yaw, self.pitch = person, centre, yaw, pitch
        cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
        turn_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        turn_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
        self.turn = turn_x @ turn_y
        self.roll = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
        # How wide an ellipsoid looks from its side.
        self.widened = np.sqrt(cy**2 + (_DEPTH / person.head_width * sy) ** 2)

    def surface(self, points: object, out: float = 0.0) -> np.ndarray:
        """Of points [n, 2] on the face, or `out` in front of it."""
        points = np.atleast_2d(np.asarray(points, np.float64))
        inside = 1 - (points[:, 0] / self.person.head_width) ** 2 - (0.95 * points[:, 1]) ** 2
        depth = _DEPTH * np.sqrt(np.clip(inside, 0, None)) + out
        turned = np.column_stack([points, depth]) @ self.turn.T
        return self._placed(turned[:, :2])

    def silhouette(self, points: object, behind: float = 0.0) -> np.ndarray:
        """Of points [n, 2] on the head's outline. Those below the middle go forwards with the chin, those that are
        `behind` the head's middle go the other way."""
        points = np.atleast_2d(np.asarray(points, np.float64))
        forwards = 0.3 * np.clip(points[:, 1], 0, 1) - behind
        x = points[:, 0] * self.widened + np.sin(self.yaw) * forwards
        return self._placed(np.column_stack([x, points[:, 1] + np.sin(self.pitch) * forwards]))

    def _placed(self, points: np.ndarray) -> np.ndarray:
        return self.centre + HEAD * points @ self.roll.T


def outline(person: Person, n: int = 40) -> np.ndarray:
    """Of the face from the front [n, 2]: an ellipse whose lower half narrows to the jaw."""
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    x, y = person.head_width * np.cos(t), np.sin(t)
    lower = np.clip(y, 0, 1)
    narrow = 1 - (1 - person.jaw_width) * 0.35 * lower + 0.22 * person.jaw_width * lower**2 * (np.abs(np.cos(t)) > 0.2)
    return np.column_stack([x * narrow, y])


def draw_hair_behind(canvas: Canvas, head: Head) -> None:
    """What of the hair is behind neck and face."""
    person = head.person
    colour, w = shade(person.hair_colour, 0.8), person.head_width
    if person.hair == "long":
        top = ellipse(0, -0.2, 1.18 * w, 0.95, 180, 360)
        sides = [
            [1.18 * w, -0.3],
            [1.25 * w, 0.6],
            [1.1 * w, 1.35],
            [-1.1 * w, 1.35],
            [-1.25 * w, 0.6],
            [-1.18 * w, -0.3],
        ]
        canvas.fill(head.silhouette(np.concatenate([top, sides]), behind=0.3), colour)
    elif person.hair == "bun":
        canvas.disc(head.silhouette([0, -1.12], behind=0.4)[0], HEAD * 0.36, colour)
    elif person.hair == "curls":
        for point in ellipse(0, 0, 1.1 * w, 1.0, 150, 390, 13):
            canvas.disc(head.silhouette(point, behind=0.15)[0], HEAD * 0.27, colour)


def draw_face(canvas: Canvas, head: Head, mouth_open: float, shut: float) -> np.ndarray:
    """Ears, face, beard, hair, glasses; gives iBUG's 68 points in frame heights.

    Args:
        canvas: to draw on.
        head: whose, where.
        mouth_open: 0 to 1.
        shut: of the eyes, 0 to 1.
    """
    person, skin = head.person, head.person.skin
    for side in (-1, 1):
        if side * head.yaw < 0.45:
            ear = ellipse(side * person.head_width, 0.02, 0.55 * person.ear_size, person.ear_size)
            canvas.fill(head.silhouette(ear, behind=0.15), shade(skin, 0.8))
    edge = outline(person)
    canvas.fill(head.silhouette(edge), skin)
    if person.freckles:
        for x, y in [(-0.3, 0.12), (-0.22, 0.2), (-0.36, 0.2), (0.3, 0.12), (0.22, 0.2), (0.36, 0.2)]:
            canvas.disc(head.surface([x, y])[0], HEAD * 0.035, shade(skin, 0.65))
    mouth_y = 0.5 + 0.12 * (person.nose_length - 0.3)
    if person.beard == "full":
        _draw_full_beard(canvas, head, edge)
    nose = _draw_nose(canvas, head)
    eyes, brows = _draw_eyes(canvas, head, shut)
    mouth = _draw_mouth(canvas, head, mouth_y, mouth_open)
    _draw_beard(canvas, head, mouth_y)
    if person.mole is not None:
        canvas.disc(head.surface(person.mole)[0], HEAD * 0.05, (60, 36, 30))
    _draw_hair(canvas, head)
    _draw_glasses(canvas, head)
    angles = np.arctan2(edge[:, 1], edge[:, 0])
    jaw = edge[[int(np.argmin(np.abs((angles - a + np.pi) % (2 * np.pi) - np.pi))) for a in np.linspace(np.pi, 0, 17)]]
    return np.concatenate([head.silhouette(jaw), brows, nose, eyes, mouth])


def _draw_nose(canvas: Canvas, head: Head) -> np.ndarray:
    person = head.person
    length, width = person.nose_length, person.nose_width
    bridge = head.surface(np.column_stack([np.zeros(4), np.linspace(-0.08, length - 0.05, 4)]), 0.12)
    base = [
        [-width, length],
        [-width / 2, length + 0.03],
        [0, length + 0.04],
        [width / 2, length + 0.03],
        [width, length],
    ]
    under = head.surface(base, 0.08)
    canvas.line(np.concatenate([bridge[1:], under[2:3]]), shade(person.skin, 0.8), HEAD * 0.05)
    canvas.line(under, shade(person.skin, 0.6), HEAD * 0.07)
    return np.concatenate([bridge, under])


def _draw_eyes(canvas: Canvas, head: Head, shut: float) -> tuple[np.ndarray, np.ndarray]:
    person, eyes, brows = head.person, [], []
    size = person.eye_size
    tall = max(0.65 * size * (1 - shut), 0.012)
    for side in (-1, 1):
        x = side * person.eye_distance
        if shut < 0.7:
            canvas.fill(head.surface(ellipse(x, _EYES, size, tall)), (248, 248, 246))
            canvas.disc(head.surface([x, _EYES], 0.02)[0], HEAD * 0.66 * size, person.eye_colour)
            canvas.disc(head.surface([x, _EYES], 0.02)[0], HEAD * 0.28 * size, (14, 12, 12))
        canvas.line(head.surface(ellipse(x, _EYES, size * 1.05, tall, 190, 350, 8)), (40, 28, 26), HEAD * 0.04)
        along = np.linspace(x - side * 1.25 * size, x + side * 1.35 * size, 5)
        arch = np.array([0.02, -0.03, -0.04, -0.03, 0.02]) - person.brow_tilt * np.linspace(-0.5, 1, 5)
        brow = head.surface(np.column_stack([along, _EYES - person.brow_height + arch]))
        canvas.line(brow, shade(person.hair_colour, 0.75), HEAD * person.brow_thickness)
        brows.append(brow[::side])
        eyes.append(head.surface(ellipse(x, _EYES, size, tall, 180, 540, 7)[:6]))
    return np.concatenate(eyes), np.concatenate(brows)


def _draw_mouth(canvas: Canvas, head: Head, y: float, mouth_open: float) -> np.ndarray:
    person = head.person
    a, b = person.mouth_width, person.lip_thickness + 0.11 * mouth_open
    outer = head.surface(ellipse(0, y, a, b, 180, 540, 13)[:12], 0.05)
    inner = head.surface(ellipse(0, y, 0.8 * a, max(0.01, 0.1 * mouth_open), 180, 540, 9)[:8], 0.05)
    canvas.fill(outer, person.lip_colour)
    if mouth_open > 0.1:
        canvas.fill(inner, (70, 20, 24))
    else:
        canvas.line(inner[[0, 4]], shade(person.lip_colour, 0.6), HEAD * 0.03)
    return np.concatenate([outer, inner])


def _draw_full_beard(canvas: Canvas, head: Head, edge: np.ndarray) -> None:
    w = head.person.head_width
    low = edge[edge[:, 1] > 0.15]  # from the right cheek over the chin to the left one
    inner = [[-0.72 * w, 0.2], [-0.4, 0.42], [0, 0.36], [0.4, 0.42], [0.72 * w, 0.2]]
    canvas.fill(np.concatenate([head.silhouette(low), head.surface(inner)]), shade(head.person.hair_colour, 0.9))


def _draw_beard(canvas: Canvas, head: Head, y: float) -> None:
    person, a = head.person, head.person.mouth_width
    colour = shade(person.hair_colour, 0.95)
    if person.beard in ("moustache", "full"):
        arch = [[-1.1 * a, y - 0.04], [-0.5 * a, y - 0.11], [0, y - 0.1], [0.5 * a, y - 0.11], [1.1 * a, y - 0.04]]
        canvas.line(head.surface(arch, 0.07), colour, HEAD * 0.09)
    if person.beard == "goatee":
        canvas.fill(head.surface([[-0.18, 0.68], [0.18, 0.68], [0.11, 0.92], [-0.11, 0.92]], 0.03), colour)


def _draw_hair(canvas: Canvas, head: Head) -> None:
    person = head.person
    colour, w = person.hair_colour, person.head_width
    if person.hair == "bald":
        return
    line = {"short": -0.58, "fringe": -0.34, "side": -0.5, "long": -0.55, "bun": -0.62, "curls": -0.5}[person.hair]
    top = head.silhouette(ellipse(0, -0.1, 1.06 * w, 0.98, 180, 360), behind=0.1)
    if person.hair == "side":
        front = [[0.95 * w, -0.1], [0.5 * w, -0.62], [-0.1 * w, -0.72], [-0.55 * w, -0.45], [-0.95 * w, -0.02]]
    else:
        y = line - 0.05
        front = [[0.95 * w, -0.1], [0.72 * w, line], [0.3 * w, y], [-0.3 * w, y], [-0.72 * w, line], [-0.95 * w, -0.1]]
    # Its ends lie on the outline, the rest on the forehead.
    inner = head.surface(front[1:-1])
    ends = head.silhouette([front[0], front[-1]])
    canvas.fill(np.concatenate([top, ends[:1], inner, ends[1:]]), colour)
    if person.hair == "curls":
        for x in np.linspace(-0.75, 0.75, 6):
            canvas.disc(head.surface([x * w, -0.6])[0], HEAD * 0.17, colour)


def _draw_glasses(canvas: Canvas, head: Head) -> None:
    person = head.person
    if person.glasses == "none":
        return
    r, apart, colour, width = 1.75 * person.eye_size, person.eye_distance, person.glasses_colour, HEAD * 0.06
    for side in (-1, 1):
        if person.glasses == "round":
            rim = ellipse(side * apart, _EYES, r, r)
        else:
            corners = ((-1, -1), (1, -1), (1, 1), (-1, 1))
            rim = np.array([[side * apart + i * r, _EYES + j * 0.8 * r] for i, j in corners])
        canvas.line(head.surface(rim, 0.12), colour, width, closed=True)
    canvas.line(head.surface([[-apart + r, _EYES], [apart - r, _EYES]], 0.14), colour, width)

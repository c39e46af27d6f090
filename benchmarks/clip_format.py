"""How the frames of a training clip are best kept: size, and time to take one training example out of it.

    python benchmarks/clip_format.py

A training example is 16 frames at stride 4 and one reference frame outside of them, at random places. The clip is a
moving crop of a photograph with a camera's noise, 150 frames of 512x512; everything runs on one thread, as a loader's
worker process does. Needs the [test] extra (scikit-image has the photograph).
"""

import argparse
import io
import platform
import time
from collections.abc import Callable, Sequence
from typing import cast

import av
import numpy as np
from PIL import Image
from skimage import data

from stableanimator_jax.data.clip_format import decode_images
from stableanimator_jax.opencv import cv2
from stableanimator_jax.perception.skeleton import draw_skeletons

FRAMES, SIDE, STRIDE, TAKEN = 150, 512, 4, 16


def moving_clip(frames: int, side: int) -> list[np.ndarray]:
    """A photograph seen by a hand-held camera that slowly moves, zooms and turns, with noise of 3 levels."""
    photo = cv2.resize(data.astronaut(), (1024, 1024), interpolation=cv2.INTER_CUBIC)
    random = np.random.default_rng(0)
    clip = []
    for i in range(frames):
        t = i / 30
        zoom = 0.62 + 0.06 * np.sin(0.9 * t)
        matrix = cv2.getRotationMatrix2D((512 + 60 * np.sin(1.3 * t), 470 + 40 * np.cos(0.7 * t)), 3 * np.sin(t), zoom)
        matrix[:, 2] += side / 2 - 512
        frame = cv2.warpAffine(photo, matrix, (side, side), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)
        noisy = frame + random.normal(0, 3, frame.shape)
        clip.append(np.clip(noisy, 0, 255).astype(np.uint8))
    return clip


def examples(count: int) -> list[list[int]]:
    """Indices of `count` training examples, the reference last."""
    random = np.random.default_rng(1)
    drawn = []
    for _ in range(count):
        start = int(random.integers(0, FRAMES - STRIDE * (TAKEN - 1)))
        taken = range(start, start + STRIDE * TAKEN - STRIDE + 1, STRIDE)
        outside = [i for i in range(FRAMES) if i < taken[0] or i > taken[-1]]
        drawn.append([*taken, int(random.choice(outside))])
    return drawn


def encode_jpeg(clip: Sequence[np.ndarray], quality: int) -> list[bytes]:
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    return [cv2.imencode(".jpg", cv2.cvtColor(f, cv2.COLOR_RGB2BGR), options)[1].tobytes() for f in clip]


def encode_jpeg_444(clip: Sequence[np.ndarray], quality: int) -> list[bytes]:
    factor = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor]
    return [cv2.imencode(".jpg", cv2.cvtColor(f, cv2.COLOR_RGB2BGR), options)[1].tobytes() for f in clip]


def encode_png(clip: Sequence[np.ndarray]) -> list[bytes]:
    return [cv2.imencode(".png", cv2.cvtColor(f, cv2.COLOR_RGB2BGR))[1].tobytes() for f in clip]


def decode_images_pillow(encoded: list[bytes], indices: Sequence[int]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(io.BytesIO(encoded[i]))) for i in indices])


def encode_h264(clip: Sequence[np.ndarray], keyframe_interval: int, crf: int) -> bytes:
    file = io.BytesIO()
    options = {"crf": str(crf), "g": str(keyframe_interval), "bf": "0", "sc_threshold": "0"}
    with av.open(file, "w", format="mp4") as container:
        stream = cast(av.VideoStream, container.add_stream("libx264", 30, options=options))
        stream.height, stream.width, stream.pix_fmt = *clip[0].shape[:2], "yuv420p"
        for frame in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode(None))
    return file.getvalue()


def decode_h264(encoded: bytes, indices: Sequence[int]) -> np.ndarray:
    wanted = set(indices)
    found: dict[int, np.ndarray] = {}
    with av.open(io.BytesIO(encoded), "r") as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        tick = (1 / 30) / float(stream.time_base or 1)
        for first, last in ((indices[0], indices[-2]), (indices[-1], indices[-1])):
            container.seek(round(first * tick), stream=stream)
            for frame in container.decode(stream):
                index = round((frame.pts or 0) / tick)
                if index in wanted and index not in found:
                    found[index] = frame.to_ndarray(format="rgb24")
                if index >= last:
                    break
    return np.stack([found[i] for i in indices])


def skeletons() -> tuple[np.ndarray, np.ndarray]:
    """Keypoints [f, 134, 2] as shares of the image: a person's, as the drawing sees them, who sways."""
    random = np.random.default_rng(2)
    body = [(50, 15), (50, 25), (42, 25), (38, 40), (36, 55), (58, 25), (62, 40), (64, 55), (45, 55), (44, 75),
            (44, 93), (55, 55), (56, 75), (56, 93), (48, 13), (52, 13), (46, 14), (54, 14)]  # fmt: skip
    face = np.array([50, 15]) + random.normal(0, 2, (68, 2))
    hands = [np.array(wrist) + random.normal(0, 2.5, (21, 2)) for wrist in ((36, 57), (64, 57))]
    person = np.concatenate([body, random.normal([50, 95], 2, (6, 2)), face, *hands]) / 100
    sway = 0.05 * np.sin(np.arange(FRAMES) / 10)[:, None, None] * np.array([1, 0.2])
    return person + sway, random.uniform(0.6, 1, (FRAMES, 134))


def measure(decode: Callable[[Sequence[int]], np.ndarray], drawn: list[list[int]]) -> float:
    """Median seconds an example."""
    decode(drawn[0])
    seconds = []
    for indices in drawn:
        begin = time.perf_counter()
        decode(indices)
        seconds.append(time.perf_counter() - begin)
    return float(np.median(seconds))


def psnr(clip: Sequence[np.ndarray], decoded: np.ndarray, indices: Sequence[int]) -> float:
    error = np.mean((np.stack([clip[i] for i in indices]).astype(np.float64) - decoded) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=20, help="training examples timed for each kind")
    drawn = examples(parser.parse_args().examples)
    cv2.setNumThreads(1)
    clip = moving_clip(FRAMES, SIDE)
    points, scores = skeletons()
    drawings = [draw_skeletons(p[None], s[None], SIDE, SIDE) for p, s in zip(points, scores, strict=True)]

    print(f"{platform.machine()}, Python {platform.python_version()}, OpenCV {cv2.__version__}, PyAV {av.__version__}")
    print(f"{FRAMES} frames of {SIDE}x{SIDE}; 16 frames at stride 4 and a reference; one thread\n")
    print("| kept as | KiB a frame | ms an example | PSNR |\n|---|---|---|---|")

    def row(name: str, size: int, decode: Callable[[Sequence[int]], np.ndarray], truth: Sequence[np.ndarray]) -> None:
        seconds = measure(decode, drawn)
        quality = psnr(truth, decode(drawn[0]), drawn[0])
        print(f"| {name} | {size / len(truth) / 1024:.1f} | {1000 * seconds:.0f} | {quality:.1f} dB |", flush=True)

    for quality in (90, 95):
        frames = encode_jpeg(clip, quality)
        row(f"JPEG {quality}, 4:2:0", sum(map(len, frames)), lambda i, f=frames: decode_images([f[k] for k in i]), clip)
    frames = encode_jpeg_444(clip, 95)
    row("JPEG 95, 4:4:4", sum(map(len, frames)), lambda i, f=frames: decode_images([f[k] for k in i]), clip)
    row("the same, by Pillow", sum(map(len, frames)), lambda i, f=frames: decode_images_pillow(f, i), clip)
    frames = encode_png(clip)
    row("PNG", sum(map(len, frames)), lambda i, f=frames: decode_images([f[k] for k in i]), clip)
    for interval, crf in ((4, 18), (8, 18), (16, 18), (8, 14)):
        video = encode_h264(clip, interval, crf)
        row(f"H.264, crf {crf}, a keyframe in {interval}", len(video), lambda i, v=video: decode_h264(v, i), clip)

    frames = encode_png(drawings)
    row("skeletons as PNG", sum(map(len, frames)), lambda i, f=frames: decode_images([f[k] for k in i]), drawings)

    def draw(indices: Sequence[int]) -> np.ndarray:
        return np.stack([draw_skeletons(points[i][None], scores[i][None], SIDE, SIDE) for i in indices])

    row("skeletons drawn from keypoints", FRAMES * 134 * 3 * 4, draw, drawings)


if __name__ == "__main__":
    main()

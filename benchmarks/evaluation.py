"""What each metric takes: seconds for videos of 16 frames, networks with random weights, one metric after the other.

    python -m benchmarks.evaluation                     # 2 videos, scaled to 100; --videos 100 for all of them
    python -m benchmarks.evaluation --only SSIM FVD

Preparing the frames (resizes) is in each metric's time; reading files, faces and poses are not measured.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks._device import machine, random_model, versions
from stableanimator_jax.evaluation import pixels
from stableanimator_jax.evaluation.clips import fid_images, i3d_frames, resnet_frames, windows
from stableanimator_jax.evaluation.faults import suspicions
from stableanimator_jax.evaluation.networks.i3d import I3D, I3DConfig
from stableanimator_jax.evaluation.networks.inception import Inception, InceptionConfig
from stableanimator_jax.evaluation.networks.lpips import Backbone, Lpips, LpipsConfig
from stableanimator_jax.evaluation.networks.network import Network, features
from stableanimator_jax.evaluation.networks.resnet_3d import ResNet3D, ResNet3DConfig
from stableanimator_jax.evaluation.protocol import protocol_named
from stableanimator_jax.models.functional import Blueprint
from stableanimator_jax.models.layers import Precision

FRAMES = 16

Metric = Callable[[np.ndarray, np.ndarray], object]


def metrics(batch: int) -> dict[str, Callable[[], Metric]]:
    """By name, what makes the metric: a function of a generated video and its truth."""
    p = protocol_named("standard")

    def on_both(network: Network, prepared: Callable[[np.ndarray], np.ndarray]) -> Metric:
        return lambda a, b: [features(network, prepared(frames), batch=batch) for frames in (a, b)]

    def lpips(net: Backbone) -> Metric:
        network = _network(Lpips, LpipsConfig(net))
        return lambda a, b: features(network, _ranged(a), _ranged(b), batch=batch)

    return {
        "L1": lambda: lambda a, b: pixels.l1(a, b, p),
        "PSNR": lambda: lambda a, b: pixels.psnr(a, b, p),
        "SSIM": lambda: lambda a, b: pixels.ssim(a, b, p),
        "flicker": lambda: lambda a, b: (pixels.flicker(a), pixels.flicker(b), pixels.flicker_error(a, b)),
        "suspicions": lambda: suspicions,
        "LPIPS (AlexNet)": lambda: lpips("alex"),
        "LPIPS (VGG)": lambda: lpips("vgg"),
        "FID": lambda: on_both(_network(Inception, InceptionConfig()), lambda x: fid_images(x, p)),
        "FID-VID": lambda: on_both(_network(ResNet3D, ResNet3DConfig()), lambda x: windows(resnet_frames(x, p), p)),
        "FVD": lambda: on_both(_network(I3D, I3DConfig()), lambda x: windows(i3d_frames(x, p), p)),
    }


def _network(kind: type, config: Any) -> Network:
    return Network(kind.__name__, random_model(Blueprint(kind, config, Precision())), {})


def _ranged(frames: np.ndarray) -> np.ndarray:
    return frames.astype(np.float32) / np.float32(127.5) - np.float32(1)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="evaluation.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--videos", type=int, default=2)
    parser.add_argument("--side", type=int, default=256, help="of the frames, in pixels")
    parser.add_argument("--batch", type=int, default=1, help="images or clips at once; a clip fills one of its own")
    parser.add_argument("--only", nargs="+", choices=list(metrics(1)))
    options = parser.parse_args(argv)
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (2, FRAMES, options.side, options.side, 3), np.uint8)
    print(f"{machine()}; {versions('jax', 'numpy', 'scikit-image', 'pillow', 'opencv-python')}")
    print("| metric | seconds for 100 videos |\n|---|---|")
    for name, make in metrics(options.batch).items():
        if options.only is not None and name not in options.only:
            continue
        metric = make()
        metric(a, b)  # compiles
        start = time.perf_counter()
        for _ in range(options.videos):
            metric(a, b)
        print(f"| {name} | {100 * (time.perf_counter() - start) / options.videos:.1f} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

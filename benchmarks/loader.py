"""How fast the loader feeds training: clips a second a core, and what share of the time goes into decoding.

    python benchmarks/loader.py

Each clip is 16 frames at stride 4 and a reference, with skeletons, masks and an embedding, at the bucket's size. The
data is made for the run: a moving photograph with a camera's noise. The first table is one thread's; the second, whole
batches out of worker processes. Needs the [test] extra (scikit-image has the photograph).
"""

import json
import shlex
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from _device import machine, versions
from clip_format import moving_clip, skeletons

from stableanimator_jax.data.clip_format import ClipRecord, encode_jpeg, encode_png
from stableanimator_jax.data.clip_source import Clip, ClipSource
from stableanimator_jax.data.clips import Clips
from stableanimator_jax.data.encoded import (
    ENCODED_FILE,
    EncodedClips,
    Encoding,
    PixelClips,
    clip_files,
    encoded_folder,
    write_encoding,
)
from stableanimator_jax.data.loader import LoaderConfig, make_loader
from stableanimator_jax.data.prepared import DATASET_FILE, PreparedClips
from stableanimator_jax.data.published_layout import PublishedLayout
from stableanimator_jax.errors import InputError
from stableanimator_jax.limits import AtLeast, Between, check_limits
from stableanimator_jax.opencv import cv2
from stableanimator_jax.perception.skeleton import draw_skeletons
from stableanimator_jax.preparation.staging import StagedClip, write_clip
from stableanimator_jax.scripts.cli import parse_flags, run_script


@dataclass(frozen=True)
class Options:
    """What to measure."""

    layout: Literal["prepared", "published"] = "prepared"
    """How the data is kept: the dataset that `prepare_data.py` makes, or folders of PNG images as published."""
    encoded: bool = False
    """Read latents and embeddings that were computed ahead (here, noise), and no pixels but the skeletons'."""
    side: Annotated[int, Between(64, 2048)] = 512
    """Width and height of the clips."""
    stored_side: int | None = None
    """Width and height of the images in published folders, which are resized when read; by default the clips' own."""
    length: Annotated[int, AtLeast(17)] = 80
    """Frames of each video."""
    videos: Annotated[int, AtLeast(1)] = 4
    """How many different videos there are."""
    clips: Annotated[int, AtLeast(1)] = 16
    """Clips to time."""
    batch_size: Annotated[int, AtLeast(1)] = 2
    """Clips a batch."""
    workers: Annotated[tuple[int, ...], AtLeast(1)] = (1, 2)
    """Numbers of worker processes to time."""

    def __post_init__(self):
        check_limits(self)
        if self.side % 64:
            raise InputError(f"side must be a multiple of 64, got {self.side}")


def write_published(directory: Path, options: Options) -> PixelClips:
    """Folders of images, which differ in their embeddings alone: decoding takes as long whatever the picture."""
    side = options.stored_side or options.side
    mask = np.zeros((side, side), np.uint8)
    mask[side // 8 : side // 4, side // 3 : side // 2] = 255
    pictures = list(made_up(options.length, side))
    for video in range(options.videos):
        folder = directory / f"video_{video}"
        for kind in ("images", "faces", "poses"):
            (folder / kind).mkdir(parents=True)
        for i, (frame, skeleton) in enumerate(pictures):
            for kind, image in (("images", frame[..., ::-1]), ("faces", mask), ("poses", skeleton[..., ::-1])):
                cv2.imwrite(str(folder / kind / f"frame_{i}.png"), image)
        np.save(folder / "embeddings.npy", np.full((options.length, 512), video + 1, np.float32))
    list_file = directory / "list.txt"
    list_file.write_text("".join(f"video_{video}\n" for video in range(options.videos)))
    return PublishedLayout(list_file, (options.side, options.side))


def write_prepared(directory: Path, options: Options) -> PixelClips:
    """A dataset by the preparation's own writer, of clips with the same pictures."""
    from stableanimator_jax.preparation.dataset_writer import write_dataset  # imports TFDS, which workers need not do

    length, bucket = options.length, f"{options.side}x{options.side}"
    frames, poses = zip(*made_up(length, options.side), strict=True)
    jpeg, png = [encode_jpeg(frame) for frame in frames], [encode_png(pose) for pose in poses]
    zeros = partial(np.zeros, dtype=np.float32)
    staged = []
    for video in range(options.videos):
        record = ClipRecord(
            name=f"video_{video}",
            source=f"video_{video}.mp4",
            first_frame=0,
            fps=30,
            frames=jpeg,
            poses=png,
            points=zeros((length, 134, 2)),
            scores=zeros((length, 134)),
            boxes=np.tile(np.array([0.3, 0.1, 0.5, 0.25], np.float32) * options.side, (length, 1)),
            landmarks=zeros((length, 5, 2)),
            valid=np.ones(length, bool),
            embeddings=np.full((length, 512), video + 1, np.float32),
        )
        file = directory / f"clip-{video}.npz"
        write_clip(file, record)
        staged.append(StagedClip(file, record.name, bucket, length))
    write_dataset(directory / bucket, bucket, {"train": staged})
    (directory / DATASET_FILE).write_text(json.dumps({"buckets": {bucket: {"train": options.videos}}}))
    return PreparedClips(directory, "train", bucket)


def write_encoded(clips: PixelClips, options: Options) -> EncodedClips:
    """Noise of the published models' sizes in place of what they make of the frames: reading takes as long."""
    encoding = Encoding("", "", "float32", latent_channels=4, embedding_dim=1024, noise_augmentation=0.02, seed=0)
    folder = encoded_folder(clips)
    folder.mkdir()
    write_encoding(folder / ENCODED_FILE, encoding, {})
    record = encoding.record((options.side, options.side))
    # Six bits of every byte, of which no number is infinite or none.
    noise = np.random.default_rng(0).integers(0, 64, options.length * record.itemsize, np.uint8)
    for name in clip_files(clips):
        np.save(folder / name, noise.view(record))
    return EncodedClips(clips, vae="", image_encoder="")


def made_up(length: int, side: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Frames and their skeletons."""
    points, scores = skeletons()
    for i, frame in enumerate(moving_clip(length, side)):
        at = i % len(points)
        yield frame, draw_skeletons(points[at][None], scores[at][None], side, side)


class Stopwatch:
    """CPU seconds of this thread by name: other work on the machine does not count."""

    def __init__(self):
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, name: str):
        begin = time.thread_time()
        yield
        self.seconds[name] += time.thread_time() - begin


@dataclass(frozen=True)
class TimedClip:
    """A clip whose record and whose frames are timed apart."""

    clip: Clip
    watch: Stopwatch

    @property
    def name(self) -> str:
        return self.clip.name

    @property
    def length(self) -> int:
        return self.clip.length

    @property
    def size(self) -> tuple[int, int]:
        return self.clip.size

    @property
    def has_face(self) -> np.ndarray:
        with self.watch("record"):
            return self.clip.has_face

    def read(self, indices: Sequence[int], *, mirrored: bool = False) -> Clips[np.ndarray]:
        with self.watch("decode"):
            return self.clip.read(indices, mirrored=mirrored)


@dataclass(frozen=True)
class TimedSource:
    source: ClipSource
    watch: Stopwatch

    @property
    def size(self) -> tuple[int, int]:
        return self.source.size

    @property
    def damaged(self) -> Mapping[int, str]:
        return self.source.damaged

    def contents(self) -> dict[str, str]:
        return self.source.contents()

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int, /) -> TimedClip:
        with self.watch("record"):
            return TimedClip(self.source[index], self.watch)


def time_one_thread(source: ClipSource, options: Options) -> None:
    """Print what one thread's time goes into."""
    watch = Stopwatch()
    config = LoaderConfig(batch_size=options.batch_size)
    # The loader's own reading, without its threads: what a worker process does.
    loader = make_loader([TimedSource(source, watch)], config)
    steps = -(-options.clips // options.batch_size)
    loader.batch_at(0)
    watch.seconds.clear()
    begin, wall = time.thread_time(), time.perf_counter()
    for step in range(steps):
        loader.batch_at(step)
    total, wall = time.thread_time() - begin, time.perf_counter() - wall
    clips = steps * options.batch_size
    print("| one thread | |\n|---|---|")
    print(f"| clips a second | {clips / wall:.2f} |")
    print(f"| clips a second of CPU time | {clips / total:.2f} |")
    for name, what in (("decode", "decoding and fitting"), ("record", "finding and opening")):
        print(f"| {what} | {watch.seconds[name] / total:.0%} |")
    print(f"| choosing, stacking | {1 - sum(watch.seconds.values()) / total:.0%} |", flush=True)


def time_workers(source: ClipSource, options: Options) -> None:
    """Print clips a second by number of worker processes, once they run."""
    print("\n| worker processes | clips a second |\n|---|---|")
    for workers in options.workers:
        config = LoaderConfig(batch_size=options.batch_size, workers=workers, batches_ahead=1)
        steps = -(-options.clips // options.batch_size)
        with make_loader([source], config) as loader:
            for _ in islice(loader, 3 * workers):  # what they prepared while the others were starting
                pass
            begin = time.perf_counter()
            for _ in islice(loader, steps):
                pass
            seconds = time.perf_counter() - begin
        print(f"| {workers} | {steps * options.batch_size / seconds:.2f} |", flush=True)


WRITERS: dict[str, Callable[[Path, Options], PixelClips]] = {
    "prepared": write_prepared,
    "published": write_published,
}


def main(argv: Sequence[str]) -> None:
    options = parse_flags(argv, Options(), prog="benchmarks/loader.py", description=__doc__ or "")
    cv2.setNumThreads(1)
    print(f"{machine()}; {versions('grain', 'numpy', 'pillow', 'opencv-python')}")
    print(f"Command: {shlex.join(['python', 'benchmarks/loader.py', *argv])}\n")
    with tempfile.TemporaryDirectory() as directory:
        clips = WRITERS[options.layout](Path(directory), options)
        source = write_encoded(clips, options) if options.encoded else clips
        time_one_thread(source, options)
        time_workers(source, options)


if __name__ == "__main__":
    sys.exit(run_script(main))

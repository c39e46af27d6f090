"""Batches of training clips, by Grain: the same for the same seed, on any number of hosts and worker processes.

A plan says which clips make the global batch of every step. It is a function of the seed and the step alone, so every
host knows all of it, takes its own rows, and can go on from any step. Only then are frames read.

The plan: each bucket's clips are shuffled anew every epoch, one epoch follows on the other without a gap, and the
endless row is cut into batches. So every clip comes exactly once an epoch, whatever the batch size; a batch may
hold the end of one epoch and the beginning of the next, and nothing is dropped or repeated to fill it. Whole batches of
the buckets are then mixed evenly in proportion.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import grain
import numpy as np
from absl import flags

from stableanimator_jax.data.batches import PIXELS_PER_LATENT, AnyBatch, joined
from stableanimator_jax.data.clip_sampling import sample_frames
from stableanimator_jax.data.clip_source import ClipSource
from stableanimator_jax.data.encoded import EncodedClips
from stableanimator_jax.errors import InputError

_SHARED_MEMORY = "/dev/shm"


@dataclass(frozen=True)
class LoaderConfig:
    """How training batches are made."""

    seed: int = 0
    """Decides the order of the clips and the frames taken from each."""
    batch_size: int = 1
    """Clips a step, over all hosts together."""
    frames: int = 16
    """Frames of a clip."""
    stride: int = 4
    """Frames of the video from one to the next."""
    horizontal_flip: bool = False
    """Mirror every second clip, at random. Skeletons are mirrored as images: the colours of the left arm and leg are
    then on the right ones, which the model is never shown when it is used, and the face embedding stays that of the
    face as it was. Faces are not symmetric: leave it off unless there is very little data."""
    proportions: tuple[float, ...] | None = None
    """How often each bucket comes, relative to one another; None: by the number of clips in it."""
    workers: int = 0
    """Processes that read and decode. 0: threads of this process do."""
    batches_ahead: int = 2
    """Batches that each worker, or this process where there are none, holds ready. Takes memory, not time."""

    def __post_init__(self):
        least = {"seed": 0, "batch_size": 1, "frames": 1, "stride": 1, "workers": 0, "batches_ahead": 1}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise InputError(f"loader: {name} must be at least {low}, got {getattr(self, name)}")
        if self.seed >= 2**32:
            raise InputError(f"loader: seed must be below 2**32, got {self.seed}")
        if self.proportions is not None and not all(0 < p < float("inf") for p in self.proportions):
            raise InputError(f"loader: proportions must be numbers above 0, got {self.proportions}")


class Row(NamedTuple):
    """One row of the plan."""

    bucket: int
    clip: int
    epoch: int
    """Of the bucket, from 0."""


def make_plan(sizes: Sequence[int], config: LoaderConfig) -> grain.MapDataset[list[Row]]:
    """Which clips make the batches of all hosts: element `step` is a list of `config.batch_size` rows, of one bucket.

    Args:
        sizes: number of clips in each bucket.
        config: seed, batch size and proportions count here.
    """
    batches = []
    for bucket, size in enumerate(sizes):
        clips = grain.MapDataset.range(size).seed((config.seed + bucket) % 2**32).shuffle().repeat()
        rows = clips.map_with_index(_RowOf(bucket, size))
        # Of endless rows nothing is dropped; rounding the remainder up overflows.
        batches.append(rows.batch(config.batch_size, drop_remainder=True, batch_fn=list))
    return grain.MapDataset.mix(batches, config.proportions or sizes)


@dataclass(frozen=True)
class _RowOf:
    bucket: int
    size: int

    def __call__(self, position: int, clip: int) -> Row:
        return Row(self.bucket, int(clip), position // self.size)


@dataclass(frozen=True)
class _ReadRows:
    """Reads one host's rows of a planned batch. Goes to the worker processes."""

    buckets: tuple[ClipSource, ...]
    config: LoaderConfig
    first: int
    count: int

    def __call__(self, rows: list[Row]) -> AnyBatch:
        return joined([self._read(row) for row in rows[self.first : self.first + self.count]])

    def _read(self, row: Row) -> AnyBatch:
        clip = self.buckets[row.bucket][row.clip]
        # Of the clip and the epoch, not of the row's place: the same on any number of hosts, and after a restart.
        rng = np.random.default_rng([self.config.seed, row.epoch, row.bucket, row.clip])
        chosen = sample_frames(
            clip.has_face, frames=self.config.frames, stride=self.config.stride, rng=rng, name=clip.name
        )
        mirrored = self.config.horizontal_flip and rng.random() < 0.5
        return clip.read([*chosen.indices.tolist(), chosen.reference]).batch(clip.name, mirrored=mirrored)


class Loader(Iterator[AnyBatch]):
    """Endless batches of one host. Made by `make_loader`; close it, because it may hold processes."""

    def __init__(self, plan: grain.MapDataset[list[Row]], read: _ReadRows):
        self._plan, self._read = plan, read
        self._step = 0
        self._batches: grain.DatasetIterator[AnyBatch] | None = None

    @property
    def step(self) -> int:
        """Number of batches that came out so far, those before a restored state included."""
        return self._step

    def __next__(self) -> AnyBatch:
        if self._batches is None:
            self._batches = iter(self._open())
        batch = next(self._batches)
        self._step += 1
        if self._read.config.workers:
            # Shared memory is freed here and now. Kept until the program ends, it would be freed too late, with a
            # warning about a leak.
            *arrays, names = batch
            batch = type(batch)(*(np.array(a) for a in arrays), names=names)
        return batch

    def batch_at(self, step: int) -> AnyBatch:
        """The batch of any step, read now, here; where the loader is does not matter, and does not change."""
        batch = self._plan.map(self._read)[step]
        assert batch is not None  # nothing is filtered
        return batch

    def state(self) -> bytes:
        """Where it is: JSON, the same on every host. Restored, the next batch is the one that would have come."""
        return json.dumps({"step": self._step} | self._identity()).encode()

    def restore(self, state: bytes) -> None:
        """Go on from a `state()`, also one from another number of hosts or workers.

        Raises:
            InputError: it is of other data or of another seed, batch size or proportions, so that its step means
                nothing here; or it is no such state.
        """
        try:
            saved = json.loads(state)
            step, identity = int(saved["step"]), self._identity()
            changed = [f"{k} was {saved.get(k)} and is {v}" for k, v in identity.items() if saved.get(k) != v]
        except (ValueError, KeyError, AttributeError, TypeError) as e:
            raise InputError(f"the saved state of the training data cannot be read: {e}") from e
        if changed:
            raise InputError(f"cannot go on within the epoch, the training data changed: {'; '.join(changed)}")
        self.seek(step)

    def seek(self, step: int) -> None:
        """Make the batch of `step`, counted from 0, the next one."""
        if step < 0:
            raise InputError(f"the training data begins at step 0, not at {step}")
        self._stop()
        self._step = step

    def close(self) -> None:
        """End worker processes and threads. It can be used again, from where it was."""
        self._stop()

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _open(self) -> grain.IterDataset[AnyBatch]:
        config = self._read.config
        # Reading begins where the plan is cut: steps before it cost nothing.
        batches = self._plan[self._step :].map(self._read)
        if config.workers == 0:
            ahead = config.batches_ahead
            return batches.to_iter_dataset(grain.ReadOptions(num_threads=ahead, prefetch_buffer_size=ahead))
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain's workers ask for flags that only absl's own app.run parses
        read = batches.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
        if not self._shared_memory_suffices():
            read = grain.experimental.WithOptionsIterDataset(
                read, grain.experimental.DatasetOptions(min_shm_size=2**62)
            )
        return read.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=config.workers, per_worker_buffer_size=config.batches_ahead)
        )

    def _stop(self) -> None:
        if self._batches is not None:
            self._batches.close()
            self._batches = None

    def _identity(self) -> dict[str, Any]:
        """What the meaning of a step rests on."""
        config = self._read.config
        return {
            "seed": config.seed,
            "batch_size": config.batch_size,
            "clips": [len(bucket) for bucket in self._read.buckets],
            "proportions": None if config.proportions is None else list(config.proportions),
        }

    def _shared_memory_suffices(self) -> bool:
        """Whether batches may come from workers by shared memory: a container often has 64 MB of it, and a process
        that needs more is killed. Else they come by pipes, which costs a copy."""
        config = self._read.config
        pixels = max(int(np.prod(bucket[0].size)) for bucket in self._read.buckets)
        batch = self._read.count * (2 * config.frames + 1) * pixels * 3
        try:
            free = shutil.disk_usage(_SHARED_MEMORY).free
        except OSError:
            return True  # the system keeps it elsewhere
        return free > 2 * batch * config.workers * (config.batches_ahead + 2)


def make_loader(buckets: Sequence[ClipSource], config: LoaderConfig, *, host: int = 0, hosts: int = 1) -> Loader:
    """Batches of this host from all buckets.

    At every step all hosts have rows of the same global batch, one after the other in the order of their numbers:
    the same bucket, no clip twice but at the turn of an epoch. With workers, the script that calls this needs its
    `if __name__ == "__main__":`, because each worker imports it.

    Args:
        buckets: data sets, each of clips of one size; the same on every host.
        config: see there. The batch must divide over the hosts.
        host: number of this one, from 0.
        hosts: how many there are.

    Raises:
        InputError: no clips in a bucket, sizes that are no multiple of 8 pixels, a batch that does not divide, not
            one proportion a bucket, or encoded clips that are to be mirrored. When iterated: a clip is too short or
            cannot be read; it is named.
    """
    if not 0 <= host < hosts:
        raise ValueError(f"host {host} of {hosts}")
    if not buckets:
        raise InputError("there is no training data: give at least one bucket")
    if config.horizontal_flip and any(isinstance(bucket, EncodedClips) for bucket in buckets):
        raise InputError("encoded clips cannot be mirrored: turn the horizontal flip off, or train on pixels")
    for number, bucket in enumerate(buckets):
        if len(bucket) == 0:
            raise InputError(f"bucket {number} of the training data has no clips")
        width, height = bucket[0].size
        if width % PIXELS_PER_LATENT or height % PIXELS_PER_LATENT:
            raise InputError(
                f"clips of {width}x{height} pixels cannot be encoded; make both a multiple of {PIXELS_PER_LATENT}"
            )
    if config.batch_size % hosts:
        raise InputError(
            f"a batch of {config.batch_size} clips cannot be shared out among {hosts} hosts; make it a multiple"
        )
    if config.proportions is not None and len(config.proportions) != len(buckets):
        raise InputError(f"there are {len(buckets)} buckets, but {len(config.proportions)} proportions for them")
    count = config.batch_size // hosts
    plan = make_plan([len(bucket) for bucket in buckets], config)
    return Loader(plan, _ReadRows(tuple(buckets), config, host * count, count))

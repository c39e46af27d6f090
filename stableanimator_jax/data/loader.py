"""Batches of training clips, by Grain: the same for the same seed, on any number of hosts and worker processes.

A plan says which clips make the global batch of every step. It is a function of the seed and the step alone, so every
host knows all of it, takes its own rows, and can go on from any step. Only then are frames read.

The plan: each bucket's clips are shuffled anew every epoch, one epoch follows on the other without a gap, and the
endless row is cut into batches. So every clip comes exactly once an epoch, whatever the batch size; a batch may
hold the end of one epoch and the beginning of the next, and nothing is dropped or repeated to fill it. Whole batches of
the buckets are then mixed evenly in proportion.

A clip that cannot be read is left out: another one of its bucket is read in its place, which one being decided by the
same numbers as everything else. So the plan stays as it is, and so does the meaning of a step.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, NamedTuple

import grain
import jax
import numpy as np
from absl import flags

from stableanimator_jax.data.clip_sampling import sample_frames
from stableanimator_jax.data.clip_source import ClipSource
from stableanimator_jax.data.clips import PIXELS_PER_LATENT, Clips, joined
from stableanimator_jax.data.encoded import EncodedClips
from stableanimator_jax.errors import InputError
from stableanimator_jax.limits import Above, AtLeast, Between, check_limits

_SHARED_MEMORY = "/dev/shm"


@dataclass(frozen=True)
class LoaderConfig:
    """How training batches are made."""

    seed: Annotated[int, Between(0, 2**32 - 1)] = 0
    """Decides the order of the clips and the frames taken from each."""
    batch_size: Annotated[int, AtLeast(1)] = 1
    """Clips a step, over all hosts together."""
    frames: Annotated[int, AtLeast(1)] = 16
    """Frames of a clip."""
    stride: Annotated[int, AtLeast(1)] = 4
    """Frames of the video from one to the next."""
    horizontal_flip: bool = False
    """Mirror every second clip, at random. Skeletons are mirrored as images: the colours of the left arm and leg are
    then on the right ones, which the model is never shown when it is used, and the face embedding stays that of the
    face as it was. Faces are not symmetric: leave it off unless there is very little data."""
    proportions: Annotated[tuple[float, ...] | None, Above(0)] = None
    """How often each bucket comes, relative to one another; None: by the number of clips in it."""
    workers: Annotated[int, AtLeast(0)] = 0
    """Processes that read and decode. 0: threads of this process do."""
    batches_ahead: Annotated[int, AtLeast(1)] = 2
    """Batches that each worker, or this process where there are none, holds ready. Takes memory, not time."""
    damaged: Annotated[float, Between(0, 1)] = 0.01
    """Share of the clips that may turn out to be damaged: each is left out, and another one taken in its place. One
    may be in any case, unless this is 0."""

    def __post_init__(self):
        check_limits(self, "data")


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


LeftOut = dict[tuple[int, int], str]
"""What is wrong with each clip that was left out, by the numbers of its bucket and of the clip in it."""


class _Read(NamedTuple):
    batch: Clips[np.ndarray]
    left_out: tuple[tuple[int, int, str], ...]


@dataclass(frozen=True)
class _ReadRows:
    """Reads one host's rows of a planned batch. Goes to the worker processes."""

    buckets: tuple[ClipSource, ...]
    config: LoaderConfig
    first: int
    count: int

    def __call__(self, rows: list[Row]) -> _Read:
        left_out: LeftOut = {}
        batch = joined([self._read(row, left_out) for row in rows[self.first : self.first + self.count]])
        return _Read(batch, tuple((*clip, why) for clip, why in left_out.items()))

    def too_many(self, left_out: Mapping[tuple[int, int], str]) -> str | None:
        """What to say if more clips are left out than may be."""
        total = sum(map(len, self.buckets))
        most = max(1, int(total * self.config.damaged)) if self.config.damaged else 0
        if len(left_out) <= most:
            return None
        last = list(left_out.values())[-1]
        return (
            f"{len(left_out)} of {total} clips cannot be read, and --data.damaged {self.config.damaged:g} lets {most} "
            f"of them be left out: {last}"
        )

    def _read(self, row: Row, left_out: LeftOut) -> Clips[np.ndarray]:
        for clip in self._choices(row):
            try:
                return self._sample(row, clip)
            except InputError as e:
                left_out[row.bucket, clip] = str(e)
                if problem := self.too_many(left_out):
                    raise InputError(problem) from e
        last = list(left_out.values())[-1]
        raise InputError(f"no clip of bucket {row.bucket} of the training data can be read: {last}")

    def _choices(self, row: Row) -> Iterator[int]:
        """The clip of the row, then those that may take its place."""
        yield row.clip
        rng = np.random.default_rng([self.config.seed, row.epoch, row.bucket, row.clip, 1])
        yield from (clip for clip in rng.permutation(len(self.buckets[row.bucket])).tolist() if clip != row.clip)

    def _sample(self, row: Row, number: int) -> Clips[np.ndarray]:
        """A sample of a clip, in the place of the row's where it is another."""
        clip = self.buckets[row.bucket][number]
        # Of the clip and the epoch, not of the row's place: the same on any number of hosts, and after a restart.
        replaced = [row.clip] if number != row.clip else []  # in whose place it shows other frames than in its own
        rng = np.random.default_rng([self.config.seed, row.epoch, row.bucket, number, *replaced])
        chosen = sample_frames(
            clip.has_face, frames=self.config.frames, stride=self.config.stride, rng=rng, name=clip.name
        )
        mirrored = self.config.horizontal_flip and rng.random() < 0.5
        batch = clip.read([*chosen.indices.tolist(), chosen.reference], mirrored=mirrored)
        for array in jax.tree.leaves(batch):
            if isinstance(array, np.ndarray) and array.dtype.kind == "f" and not np.isfinite(array).all():
                raise InputError(f"clip {clip.name} has numbers that are not finite")
        return batch


class Loader(Iterator[Clips[np.ndarray]]):
    """Endless batches of one host. Made by `make_loader`; close it, because it may hold processes."""

    def __init__(self, plan: grain.MapDataset[list[Row]], read: _ReadRows):
        self._plan, self._read = plan, read
        self._step = 0
        self._batches: grain.DatasetIterator[_Read] | None = None
        self._here = read.config.workers == 0
        self.left_out: LeftOut = {
            (b, c): why for b, bucket in enumerate(read.buckets) for c, why in bucket.damaged.items()
        }
        """The clips found damaged so far, of those that this host reads."""
        self.lost_worker: str | None = None
        """What to say of worker processes if one of them has died: from then on this process reads by itself."""

    @property
    def step(self) -> int:
        """Number of batches that came out so far, those before a restored state included."""
        return self._step

    def __next__(self) -> Clips[np.ndarray]:
        if self._batches is None:
            self._batches = iter(self._open())
        try:
            batch = self._noted(next(self._batches))
        except RuntimeError as e:  # what Grain raises for a process that died
            if self._here or "terminated unexpectedly" not in str(e):
                raise
            self.lost_worker = (
                "a process that reads training data was killed, often because memory was short: try fewer "
                f"--data.workers or --data.batches-ahead ({' '.join(str(e).split())[:80]})"
            )
            self._stop()
            self._here = True
            return next(self)
        self._step += 1
        if not self._here:
            # Shared memory is freed here and now. Kept until the program ends, it would be freed too late, with a
            # warning about a leak.
            batch = jax.tree.map(lambda leaf: np.array(leaf) if isinstance(leaf, np.ndarray) else leaf, batch)
        return batch

    def batch_at(self, step: int) -> Clips[np.ndarray]:
        """The batch of any step, read now, here; where the loader is does not matter, and does not change."""
        read = self._plan.map(self._read)[step]
        assert read is not None  # nothing is filtered
        return self._noted(read)

    def too_many_left_out(self, left_out: Mapping[tuple[int, int], str]) -> str | None:
        """What to say if these are more than the settings allow."""
        return self._read.too_many(left_out)

    @cached_property
    def contents(self) -> list[dict[str, str]]:
        """What every bucket's clips are made of, see `ClipSource.contents`."""
        return [bucket.contents() for bucket in self._read.buckets]

    def state(self) -> bytes:
        """Where it is: JSON, the same on every host. Restored, the next batch is the one that would have come."""
        return json.dumps({"step": self._step} | self._identity).encode()

    def restore(self, state: bytes) -> None:
        """Go on from a `state()`, also one from another number of hosts or workers.

        Raises:
            InputError: it is of other data or of another seed, batch size or proportions, so that its step means
                nothing here; or it is no such state.
        """
        step, changed = self.compare(state)
        if changed:
            told = "; ".join(f"{name} was {old} and is {new}" for name, (old, new) in changed.items())
            raise InputError(f"cannot go on within the epoch, the training data changed: {told}")
        self.seek(step)

    def compare(self, state: bytes) -> tuple[int, dict[str, tuple[Any, Any]]]:
        """The step of a state, and what the data had there and have here, where that is not the same.

        `content` among the names is a hash: it alone differs where as many clips are others.

        Raises:
            InputError: it is no such state.
        """
        try:
            saved = json.loads(state)
            old, new = ({**part, "step": int(saved["step"])} for part in (saved, self._identity))
            new = {name: value for name, value in new.items() if name in old or name != "content"}  # it came later
            return old["step"], {name: (old.get(name), new[name]) for name in new if old.get(name) != new[name]}
        except (ValueError, KeyError, AttributeError, TypeError) as e:
            raise InputError(f"the saved state of the training data cannot be read: {e}") from e

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

    def _noted(self, read: _Read) -> Clips[np.ndarray]:
        self.left_out = self.left_out | {(bucket, clip): why for bucket, clip, why in read.left_out}
        return read.batch

    def _open(self) -> grain.IterDataset[_Read]:
        config = self._read.config
        # Reading begins where the plan is cut: steps before it cost nothing.
        batches = self._plan[self._step :].map(self._read)
        if self._here:
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

    @cached_property
    def _identity(self) -> dict[str, Any]:
        """What the meaning of a step rests on."""
        config = self._read.config
        return {
            "seed": config.seed,
            "batch_size": config.batch_size,
            "clips": [len(bucket) for bucket in self._read.buckets],
            "content": content_hash(self.contents),
            "proportions": None if config.proportions is None else list(config.proportions),
        }

    def _shared_memory_suffices(self) -> bool:
        """Whether batches may come from workers by shared memory: a container often has 64 MB of it, and a process
        that needs more is killed. Else they come by pipes, which costs a copy."""
        config = self._read.config
        pixels = max(int(np.prod(bucket.size)) for bucket in self._read.buckets)
        batch = self._read.count * (2 * config.frames + 1) * pixels * 3
        try:
            free = shutil.disk_usage(_SHARED_MEMORY).free
        except OSError:
            return True  # the system keeps it elsewhere
        return free > 2 * batch * config.workers * (config.batches_ahead + 2)


def content_hash(contents: Sequence[Mapping[str, str]]) -> str:
    """Of `Loader.contents`: another one for other clips or another order of them."""
    return hashlib.sha256(json.dumps([list(bucket.items()) for bucket in contents]).encode()).hexdigest()[:16]


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
            one proportion a bucket, encoded clips that are to be mirrored, or more clips known to be damaged than may
            be. When iterated: more clips than that cannot be read or are too short; one is named.
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
        width, height = bucket.size
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
    loader = Loader(plan, _ReadRows(tuple(buckets), config, host * count, count))
    if problem := loader.too_many_left_out(loader.left_out):
        raise InputError(problem)
    return loader

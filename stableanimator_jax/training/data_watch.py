"""What becomes of a run's data: files that changed since it was begun, clips that are damaged, readers that die."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from stableanimator_jax.commands import called
from stableanimator_jax.config import read_json
from stableanimator_jax.data.loader import Loader, content_hash
from stableanimator_jax.errors import InputError
from stableanimator_jax.files import replacing
from stableanimator_jax.hosts import from_each, say

CONTENTS = "data.json"
DAMAGED = "damaged_clips.json"
_NAMES_SHOWN = 3


def go_on(loader: Loader, position: bytes, output: Path, *, changed: bool) -> None:
    """Bring the loader to `position`, its state in the checkpoint of the run whose directory is `output`.

    With `changed` go on with other data too, at the same step, and tell what is other.

    Raises:
        InputError: the data is not what it was, and `changed` is not set.
    """
    step, differences = loader.compare(position)
    if not differences:
        loader.seek(step)
        return
    before = _contents_before(output)
    told = [f"{name} {old} -> {new}" for name, (old, new) in differences.items() if name != "content"]
    if "content" in differences:
        known = before is not None and content_hash(before) == differences["content"][0]
        told.append(_in_words(before, loader.contents) if known and before is not None else "its clips are others")
    if not changed:
        raise InputError(
            f"the training data is not what this run had: {'; '.join(told)}. Bring it back, or go on with it as it is "
            "by --data.changed"
        )
    say(
        f"note: the training data is not what this run had: {'; '.join(told)}. From step {step} on clips come in the "
        "order that these settings and clips give, so that in this epoch some may come twice and others not at all"
    )
    loader.seek(step)
    if jax.process_index() == 0:
        (output / DAMAGED).unlink(missing_ok=True)  # the numbers in it mean other clips


def keep_contents(output: Path, loader: Loader) -> None:
    """Leave a list of what the data is made of, for `go_on`. Raises `InputError` where it cannot be written."""
    if jax.process_index() == 0:
        with replacing(output / CONTENTS) as file:
            file.write_text(json.dumps(loader.contents, indent=1) + "\n", encoding="utf-8")


def _contents_before(output: Path) -> list[dict[str, str]] | None:
    try:
        before = read_json(output / CONTENTS)
    except InputError:
        return None
    return before if isinstance(before, list) and all(isinstance(bucket, dict) for bucket in before) else None


def _in_words(before: list[dict[str, str]], now: list[dict[str, str]]) -> str:
    old, new = ({(b, name): c for b, bucket in enumerate(part) for name, c in bucket.items()} for part in (before, now))
    told = {
        "gone": [name for name in old if name not in new],
        "new": [name for name in new if name not in old],
        "not as before": [name for name in old if name in new and old[name] != new[name]],
    }
    words = []
    for what, names in told.items():
        if names:
            more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
            words.append(f"{what}: {', '.join(name for _, name in names[:_NAMES_SHOWN])}{more}")
    if [name for name in old if name in new] != [name for name in new if name in old]:
        words.append("in another order")
    return ", ".join(words)


class DataWatch:
    """Clips that are left out and readers that have died, on all processes of the run together.

    Args:
        output: the run's directory. `damaged_clips.json` in it lists the clips, also those of before it was resumed.
        loaders: of this process, each with what it is for; several may be for the same.
        resumed: whether the run goes on.
    """

    def __init__(self, output: Path, loaders: Sequence[tuple[str, Loader]], *, resumed: bool):
        self._file, self._loaders = output / DAMAGED, loaders
        self._known: dict[tuple[str, int, int], str] = {}
        self._before: list[list[Any]] = []  # of process 0 alone, which tells the others when they first look
        if resumed and jax.process_index() == 0 and self._file.exists():
            try:
                self._before = [[e["split"], e["bucket"], e["clip"], e["why"]] for e in read_json(self._file)]
            except (TypeError, KeyError) as e:
                raise InputError(f"{self._file} is not what {called('train')} leaves: remove it") from e

    def __len__(self) -> int:
        """How many clips are left out."""
        return len(self._known)

    def look(self) -> str | None:
        """Tell of clips that were left out since, and return why the run cannot go on, where it cannot.

        The same on every process, all of which must call it after the same step.
        """
        mine = [
            [split, *clip, why]
            for split, loader in self._loaders
            for clip, why in loader.left_out.items()
            if (split, *clip) not in self._known
        ] + self._before
        self._before = []
        lost = [loader.lost_worker for _, loader in self._loaders if loader.lost_worker is not None]
        everyone = [json.loads(text) for text in from_each(json.dumps({"left_out": mine, "lost": lost}))]
        new = {tuple(clip): why for found in everyone for *clip, why in found["left_out"]}
        self._known |= new
        if new and jax.process_index() == 0:
            self._tell(list(new.values()))
        for found in everyone:
            if found["lost"]:
                return found["lost"][0]
        for split, loader in self._loaders:
            left_out = {(bucket, clip): why for (s, bucket, clip), why in self._known.items() if s == split}
            if problem := loader.too_many_left_out(left_out):
                return problem
        return None

    def _tell(self, new: list[str]) -> None:
        for why in new:
            tqdm.write(f"warning: a damaged clip is left out: {why}", file=sys.stderr)
        listed = [{"split": s, "bucket": b, "clip": c, "why": why} for (s, b, c), why in self._known.items()]
        with replacing(self._file) as file:
            file.write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")

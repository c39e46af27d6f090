"""Numbered images in a directory: which of its files they are, in the order of their numbers."""

import re
from collections import defaultdict
from collections.abc import Collection
from itertools import pairwise
from pathlib import Path

from stableanimator_jax.errors import InputError, as_input_error

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def numbered_frames(
    directory: Path, what: str, limit: int | None = None, suffixes: Collection[str] = IMAGE_SUFFIXES
) -> dict[int, Path]:
    """The frames of a directory by their numbers, ascending: `numbered_files`, of which there is one and none missing.

    `what` names the directory in errors, as in "poses". With `limit` no more are given, and the rest does not matter.

    Raises:
        InputError: as `numbered_files`; there is no such image, or a number is missing.
    """
    files = numbered_files(directory, what, suffixes)
    if not files:
        raise InputError(
            f"{what} {directory}: there is no frame_0.png, frame_1.png, … in this directory, nor other numbered images"
        )
    numbers = list(files)[:limit]
    gaps = [(a, b) for a, b in pairwise(numbers) if b > a + 1]
    if gaps:
        names = [_between(files[a], a, b) for a, b in gaps[:3]]
        more = f" and {len(gaps) - 3} more gaps" if len(gaps) > 3 else ""
        raise InputError(f"{what} {directory}: missing {', '.join(names)}{more}")
    return {n: files[n] for n in numbers}


def numbered_images(directory: Path, what: str) -> dict[int, Path]:
    """The sequence of images (PNG, JPEG, WebP) that a directory holds: its `numbered_files` of these suffixes."""
    return numbered_files(directory, what, IMAGE_SUFFIXES)


def numbered_files(directory: Path, what: str, suffixes: Collection[str]) -> dict[int, Path]:
    """The sequence of files that a directory holds, by their numbers, ascending; {} where it holds none.

    `frame_N.png` where there are such files, whatever else there is. Otherwise files of these suffixes whose names
    differ in one number: `000000.png`, `name_00001_.png`, `clip2-7.jpg`. Numbers may start anywhere, and have zeros
    before them or not.

    Raises:
        InputError: the directory cannot be read, holds several such sequences, or has a number twice.
    """
    with as_input_error(f"cannot read {what} {directory}"):
        paths = sorted(directory.iterdir())
    alike: dict[tuple[str, ...], list[Path]] = defaultdict(list)  # by the words between their numbers
    for path in paths:
        words = re.split(r"\d+", path.stem.lower())
        if len(words) > 1 and path.suffix.lower() in suffixes and not path.name.startswith("."):
            alike[tuple(words)].append(path)
    if ours := alike.get(("frame_", "")):
        alike = {("frame_", ""): ours}
    sequences = [sequence for files in alike.values() for sequence in _sequences(files)]
    if len(sequences) > 1:  # a cover or the like beside the frames
        sequences = [files for files in sequences if len(files) > 1] or sequences
    if len(sequences) > 1:
        first, second = (files[min(files)][0].name for files in sequences[:2])
        raise InputError(
            f"{what} {directory}: there are {len(sequences)} numbered sequences of files in this directory, as of "
            f"{first} and {second}; leave one there"
        )
    files = sequences[0] if sequences else {}
    for same in files.values():
        if len(same) > 1:
            raise InputError(f"{what} {directory}: {same[0].name} and {same[1].name} are the same frame")
    return {number: files[number][0] for number in sorted(files)}


def _sequences(files: list[Path]) -> list[dict[int, list[Path]]]:
    """Files whose names have the same words, by the last number in which they differ; apart by the other numbers."""
    numbers = [[int(digits) for digits in re.findall(r"\d+", path.stem)] for path in files]
    differing = [i for i, column in enumerate(zip(*numbers, strict=True)) if len(set(column)) > 1]
    place = differing[-1] if differing else len(numbers[0]) - 1
    sequences: dict[tuple[int, ...], dict[int, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path, row in zip(files, numbers, strict=True):
        sequences[tuple(row[:place] + row[place + 1 :])][row[place]].append(path)
    return list(sequences.values())


def _between(path: Path, number: int, end: int) -> str:
    """The names of the files that would lie between that of `number` and that of `end`."""

    def name(n: int) -> str:
        runs = list(re.finditer(r"\d+", path.stem))
        run = next(run for run in reversed(runs) if int(run[0]) == number)
        return f"{path.stem[: run.start()]}{n:0{len(run[0])}}{path.stem[run.end() :]}{path.suffix}"

    return name(number + 1) if end == number + 2 else f"{name(number + 1)} to {name(end - 1)}"

"""A run of `evaluate.py`: every video measured and kept, then all of them put together."""

import contextlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from stableanimator_jax.commands import called
from stableanimator_jax.errors import InputError, printable
from stableanimator_jax.evaluation.faults import suspicions
from stableanimator_jax.evaluation.measures import VideoPair, measure
from stableanimator_jax.evaluation.protocol import describe
from stableanimator_jax.progress import ProgressBars
from stableanimator_jax.scripts.evaluate.pairs import find_pairs
from stableanimator_jax.scripts.evaluate.pictures import strip
from stableanimator_jax.scripts.evaluate.reading import Files, ReferenceFrame, decoder, read_pair, state_of
from stableanimator_jax.scripts.evaluate.report import write_results
from stableanimator_jax.scripts.evaluate.settings import EvaluateConfig, MergeConfig, place_in_shards
from stableanimator_jax.scripts.evaluate.tables import Report
from stableanimator_jax.scripts.evaluate.tools import Opened, open_tools
from stableanimator_jax.scripts.evaluate.work import Evaluation, Found, Work


class Source(Protocol):
    """Where the videos come from."""

    @property
    def names(self) -> list[str]:
        """No name is there twice."""
        ...

    failed: dict[str, str]
    """Names that cannot be measured, and why."""
    notes: list[str]

    def state(self, name: str) -> dict[str, Any]:
        """By what it shows that a video is another than before."""
        ...

    def load(self, name: str) -> VideoPair:
        """Everything of one video. Raises `InputError`."""
        ...


@dataclass
class FileSource:
    """Videos that are there."""

    videos: dict[str, Files]
    failed: dict[str, str]
    notes: list[str]
    reference_frame: ReferenceFrame

    @property
    def names(self) -> list[str]:
        return list(self.videos)

    def state(self, name: str) -> dict[str, Any]:
        return state_of(self.videos[name])

    def load(self, name: str) -> VideoPair:
        return read_pair(self.videos[name], self.reference_frame)


def run(config: EvaluateConfig, command: list[str]) -> None:
    """Measure what has not been measured yet, and write the result.

    Says on stdout what is done, with a progress bar on stderr.

    Args:
        config: the run's, its paths absolute.
        command: for the record.

    Raises:
        InputError: something that was given cannot be used; or, after the result of the others was written, some videos
            could not be measured.
    """
    _check_output(config)
    source: Source
    conditioning = None
    sampled = None
    if config.checkpoint is None:
        paired = find_pairs(config)
        source = FileSource({f.name: f for f in paired.videos}, paired.failed, paired.notes, config.reference_frame)
    else:
        from stableanimator_jax.scripts.evaluate.sampled import open_samples  # much more than measuring needs

        source, sampled, conditioning = open_samples(config)
    for note in source.notes:
        print(f"warning: {note}", file=sys.stderr)
    for name, reason in source.failed.items():
        print(f"warning: {printable(name)}: {reason}", file=sys.stderr)

    from stableanimator_jax.runtime import choose_device  # imports JAX, slow to start

    device = choose_device(config.device)
    opened = open_tools(config.weights, config.how, config.batch, conditioning)
    print(f"protocol: {config.protocol}; device: {device}")
    for line in opened.missing:
        print(f"not measured: {line}")
    for line in opened.warnings:
        print(f"warning: {line}", file=sys.stderr)

    settings = {"reference frame": config.reference_frame}
    evaluation = Evaluation(describe(config.how), dict(opened.tools.weights), sampled, settings)
    which, shards = place_in_shards(config.shard)
    work = Work(config.output / "work")
    with work.begun(evaluation, config.shard, resume=config.resume), contextlib.ExitStack() as programs:
        if config.checkpoint is not None:
            from stableanimator_jax.sampling.programs import quick_starts

            programs.enter_context(quick_starts())
        everything = sorted({*source.names, *source.failed})
        notes = [*opened.warnings, *opened.missing, *source.notes]
        work.expect(everything, notes)
        mine = everything[which::shards]
        _measure_all(work, source, mine, opened, config)
        if not mine:
            print(f"shard {config.shard} has none of the {len(everything)} videos: there is nothing to do")
            return
        found, numbers = Found(), {name: number for number, name in enumerate(everything)}
        for name in mine:
            work.add_to(found, name, numbers[name])
        found.notes = notes
        report = Report(config.protocol, evaluation, found, decoder(), command, config.shard)
        _finish(report, config.output, config.worst)


def _measure_all(work: Work, source: Source, mine: list[str], opened: Opened, config: EvaluateConfig) -> None:
    there = [name for name in mine if name in source.failed or work.has(name, source.state(name))]
    for name in mine:
        if name in source.failed:
            work.fail(name, {}, source.failed[name])
    if done := len([name for name in there if name not in source.failed]):
        print(f"{done} of {len(mine)} videos are measured already")
    with ProgressBars() as bars:
        progress = bars.begin("measuring", "video")
        for number, name in enumerate(mine):
            progress(number, len(mine))
            if name in there:
                continue
            bars.note(printable(name))
            state = source.state(name)
            try:
                pair = source.load(name)
                measured = measure(pair, config.how, opened.tools)
            except InputError as e:  # of this video: the others are measured all the same
                work.fail(name, state, str(e))
                continue
            work.keep(measured, state, suspicions(pair.generated, pair.truth), strip(pair, measured))
        progress(len(mine), len(mine))


def _check_output(config: EvaluateConfig) -> None:
    """Raise `InputError` where the result would be written among the videos."""
    if config.output.exists() and not config.output.is_dir():
        raise InputError(f"--output {config.output} is a file; name a directory")
    for place in (config.generated, config.truth, config.references, config.driving, config.dataset):
        if place is not None and place.is_dir() and (config.output == place or place in config.output.parents):
            raise InputError(f"--output {config.output} lies in {place}, which is read: name another place")
    if config.output.is_dir() and not (config.output / "work").is_dir() and any(config.output.iterdir()):
        raise InputError(f"--output {config.output} has other things in it: name a new directory")


def merge(config: MergeConfig, command: list[str]) -> None:
    """Put the results of shards together.

    Raises:
        InputError: a result is missing or of another evaluation, a video is in none of them, or the output is there.
    """
    if not config.results:
        raise InputError(
            f"give the results of the shards: {called('evaluate')} merge RESULT_DIR RESULT_DIR --output RESULT_DIR"
        )
    if config.output.exists() and not (config.output.is_dir() and not any(config.output.iterdir())):
        raise InputError(f"--output {config.output} is there already: name a new directory")
    works = [Work(folder / "work") for folder in config.results]
    read = [work.read() for work in works]
    evaluation = read[0][0]
    for folder, (other, *_) in zip(config.results, read, strict=True):
        if differing := evaluation.differences(other):
            raise InputError(
                f"{folder} is of another evaluation than {config.results[0]} ({', '.join(differing[:5])}): merge the "
                "shards of one"
            )
    everything = sorted({name for _, _, names, _ in read for name in names})
    found, absent = Found(notes=list(dict.fromkeys(note for *_, notes in read for note in notes))), []
    for number, name in enumerate(everything):
        if not any(work.add_to(found, name, number) for work in works):
            absent.append(name)
    if absent:
        raise InputError(
            f"{len(absent)} of {len(everything)} videos are in none of the results, {absent[0]} the first: give the "
            "result of every shard, run to its end"
        )
    protocol = evaluation.protocol["protocol"]
    _finish(Report(protocol, evaluation, found, decoder(), command, "1/1"), config.output, config.worst)


def _finish(report: Report, output: Path, worst: int) -> None:
    failed = report.found.failed
    if not report.found.videos:
        raise InputError(f"none of {len(failed)} videos could be measured: {_reasons(failed)}")
    print(f"putting {len(report.found.videos)} videos together", flush=True)  # distances of many features take a while
    for line in write_results(report, output, worst):
        print(line)
    print(f"wrote {output}: result.json, result.csv, result.md and report.html")
    if failed:
        total = len(failed) + len(report.found.videos)
        raise InputError(
            f"{len(failed)} of {total} videos could not be measured; {output} is without them: {_reasons(failed)}"
        )


def _reasons(failed: dict[str, str]) -> str:
    def shown(items: Iterable[tuple[str, str]]) -> str:
        return "; ".join(f"{name}: {reason}" for name, reason in items)

    more = f"; and {len(failed) - 3} more" if len(failed) > 3 else ""
    return shown(list(failed.items())[:3]) + more

"""The preparation as Apache Beam pipelines, for many machines that share the input and the work folder.

The first pipeline stages videos by the function that `preparation.workers` runs too; TFDS's own then writes the
dataset from what is staged.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stableanimator_jax.errors import InputError
from stableanimator_jax.files import neighbour
from stableanimator_jax.preparation.config import BeamConfig, ModelFiles
from stableanimator_jax.preparation.sources import Source
from stableanimator_jax.preparation.staging import Staging, read_staged
from stableanimator_jax.preparation.workers import FailedVideo, Outcome, stage_one


def require_beam() -> None:
    """Raise `InputError` where Apache Beam is not installed."""
    try:
        import apache_beam  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as e:
        raise InputError(f"--beam.runner needs Apache Beam: pip install 'stableanimator-jax[beam]' ({e})") from e


def beam_options(config: BeamConfig) -> Any:
    """Beam's options out of NAME=VALUE pairs."""
    from apache_beam.options.pipeline_options import PipelineOptions  # pyright: ignore[reportMissingImports]  # an extra

    return PipelineOptions([option if option.startswith("--") else f"--{option}" for option in config.options])


def stage_by_beam(sources: Sequence[Source], staging: Staging, models: ModelFiles, config: BeamConfig) -> list[Outcome]:
    """As `preparation.workers.stage_all`. What became of each video comes back through the work folder.

    Raises:
        InputError: the pipeline failed.
    """
    import apache_beam as beam  # pyright: ignore[reportMissingImports]  # an extra

    answers = neighbour(staging.folder / "outcomes")
    answers.mkdir(parents=True)
    try:
        with beam.Pipeline(runner=config.runner, options=beam_options(config)) as pipeline:
            videos = pipeline | "videos" >> beam.Create(list(enumerate(sources)))
            spread = videos | "spread" >> beam.Reshuffle()
            _ = spread | "prepare" >> beam.Map(_stage, staging=staging, models=models, answers=answers)
    except Exception as e:  # runners raise whatever they like
        reason = " ".join(str(e).split())[-300:]
        raise InputError(f"the Beam pipeline failed: {type(e).__name__}: {reason}") from e
    return [_read_answer(answers / f"{i}.json") for i in range(len(sources))]


def _stage(numbered: tuple[int, Source], *, staging: Staging, models: ModelFiles, answers: Path) -> None:
    number, source = numbered
    outcome = stage_one(source, staging, models)
    answer = asdict(outcome) if isinstance(outcome, FailedVideo) else {"place": str(outcome.place)}
    (answers / f"{number}.json").write_text(json.dumps(answer), encoding="utf-8")


def _read_answer(file: Path) -> Outcome:
    answer = json.loads(file.read_text(encoding="utf-8"))
    return read_staged(Path(answer["place"])) if "place" in answer else FailedVideo(**answer)

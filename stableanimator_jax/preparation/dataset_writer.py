"""Staged clips to TFDS datasets in ArrayRecord shards, one for each bucket; TensorFlow is not needed.

`ROOT/WIDTHxHEIGHT` is what `tfds.builder_from_directory` takes. The same clips give the same bytes.
"""

import contextlib
import hashlib
import io
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core.writer import ExampleWriter
from tensorflow_datasets.proto import tf_example_pb2

from stableanimator_jax.data.clip_format import bucket_size, features, to_example
from stableanimator_jax.errors import InputError, reason_of
from stableanimator_jax.preparation.config import BeamConfig
from stableanimator_jax.preparation.staging import StagedClip, read_clip

TRAIN, VALIDATION = "train", "validation"


def split_of(source: str, validation: float) -> str:
    """The split of all clips of a video, by a hash of its name: it stays when other videos come or go.

    `validation` is the share of videos for validation.
    """
    digest = hashlib.sha256(source.encode()).digest()
    return VALIDATION if int.from_bytes(digest[:8], "big") < validation * 2**64 else TRAIN


def write_dataset(
    folder: Path, bucket: str, splits: dict[str, list[StagedClip]], beam: BeamConfig | None = None
) -> None:
    """Write a bucket's (as "512x512") dataset into a folder that is not there, by Apache Beam where `beam` asks for it.

    `splits` are the clips of each split, none of them empty.

    Raises:
        InputError: it cannot be written.
    """
    scratch = folder.with_name(f"{folder.name}.tfds")
    shutil.rmtree(scratch, ignore_errors=True)
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    if beam is not None and beam.runner is not None:
        from stableanimator_jax.preparation.beam_pipeline import beam_options

        config.beam_runner, config.beam_options = beam.runner, beam_options(beam)
    try:
        builder = Clips(
            data_dir=os.fspath(scratch), bucket=bucket, splits=splits, by_beam=config.beam_runner is not None
        )
        with contextlib.redirect_stdout(io.StringIO()):  # it tells of downloads
            tfds.disable_progress_bar()
            builder.download_and_prepare(download_config=config, download_dir=os.fspath(scratch / "downloads"))
        # TFDS wants NAME/CONFIG/VERSION folders; here the bucket's folder says it all.
        Path(builder.data_dir).rename(folder)
    except OSError as e:
        raise InputError(f"cannot write the dataset {folder}: {reason_of(e)}") from e
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class Clips(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Training clips of one person each, for human image animation."""

    VERSION = tfds.core.Version("1.0.0")
    name = "clips"
    # TFDS looks beside a builder's code for checksums of downloads, by a package that it does not require.
    code_path = None  # pyright: ignore[reportAssignmentType]

    def __init__(self, *, data_dir: str, bucket: str, splits: dict[str, list[StagedClip]], by_beam: bool = False):
        self._bucket, self._splits, self._by_beam = bucket, splits, by_beam
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"Clips of one person each, {self._bucket} pixels, with skeletons and the person's face.",
            features=features(bucket_size(self._bucket)),
        )

    def _example_writer(self) -> "_StableWriter":
        file_format = self.info.file_format
        assert file_format is not None  # set above
        return _StableWriter(file_format)

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager  # everything is here
        return {split: self._generate_examples(clips) for split, clips in self._splits.items()}

    def _generate_examples(self, clips: Sequence[StagedClip]) -> Any:
        if not self._by_beam:
            return map(_example, clips)
        import apache_beam as beam  # pyright: ignore[reportMissingImports]  # an extra

        return beam.Create(list(clips)) | beam.Map(_example)


class _StableWriter(ExampleWriter):
    """Orders the fields of each example: protobuf's order of a map is another one in every process."""

    def write(self, path: Any, examples: Iterable[tuple[Any, bytes]]) -> Any:
        kind: Any = tf_example_pb2  # its classes are made at run time
        ordered = ((key, kind.Example.FromString(data).SerializeToString(deterministic=True)) for key, data in examples)
        return super().write(path, ordered)


def _example(clip: StagedClip) -> tuple[str, dict[str, Any]]:
    return clip.name, to_example(read_clip(clip.file))

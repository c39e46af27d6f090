"""What the page does for a visitor: their form in; a check, or a video with what lies beside it, out."""

import contextlib
import dataclasses
import shutil
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradio.processing_utils import save_file_to_cache

from stableanimator_jax.errors import InputError
from stableanimator_jax.scripts.app.files import laid_out, scrub_record, uploaded, without_paths
from stableanimator_jax.scripts.app.form import Form, one_of, run_config, settings_from, settings_of
from stableanimator_jax.scripts.app.jobs import Job
from stableanimator_jax.scripts.app.settings import AppConfig
from stableanimator_jax.scripts.app.visitors import Visitors
from stableanimator_jax.scripts.sample.check import Heard, check, page_body
from stableanimator_jax.scripts.sample.record import read_record
from stableanimator_jax.scripts.sample.run import Guest, run
from stableanimator_jax.scripts.sample.settings import SampleConfig
from stableanimator_jax.shipped import EMBEDDED, EXAMPLE

if TYPE_CHECKING:
    from stableanimator_jax.sampling.pipeline import Animator


@dataclass(frozen=True)
class Checked:
    """Of a check."""

    body: str
    """HTML."""
    video: Path | None


@dataclass(frozen=True)
class Animated:
    """Of an animation."""

    video: Path
    sheet: Path
    plot: Path | None
    """What the face optimisation did, where it was on."""
    record: Path
    said: str
    """What was made, and any warnings."""


class Workshop:
    """The one device, the models that it holds, and the folders that it works in.

    Args:
        app: the page's settings.
        root: a folder of its own.
    """

    def __init__(self, app: AppConfig, root: Path):
        self.app, self.root = app, root
        self.cache, self.jobs = root / "files", root / "jobs"
        for folder in (self.cache, self.jobs):
            folder.mkdir()
        self.visitors = Visitors(self.cache)
        self.device = threading.Lock()
        self._loaded: tuple[Any, Animator] | None = None

    def job(self, session: str, values: Sequence[Any], *, animate: bool) -> Job:
        """A job for a visitor, not yet begun; its result is `Checked` or `Animated`.

        Args:
            session: the visitor's.
            values: of the page's fields, as they came.
            animate: or only check.

        Raises:
            InputError: a field cannot be used.
        """
        photo, movement, driving, poses, *settings = values
        given = [
            uploaded(photo, "the photo", self.cache),
            uploaded(driving, "the driving video", self.cache),
            uploaded(poses, "the poses", self.cache),
        ]
        self.visitors.upload(session, [path for paths in given for path in paths])
        if not given[0]:
            raise InputError("give a photo of the person")
        chosen = settings_from(settings, self.app)
        movement = "example" if movement is None else one_of(movement, "movement", ("example", "driving", "poses"))
        visitor = self.visitors.of(session)

        def work(job: Job) -> Checked | Animated:
            folder = Path(tempfile.mkdtemp(dir=self.jobs))
            try:
                photos, videos, kept = (
                    laid_out(paths, folder / name, what)
                    for paths, name, what in zip(
                        given, ("photo", "driving", "poses"), ("photo", "driving video", "poses"), strict=True
                    )
                )
                own = None if self._is_example(photos) else photos[0]
                form = Form(own, movement, videos[0] if videos else None, tuple(kept), **chosen)
                config = run_config(form, self.app, folder / "animation.mp4")
                result = self._animate(config, job) if animate else self._check(config)
                paths = [path for path in vars(result).values() if isinstance(path, Path)]
                self.visitors.results(session, visitor, paths)
                return result
            finally:
                shutil.rmtree(folder, ignore_errors=True)

        visitor.job = Job(work, self.device)
        return visitor.job

    def recorded(self, value: Any, session: str) -> tuple[dict[str, Any], list[str]]:
        """The settings of an uploaded record, as `settings_of`. Raises `InputError`."""
        files = uploaded(value, "the record", self.cache)
        self.visitors.upload(session, files)
        if len(files) != 1:
            raise InputError("give one record, the .json that lies beside a video")
        try:
            return settings_of(read_record(files[0]).configuration, self.app)
        except RecursionError as e:
            raise InputError("the record is damaged: it is nested too deeply") from e

    def _is_example(self, photos: list[Path]) -> bool:
        """Whether the photo is that of the example, of which more is known than a picture says."""
        example = EXAMPLE / "reference.png"
        return self.app.checkpoint == EMBEDDED and photos[0].read_bytes() == example.read_bytes()

    def _check(self, config: SampleConfig) -> Checked:
        seen = check(config)
        facts = [(name, without_paths(value)) for name, value in seen.facts]
        warnings = [without_paths(line) for line in seen.warnings]
        body = page_body(dataclasses.replace(seen, facts=facts, warnings=warnings))
        return Checked(body, self._kept(config.check_video_path))

    def _animate(self, config: SampleConfig, job: Job) -> Animated:
        heard = Heard(sys.stderr)
        with contextlib.redirect_stderr(heard):
            record = run(config, Guest(self._load, job.frame))
        assert record is not None  # neither a check nor a warm-up
        scrub_record(config.record_path)
        width, height = record.configuration["width"], record.configuration["height"]
        said = [f"Made {record.result['frames']} frames of {width}x{height} in {_seconds(record.result['seconds'])}."]
        said += [f"Warning: {without_paths(line)}." for line in heard.warnings]
        files = config.output, config.contact_sheet_path, config.hjb_plot_path, config.record_path
        video, sheet, plot, kept = map(self._kept, files)
        assert video is not None  # run() wrote all but the plot
        assert sheet is not None
        assert kept is not None
        return Animated(video, sheet, plot, kept, " ".join(said))

    def _kept(self, path: Path) -> Path | None:
        """A copy where the page serves it from; None where there is no such file."""
        return Path(save_file_to_cache(path, str(self.cache))) if path.is_file() else None

    def _load(self, checkpoint: str, **how: Any) -> "Animator":
        """As `Animator.from_pretrained`; what was loaded last is kept until something else is wanted."""
        from stableanimator_jax.sampling.pipeline import Animator

        wanted = (checkpoint, sorted(how.items()))
        if self._loaded is None or self._loaded[0] != wanted:
            self._loaded = None  # there may not be memory for both
            self._loaded = wanted, Animator.from_pretrained(checkpoint, **how)
        return self._loaded[1]


def _seconds(laps: dict[str, float]) -> str:
    return f"{sum(laps.values()):.0f} s"

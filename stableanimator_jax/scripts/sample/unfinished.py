"""What a long run keeps beside its output until it ends, for a run with --resume to go on from."""

import contextlib
import dataclasses
import json
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from stableanimator_jax.data.images import load_image
from stableanimator_jax.data.video import output_suffix
from stableanimator_jax.errors import InputError, as_input_error
from stableanimator_jax.files import replacing, unfinished_directory
from stableanimator_jax.locking import alone_in
from stableanimator_jax.provenance import versions
from stableanimator_jax.scripts.sample.record import InputFile, version_changes
from stableanimator_jax.scripts.sample.settings import SampleConfig

if TYPE_CHECKING:
    from stableanimator_jax.sampling.face_control import StepReport
    from stableanimator_jax.sampling.samplers import Unfinished

NO_MATTER = {
    "resume", "keep_every", "distributed", "overwrite", "compilation_cache", "device", "devices", "frame_devices",
    "save_poses", "warm_up", "check",
}  # fmt: skip
"""Settings that do not change a video, but for its last bits."""


@dataclass(frozen=True)
class Begun:
    """Where a run begins."""

    state: "Unfinished | None" = None
    """None for the beginning."""
    reports: "list[StepReport]" = field(default_factory=list)
    """What the face optimisation did at the steps before."""
    frames: int = 0
    """Frames that are there."""


class UnfinishedRun:
    """The folder `.NAME.unfinished` beside the output: latents, and the frames of a directory.

    Args:
        config: the run's, its paths absolute.
        hashes: of its inputs, which may take a while.
    """

    def __init__(self, config: SampleConfig, hashes: Callable[[], dict[str, InputFile]]):
        self.config, self.hashes = config, hashes
        self.folder = unfinished_directory(config.output)
        self.file = self.folder / "latents.npz"
        self.frames = None if output_suffix(config.output) else self.folder / "frames"
        self.parents = [path for path in config.output.parents if not path.exists()]  # which the run makes
        self.begun = self.kept_at = time.monotonic()
        self.latest: tuple[Unfinished, list[StepReport]] | None = None

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Within the block no other run writes this output. Only what can be gone on from is left; interrupts say so.

        Raises:
            InputError: another run does.
        """
        try:
            with alone_in(self.folder):
                try:
                    yield
                except KeyboardInterrupt as e:
                    if told := self._interrupted():
                        raise KeyboardInterrupt(told) from e
                    raise
                else:
                    self._clear()
                finally:
                    if not self.file.is_file():
                        self._clear()
                        (self.folder / ".lock").unlink(missing_ok=True)
                        with contextlib.suppress(OSError):  # something of somebody's is in it
                            self.folder.rmdir()
        finally:
            with contextlib.suppress(OSError):  # something is in it
                for path in self.parents:
                    path.rmdir()

    def start(self) -> Begun:
        """Where to begin; of the frames that are there, the writer knows.

        Raises:
            InputError: what is there was made with other settings or inputs, is damaged, or would be lost.
        """
        if not self.file.is_file():
            if self.config.resume:
                print(f"there is nothing to go on from beside {self.config.output}: beginning at the beginning")
            self._clear()
            return Begun()
        if self.config.resume:
            return self._read()
        if not self.config.may_replace:
            raise InputError(
                f"{self.config.output} was begun by a run that did not end: go on by --resume, or begin anew by "
                "--overwrite"
            )
        self._clear()
        return Begun()

    def frames_there(self, count: int) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        """The first frames of a directory, read again."""
        for number in range(count):
            assert self.frames is not None  # or there were none
            yield load_image(self.frames / f"frame_{number}.png", what="frame")

    def _read(self) -> Begun:
        from stableanimator_jax.sampling.face_control import StepReport
        from stableanimator_jax.sampling.samplers import Unfinished

        try:
            with self.file.open("rb") as file, np.load(file, allow_pickle=False) as kept:
                run = json.loads(str(kept["run"]))
                state = Unfinished(int(kept["steps"]), kept["latents"], kept["clean"])
            reports = [StepReport(**report) for report in run["hjb"]]
            then, versions_then = run["what"], run["versions"]
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as e:
            raise InputError(f"{self.file} is damaged: begin anew by --overwrite without --resume") from e
        now = self._what()
        for kind in now:
            if changed := sorted(
                name
                for name in {*now[kind], *then.get(kind, {})}
                if now[kind].get(name) != then.get(kind, {}).get(name)
            ):
                raise InputError(
                    f"--resume: {', '.join(changed)} {'is' if len(changed) == 1 else 'are'} not as when "
                    f"{self.config.output} was begun: make it so, or begin anew by --overwrite without --resume"
                )
        if changes := version_changes(versions_then):
            print(f"note: {changes}; the video is made by both")
        print(f"going on after step {state.steps} of {self.config.sampling.steps}", flush=True)
        self.latest = state, reports
        return Begun(state, list(reports))

    def reached(self, reports: "list[StepReport]", state: "Unfinished") -> None:
        """Hear of a place from which another run can go on, and keep it now and then."""
        self.latest = state, list(reports)
        if time.monotonic() - self.kept_at >= self.config.keep_every:
            self._keep()

    def _interrupted(self) -> str | None:
        """Keep the latest place of a run that was long enough; what to tell of it, None where nothing is kept."""
        if self.latest is None:
            return None
        if self.file.is_file() or time.monotonic() - self.begun >= self.config.keep_every:
            self._keep()
        if not self.file.is_file():
            return None
        steps = self.config.sampling.steps
        return f"interrupted after step {self.latest[0].steps} of {steps}: the same command goes on by --resume"

    def _clear(self) -> None:
        """Remove what was kept, or what is of no use without the latents."""
        own = [self.file, *self.folder.glob(".latents.npz-*.tmp")]
        if self.frames is not None:
            own += [*self.frames.glob("frame_*.png"), *self.frames.glob(".frame_*.tmp")]
        for path in own:
            path.unlink(missing_ok=True)
        if self.frames is not None:
            with contextlib.suppress(OSError):  # it is not there, or something of somebody's is in it
                self.frames.rmdir()

    def _keep(self) -> None:
        assert self.latest is not None
        state, reports = self.latest
        told = [dataclasses.asdict(report) for report in reports]
        run = {"what": self._what(), "hjb": told, "versions": versions()}
        try:
            with as_input_error(f"cannot write {self.folder}"):
                self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(self.file) as path, path.open("wb") as file:
                np.savez(file, steps=state.steps, latents=state.latents, clean=state.clean, run=json.dumps(run))
        except InputError as e:
            print(f"warning: {e}; an interrupted run could not go on from here", file=sys.stderr)
        self.kept_at = time.monotonic()

    def _what(self) -> dict[str, dict[str, Any]]:
        settings = {name: value for name, value in self.config.to_dict().items() if name not in NO_MATTER}
        return {"settings": settings, "inputs": {name: file.sha256 for name, file in self.hashes().items()}}


def as_process_0_began(begun: Begun | None) -> Begun:
    """Where process 0 begins, on all processes, for only it knows (the others give None). To be called by all."""
    from stableanimator_jax.hosts import from_each, from_process_0, process_count

    if process_count() == 1:
        assert begun is not None
        return begun
    from stableanimator_jax.sampling.samplers import Unfinished

    begun = Begun() if begun is None else begun
    state = begun.state
    here = (begun.frames, 0, ()) if state is None else (begun.frames, state.steps, state.latents.shape)
    frames, steps, shape = json.loads(from_each(json.dumps(here))[0])
    if not steps:
        return replace(begun, frames=frames)
    arrays = (np.zeros(shape, np.float32),) * 2 if state is None else (state.latents, state.clean)
    return replace(begun, state=Unfinished(steps, *from_process_0(arrays)), frames=frames)

"""A run's own record of its settings: whether a directory is this run's, and whether going on makes sense."""

import json
from pathlib import Path

import jax

from stableanimator_jax.config import read_json
from stableanimator_jax.data.files import replacing
from stableanimator_jax.errors import InputError
from stableanimator_jax.sampling.record import versions
from stableanimator_jax.training.checkpoints import Checkpoints
from stableanimator_jax.training.config import TrainConfig
from stableanimator_jax.training.hosts import changes

SETTINGS = "config.json"
# Settings that a run cannot change when it goes on: its checkpoints would mean something else.
_FIXED = ("model.", "trainable.")


def resumed_step(config: TrainConfig, checkpoints: Checkpoints) -> int | None:
    """Which step to go on from, None to begin. Raises `InputError` for another run's directory."""
    steps = checkpoints.steps()
    if config.resume_step is not None:
        if config.resume_step not in steps:
            there = f"it has {', '.join(map(str, steps))}" if steps else "it has none"
            raise InputError(f"{checkpoints.directory} has no checkpoint of step {config.resume_step}; {there}")
        return config.resume_step
    if steps and not config.resume:
        raise InputError(
            f"{checkpoints.directory.parent} holds a run's checkpoints already (step {steps[-1]}): go on with it by "
            "--resume, or name another --output"
        )
    return steps[-1] if steps else None


def keep_settings(config: TrainConfig, frozen: str, resumed: int | None) -> None:
    """Leave the run's settings in its directory. Raises `InputError` where going on with others means nothing."""
    path = config.output / SETTINGS
    settings = config.to_dict()
    if resumed is not None and path.is_file():
        before = read_json(path)
        if not isinstance(before, dict) or not isinstance(before.get("settings"), dict):
            raise InputError(f"{path} is not what train.py leaves; it must be there to go on")
        changed = changes(before["settings"], settings)
        for name, (old, new) in changed.items():
            if name.startswith(_FIXED):
                flag = "--" + name.replace("_", "-")
                raise InputError(
                    f"this run was begun with {flag} {old} and cannot go on with {new}: leave it as it was"
                )
        if before.get("frozen_weights") != frozen:
            raise InputError(
                f"this run was begun from {before['settings'].get('init_from')}, and the weights in {config.init_from} "
                "are others: give those by --init-from"
            )
        shown = [f"{n} {o} -> {v}" for n, (o, v) in changed.items() if not n.startswith(("resume", "distributed"))]
        if shown:
            say(f"note: settings that are not as they were: {', '.join(shown)}")
    if jax.process_index() == 0:
        text = json.dumps({"settings": settings, "frozen_weights": frozen, "versions": versions()}, indent=1)
        try:
            with replacing(path) as unfinished:
                Path(unfinished).write_text(text + "\n", encoding="utf-8")
        except OSError as e:
            raise InputError(f"cannot write to --output {config.output}: {e.strerror}") from e


def say(text: str) -> None:
    """Print, on process 0 only."""
    if jax.process_index() == 0:
        print(text, flush=True)

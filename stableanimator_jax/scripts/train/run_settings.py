"""A run's own record of its settings: whether a directory is this run's, and whether going on makes sense."""

import json
from pathlib import Path

import jax

from stableanimator_jax.commands import called
from stableanimator_jax.config import read_json
from stableanimator_jax.errors import InputError, as_input_error
from stableanimator_jax.files import replacing
from stableanimator_jax.hosts import changes, say, warn
from stableanimator_jax.provenance import versions
from stableanimator_jax.training.checkpoints import Checkpoints
from stableanimator_jax.training.config import TrainConfig
from stableanimator_jax.training.data_watch import CONTENTS, DAMAGED
from stableanimator_jax.training.metrics import JSON_LINES

SETTINGS = "config.json"
_FROZEN = "frozen_digest"
# Settings that a run cannot change when it goes on: its checkpoints would mean something else.
_FIXED = ("model.", "trainable.", "seed", "optimizer.kind")


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
    if not steps:
        require_own_folder(config.output)
    return steps[-1] if steps else None


def require_own_folder(output: Path) -> None:
    """Raise `InputError` where a run that begins would write over what no run left, as a model's `config.json`."""
    there = [path for name in (SETTINGS, JSON_LINES, CONTENTS, DAMAGED) if (path := output / name).exists()]
    try:
        ours = {"settings", "versions"} <= set(read_json(output / SETTINGS))
    except (InputError, TypeError):
        ours = False
    if there and not ours:
        raise InputError(
            f"will not replace {there[0]}, which no run of {called('train')} left there: name another --output"
        )


def check_settings(config: TrainConfig, frozen: str) -> None:
    """Before going on: raise `InputError` where that means nothing with these settings; tell of others that changed.

    `frozen` is `state.frozen_digest` of the weights that it goes on with.
    """
    path = config.output / SETTINGS
    if not path.is_file():
        raise InputError(f"{path} is missing, the settings that the run was begun with: it must be there to go on")
    before = read_json(path)
    if not isinstance(before, dict) or not isinstance(before.get("settings"), dict):
        raise InputError(f"{path} is not what {called('train')} leaves; it must be there to go on")
    changed = changes(before["settings"], config.to_dict())
    for name, (old, new) in changed.items():
        if name.startswith(_FIXED) or (name == "optimizer.ema_decay" and not (old and new)):
            flag = "--" + name.replace("_", "-")
            raise InputError(f"this run was begun with {flag} {old} and cannot go on with {new}: leave it as it was")
    if _FROZEN not in before:
        warn(
            f"{path} is of an older version of this program, which did not note what tells whether the weights in "
            f"{config.init_from} are those that the run was begun from: it is taken that they are"
        )
    elif before[_FROZEN] != frozen:
        raise InputError(
            f"this run was begun from {before['settings'].get('init_from')}, and the weights in {config.init_from} "
            "are others: give those by --init-from"
        )
    shown = [
        f"{n} {o} -> {v}"
        for n, (o, v) in changed.items()
        if not n.startswith(("resume", "distributed", "data.changed"))
    ]
    if shown:
        say(f"note: settings that are not as they were: {', '.join(shown)}")


def keep_settings(config: TrainConfig, frozen: str) -> None:
    """Leave the run's settings in its directory. Raises `InputError` where that cannot be written."""
    if jax.process_index() == 0:
        text = json.dumps({"settings": config.to_dict(), _FROZEN: frozen, "versions": versions()}, indent=1)
        with as_input_error(f"cannot write to --output {config.output}"):
            config.output.mkdir(parents=True, exist_ok=True)
        with replacing(config.output / SETTINGS) as unfinished:
            unfinished.write_text(text + "\n", encoding="utf-8")

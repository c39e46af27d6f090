"""Animate the person of a reference image along a sequence of poses.

    stableanimator sample                                        the example, a drawn person: a minute on a laptop
    stableanimator sample CONFIG [--flag value ...]              start from a config; --list-configs names them
    stableanimator sample --reference me.jpg --poses dance/ --checkpoint DIR --output me.mp4
    stableanimator sample --reference me.jpg --poses dance/ --checkpoint DIR --output me.mp4 --preset fast
    stableanimator sample --from-json me.mp4.json --output again.mp4

CONFIG is a Python file, or the name of one that comes with the package. Without it, --checkpoint or --from-json the
settings are those of drawn_people, made for the weights in this package; with --checkpoint DIR they begin as those
weights are published (docs/family.md).

Exit status: 0 done, 2 something in the input is wrong (one line on stderr says what), 130 interrupted.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, NoReturn, cast

import tyro

from stableanimator_jax.commands import called
from stableanimator_jax.errors import InputError
from stableanimator_jax.sampling.config import PresetName
from stableanimator_jax.scripts.cli import config_file, flag_value, leave, parse_flags, run_script
from stableanimator_jax.scripts.sample.record import as_meant_now, read_record, version_changes
from stableanimator_jax.scripts.sample.settings import DRAWN_PEOPLE, SampleConfig, kind_of, published
from stableanimator_jax.shipped import EMBEDDED


@dataclass(frozen=True)
class Arguments:
    """What `sample.py` takes."""

    from_json: Annotated[Path | None, tyro.conf.arg(metavar="FILE.json")] = None
    """Repeat the run whose record this is (OUTPUT.json); its inputs must still be as they were. Flags override it."""
    preset: PresetName | None = None
    """Steps, schedule, sampler and guidance interval at once, in place of a config file's: as published; balanced, with
    60 % of its UNet evaluations; or fast, with 34 %. Flags override it. docs/speed.md has what the last two cost."""
    config: Annotated[SampleConfig, tyro.conf.arg(name="")] = field(default_factory=SampleConfig)


def main(argv: Sequence[str]) -> None:
    """Parse the command line and run. Raises `InputError`."""
    own_weights = flag_value(argv, "--checkpoint") in (None, EMBEDDED)
    config, flags = config_file(
        argv, DRAWN_PEOPLE if own_weights else published(kind_of(flag_value(argv, "--checkpoint") or EMBEDDED))
    )
    record = None
    if (source := flag_value(flags, "--from-json")) is not None:
        if len(flags) < len(argv):
            raise InputError("give a config file or --from-json, not both: each sets everything")
        record = read_record(Path(source))
        try:
            config = SampleConfig.from_dict(as_meant_now(record.configuration))
        except InputError as e:
            raise InputError(f"{source}: {e}") from e
    if (preset := flag_value(flags, "--preset")) is not None:
        sampling = config.sampling.with_preset(cast(PresetName, preset))
        config = dataclasses.replace(config, sampling=sampling)
    config = parse_flags(flags, Arguments(config=config), prog=called("sample"), description=__doc__ or "").config

    from stableanimator_jax.scripts.sample.inputs import verify_inputs  # OpenCV and others: slow, and not for --help
    from stableanimator_jax.scripts.sample.run import run

    config = config.absolute()
    if record is not None:
        verify_inputs(record, config)
        if changes := version_changes(record.versions):
            print(f"note: {changes}; frames may differ in their last bits")
    run(config)


def script(argv: Sequence[str] | None = None) -> NoReturn:
    """The program `sample.py`, or `stableanimator sample`."""
    status = run_script(main, argv)
    leave(status, at_once=status != 0)

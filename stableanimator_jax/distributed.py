"""How several processes are told to be one run; `hosts` does it. Without JAX, for which no --help should wait."""

import re
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from stableanimator_jax.errors import InputError
from stableanimator_jax.limits import AtLeast, check_limits


@dataclass(frozen=True)
class DistributedConfig:
    """How several processes find each other."""

    start: Literal["off", "auto", "slurm", "explicit"] = "off"
    """off: this process is alone. auto: as the TPU pod or the cluster says. slurm: as SLURM says. explicit: by the
    three settings below."""
    coordinator: Annotated[str | None, tyro.conf.arg(metavar="HOST:PORT")] = None
    """Where process 0 can be reached."""
    processes: int | None = None
    """How many there are."""
    process: int | None = None
    """Which one this is, from 0."""
    wait: Annotated[int, AtLeast(1)] = 300
    """Seconds to wait for the others."""

    def __post_init__(self):
        check_limits(self, "distributed")
        explicit = (self.coordinator, self.processes, self.process)
        if self.start == "explicit" and None in explicit:
            raise InputError(
                "--distributed.start explicit needs --distributed.coordinator, --distributed.processes and "
                "--distributed.process"
            )
        if self.start != "explicit" and explicit != (None, None, None):
            raise InputError("the addresses of processes are given, but not --distributed.start explicit")
        if self.coordinator is not None and not re.fullmatch(r".+:\d{1,5}", self.coordinator):
            raise InputError(
                f"distributed.coordinator must be HOST:PORT, such as 10.0.0.1:1234, got {self.coordinator}"
            )
        if self.processes is not None and self.process is not None and not 0 <= self.process < self.processes:
            raise InputError(f"distributed.process must be from 0 to {self.processes - 1}, got {self.process}")

"""What the TPU compiler's own figures say of a program that has never run: memory, traffic, and time at best."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.hlo import collectives, table

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """As Google Cloud's documentation of each version states it, a chip."""

    flops: float
    """Of bfloat16 matrix products, a second."""
    memory_bytes: float
    """That a program may use: a little less than the stated 16, 95 and 32 GB of HBM."""
    memory_rate: float
    """Bytes a second."""
    link_rate: float
    """Bytes a second along one axis of the torus, counting one direction: what a ring that does not close can use."""


CHIPS: Mapping[str, Chip] = {
    "v5e": Chip(197e12, 15.75 * GIB, 819e9, 45e9),
    "v5p": Chip(459e12, 95 * GIB, 2765e9, 90e9),
    "v6e": Chip(918e12, 31.25 * GIB, 1640e9, 90e9),
}


@dataclass(frozen=True)
class Report:
    """A compiled program on one of the chips that run it."""

    arguments: float
    """Bytes of what goes in, which stays."""
    temporaries: float
    """Bytes allotted to everything between."""
    total: float
    """Bytes at the peak, arguments and results included."""
    sent: Mapping[str, tuple[int, float]]
    """By kind of collective: how many run, and how many bytes a chip sends in them."""
    arithmetic_seconds: float
    """All matrix products at the peak rate."""
    memory_seconds: float
    """Every byte that an operation reads or writes at the HBM's rate; a loop's body counts once."""
    link_seconds: float
    """Every byte sent over one axis of the torus in one direction, nothing at the same time."""

    @property
    def at_best(self) -> float:
        """Seconds if arithmetic, memory and links were all busy at once."""
        return max(self.arithmetic_seconds, self.memory_seconds, self.link_seconds)

    @property
    def at_worst(self) -> float:
        """Seconds if links waited for arithmetic and memory, and these for links, at the same rates."""
        return max(self.arithmetic_seconds, self.memory_seconds) + self.link_seconds

    def __str__(self) -> str:
        sent = ", ".join(f"{count} {kind} {size / GIB:.2f} GiB" for kind, (count, size) in sorted(self.sent.items()))
        return (
            f"arguments {self.arguments / GIB:.2f} GiB, temporaries {self.temporaries / GIB:.2f} GiB, in all "
            f"{self.total / GIB:.2f} GiB a chip; sends {sent or 'nothing'}; "
            f"arithmetic {self.arithmetic_seconds:.3f} s, memory {self.memory_seconds:.3f} s, "
            f"links {self.link_seconds:.3f} s: {self.at_best:.2f} to {self.at_worst:.2f} s"
        )


def report(compiled: Any, chip: Chip, devices: int, flops: float) -> Report:
    """The report on a `jax.stages.Compiled` for `devices` chips.

    Args:
        flops: of all matrix products, over all devices (`flops.matmul_flops`): the compiler's own count does not see
            into Pallas kernels, and counts a loop's body once.
    """
    memory = compiled.memory_analysis()
    sent = table(collectives(compiled.as_text(), devices))
    donated = memory.alias_size_in_bytes
    return Report(
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        total=memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes - donated,
        sent=sent,
        arithmetic_seconds=flops / devices / chip.flops,
        memory_seconds=compiled.cost_analysis()["bytes accessed"] / chip.memory_rate,
        link_seconds=sum(size for _, size in sent.values()) / chip.link_rate,
    )

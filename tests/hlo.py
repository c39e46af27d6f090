"""What a compiled program sends between devices, read from its text."""

import math
import re
from collections import defaultdict
from typing import NamedTuple

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f64": 8, "s64": 8, "u64": 8}
"""Of an element, where it is not 4; of those that collectives may carry."""

_HEADER = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) (?:\(.*)?\{$")
_COLLECTIVE = re.compile(rf" = (.*?) ({'|'.join(KINDS)})(-start)?\(")
_ARRAY = re.compile(r"([a-z]+\d*)\[([\d,]*)\]")
_CALLED = re.compile(r"(?:calls|body|condition|to_apply)=%?([\w.\-]+)|branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'known_trip_count":\{"n":"(\d+)"\}')


class Collective(NamedTuple):
    """One collective operation, as one device sees it."""

    kind: str
    bytes: int
    """Of the largest of what goes in and what comes out, which is the gathered or the unreduced whole."""
    devices: int
    """How many take part in one group; 2 of a permutation."""
    times: int
    """How often it runs: more than once inside of loops whose number of rounds the compiler knows."""

    @property
    def sent(self) -> float:
        """Bytes that a device sends in all runs together, by the ring algorithms; by pairs for all-to-all."""
        share = (self.devices - 1) / self.devices
        match self.kind:
            case "all-reduce":
                once = 2 * share * self.bytes
            case "collective-permute":
                once = self.bytes
            case _:
                once = share * self.bytes
        return once * self.times


def collectives(text: str, devices: int) -> list[Collective]:
    """The collectives of a compiled program.

    Args:
        text: `jax.stages.Compiled.as_text()`.
        devices: of the whole mesh, which is what operations mean that name no groups.
    """
    bodies, entry = _computations(text)
    times = _times(bodies, entry)
    found = []
    for name, lines in bodies.items():
        # TPUs fuse an all-reduce and the slice that is kept of it; that is how they scatter.
        scatters = "all-reduce-scatter" in name
        for line in lines:
            match = _COLLECTIVE.search(line)
            if match is None or not times[name]:
                continue
            result, kind, start = match.groups()
            size, group = _bytes(result, kind, start is not None), _group(line, kind, devices)
            if kind == "reduce-scatter":
                size *= group
            found.append(Collective("reduce-scatter" if scatters else kind, size, group, times[name]))
    return found


def table(found: list[Collective]) -> dict[str, tuple[int, float]]:
    """By kind: how many run, and how many bytes a device sends in them."""
    rows: dict[str, tuple[int, float]] = {}
    for one in found:
        count, sent = rows.get(one.kind, (0, 0.0))
        rows[one.kind] = (count + one.times, sent + one.sent)
    return rows


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    bodies: dict[str, list[str]] = {}
    entry, lines = "", []
    for line in text.splitlines():
        if not line.startswith(" ") and (header := _HEADER.match(line)):
            lines = bodies.setdefault(header[1], [])
            entry = header[1] if line.startswith("ENTRY") else entry
        elif line.startswith(" "):
            lines.append(line)
    return bodies, entry


def _times(bodies: dict[str, list[str]], entry: str) -> dict[str, int]:
    """How often each computation runs. Every computation comes before those that call it."""
    times: dict[str, int] = defaultdict(int) | {entry: 1}
    for name in reversed(bodies):
        for line in bodies[name]:
            trips = _TRIPS.search(line)
            rounds = int(trips[1]) if trips and " while(" in line else 1
            for one, several in _CALLED.findall(line):
                for called in [one] if one else [c.strip(" %") for c in several.split(",")]:
                    times[called] += rounds * times[name]
    return times


def _bytes(result: str, kind: str, started: bool) -> int:
    arrays = [
        BYTES.get(dtype, 4) * math.prod(int(length) for length in dims.split(",") if length)
        for dtype, dims in _ARRAY.findall(result)
    ]
    if started and kind == "all-gather":
        return sum(arrays[len(arrays) // 2 :])  # operands, then results
    if started and kind == "collective-permute":
        return arrays[1]  # operand, result, flags
    return sum(arrays)


def _group(line: str, kind: str, devices: int) -> int:
    if kind == "collective-permute":
        return 2
    if axes := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", line):
        sizes = dict(re.findall(r"('\w+')=(\d+)", axes[1]))
        return math.prod(int(part or sizes[axis]) for axis, part in re.findall(r"('\w+')(?::\(\d+\)(\d+))?", axes[2]))
    if tiles := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
        return int(tiles[1])
    if groups := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return len(groups[1].split(","))
    return devices

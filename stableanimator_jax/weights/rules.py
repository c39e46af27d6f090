"""The converter's engine: tables of rules that rename and re-lay weights, PyTorch to this project and back.

A `Table` is a list of `Rule`s and `Ignore`s whose templates name the keys of a PyTorch state dict and the paths of
this project's parameters. A template's fields are

- `{i}`, one letter: a number;
- `{layer:to_q|to_k}`: one of the alternatives (declared in the source template, the target need not repeat them);
- `{block}`: one or more whole parts of a dotted name.

Because fields are all that varies, one table runs in both directions. Every key must meet exactly one rule or
`Ignore`, and every parameter must be filled exactly once: anything else is collected and raised at once. Layouts
change by named transforms that the table states; none is ever guessed from a shape.

Arrays are NumPy's throughout, so nothing here needs torch or a device.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import jax.numpy as jnp
import numpy as np
from einops import EinopsError, rearrange
from flax.traverse_util import flatten_dict, unflatten_dict

from stableanimator_jax.errors import InputError

Shape = tuple[int, ...]
Path = tuple[str | int, ...]
"""Where a parameter sits in a nested dict; children of an `nnx.List` have integer keys."""


@dataclass(frozen=True)
class Transform:
    """A change of layout, written as einops axes: PyTorch's order on the left, this project's on the right."""

    name: str
    source: str
    target: str
    sizes: tuple[tuple[str, int], ...] = ()
    """Lengths of axes that a composed axis hides."""

    def forward(self, array: np.ndarray) -> np.ndarray:
        """PyTorch's layout to this project's."""
        return rearrange(array, f"{self.source} -> {self.target}", **dict(self.sizes))

    def inverse(self, array: np.ndarray) -> np.ndarray:
        """This project's layout to PyTorch's."""
        return rearrange(array, f"{self.target} -> {self.source}", **dict(self.sizes))

    def inverse_shape(self, shape: Shape) -> Shape:
        return self.inverse(stand_in(shape)).shape


def stand_in(shape: Shape) -> np.ndarray:
    """An array of any shape in one byte, by strides of zero, to see what becomes of its shape."""
    return np.broadcast_to(np.empty((), np.bool_), shape)


IDENTITY = Transform("IDENTITY", "...", "...")
LINEAR = Transform("LINEAR", "o i", "i o")
CONV2D = Transform("CONV2D", "o i h w", "h w i o")
TEMPORAL_CONV = Transform("TEMPORAL_CONV", "o i t 1 1", "t i o")
"""A `Conv3d` with a kernel of (3, 1, 1): its height and width axes carry nothing."""


_FIELD = re.compile(r"\{(\w+)(?::([^}]*))?\}")


def _fields(template: str) -> dict[str, str]:
    """Every field of a template with the regular expression for its values."""

    def values(name: str, alternatives: str) -> str:
        if alternatives:
            return "|".join(map(re.escape, alternatives.split("|")))
        return r"\d+" if len(name) == 1 else r"[^.]+(?:\.[^.]+)*"

    return {name: values(name, alternatives) for name, alternatives in _FIELD.findall(template)}


def _pattern(template: str, fields: Mapping[str, str]) -> re.Pattern[str]:
    literals_and_names = _FIELD.split(template)
    parts = [re.escape(literals_and_names[0])]
    for name, literal in zip(literals_and_names[1::3], literals_and_names[3::3], strict=True):
        parts += [f"(?P<{name}>{fields[name]})", re.escape(literal)]
    return re.compile("".join(parts))


def _fill(template: str, match: re.Match[str]) -> str:
    return _FIELD.sub(lambda field: match[field[1]], template)


@dataclass(frozen=True)
class Rule:
    """PyTorch keys that match `source` become the parameters at `target`, laid out by `transform`."""

    source: str
    target: str
    transform: Transform = IDENTITY

    def __post_init__(self):
        if set(_fields(self.source)) != set(_fields(self.target)):
            raise ValueError(f"rule {self.source} -> {self.target}: both sides must have the same fields")

    @cached_property
    def _patterns(self) -> tuple[re.Pattern[str], re.Pattern[str]]:
        fields = _fields(self.source)
        return _pattern(self.source, fields), _pattern(self.target, fields)

    def to_target(self, key: str) -> str | None:
        """The dotted path of the parameter that `key` fills, or None where the rule does not apply."""
        match = self._patterns[0].fullmatch(key)
        return _fill(self.target, match) if match else None

    def to_source(self, path: str) -> str | None:
        """The inverse of `to_target`."""
        match = self._patterns[1].fullmatch(path)
        return _fill(self.source, match) if match else None


@dataclass(frozen=True)
class Ignore:
    """PyTorch keys that match `source` are left out, because of `reason`."""

    source: str
    reason: str

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return _pattern(self.source, _fields(self.source))

    def applies(self, key: str) -> bool:
        return self._pattern.fullmatch(key) is not None


@dataclass(frozen=True)
class Table:
    """Everything that converts one model. The order of `rules` is for the reader: no two may apply to one key."""

    model: str
    rules: tuple[Rule | Ignore, ...]

    def sources(self, path: str) -> list[tuple[str, Rule]]:
        """The PyTorch keys that could fill the parameter at a dotted path: one, or the table is wrong."""
        return [(key, r) for r in self.rules if isinstance(r, Rule) and (key := r.to_source(path)) is not None]

    def targets(self, key: str) -> list[tuple[str, Rule]]:
        """The dotted paths that a PyTorch key could fill."""
        return [(path, r) for r in self.rules if isinstance(r, Rule) and (path := r.to_target(key)) is not None]

    def ignored(self, key: str) -> list[Ignore]:
        return [r for r in self.rules if isinstance(r, Ignore) and r.applies(key)]


class WeightsError(InputError):
    """Weights and a model that do not fit each other.

    Attributes:
        problems: every problem found, by kind: "unmapped", "ambiguous", "doubly filled", "unfilled",
            "wrong shape", "wrong dtype". The message shows the first of each kind.
    """

    shown = 20

    def __init__(self, model: str, problems: Mapping[str, list[str]]):
        self.problems = {kind: list(lines) for kind, lines in problems.items() if lines}
        counts = ", ".join(f"{len(lines)} {kind}" for kind, lines in self.problems.items())
        lines = [f"the weights do not fit the model {model}: {counts}"]
        for kind, found in self.problems.items():
            lines += [f"  {kind}: {line}" for line in found[: self.shown]]
            if len(found) > self.shown:
                lines.append(f"  {kind}: ... and {len(found) - self.shown} more")
        super().__init__("\n".join(lines))


class _Problems(dict[str, list[str]]):
    """Problems by kind, in the order of the message."""

    def __init__(self):
        super().__init__({kind: [] for kind in ("unmapped", "ambiguous", "doubly filled", "unfilled", "wrong shape")})

    def raise_if_any(self, model: str) -> None:
        if any(self.values()):
            raise WeightsError(model, self)


@dataclass(frozen=True)
class Assignment:
    """One PyTorch tensor and the one parameter that it fills."""

    key: str
    path: Path
    transform: Transform
    source_shape: Shape
    dtype: np.dtype
    """The parameter's dtype."""


def plan_import(table: Table, shapes: Mapping[str, Iterable[int]], abstract: Mapping[Any, Any]) -> list[Assignment]:
    """Match a state dict with a model by names and shapes alone; nothing is read or allocated.

    Args:
        shapes: the shape of every tensor, in PyTorch's layout, by state-dict key.
        abstract: the model's parameters as a nested dict whose leaves have `shape` and `dtype`
            (`nnx.to_pure_dict(nnx.state(nnx.eval_shape(...)))`).

    Returns:
        one assignment a parameter, in the order of `shapes`.

    Raises:
        WeightsError: a key meets no rule or several, a parameter is filled twice or not at all, or a shape is
            not the model's. All problems are in the one error.
    """
    wanted = {dotted(path): (path, leaf) for path, leaf in flatten(abstract).items()}
    problems, plan, filled_by = _Problems(), [], {}
    for key, shape in shapes.items():
        given, targets, ignored = tuple(shape), table.targets(key), table.ignored(key)
        if len(targets) + len(ignored) > 1:
            meets = [path for path, _ in targets] + [f"ignored, because {i.reason}" for i in ignored]
            problems["ambiguous"].append(f"{key} meets {len(meets)} rules: {'; '.join(meets)}")
            filled_by |= dict.fromkeys((path for path, _ in targets), key)
        elif not targets and not ignored:
            problems["unmapped"].append(f"{key} {list(given)}: no rule has this name")
        elif targets:
            name, rule = targets[0]
            if name not in wanted:
                problems["unmapped"].append(f"{key} {list(given)}: the model has no {name}")
            elif name in filled_by:
                problems["doubly filled"].append(f"{name} by {filled_by[name]} and by {key}")
            else:
                filled_by[name] = key
                path, leaf = wanted[name]
                shape_wanted = _source_shape(rule, name, leaf.shape, problems)
                if shape_wanted not in (given, None):
                    problems["wrong shape"].append(f"{key} is {list(given)}, the model takes {list(shape_wanted)}")
                plan.append(Assignment(key, path, rule.transform, given, np.dtype(leaf.dtype)))
    for name, (_, leaf) in wanted.items():
        if name not in filled_by:
            sources = " or ".join(key for key, _ in table.sources(name)) or "no rule"
            problems["unfilled"].append(f"{name} {list(leaf.shape)}, from {sources}")
    problems.raise_if_any(table.model)
    return plan


def plan_export(table: Table, abstract: Mapping[Any, Any]) -> list[Assignment]:
    """Match a model's parameters with the PyTorch keys that they came from; the inverse of `plan_import`.

    `abstract` is a nested dict of parameters, or of their shapes and dtypes.

    Returns:
        one assignment a parameter: with `key` and `source_shape` it lists the state dict that the model takes.

    Raises:
        WeightsError: a parameter meets no rule or several, two make the same key, or a layout does not apply.
    """
    problems, plan, made_from = _Problems(), [], {}
    for path, leaf in flatten(abstract).items():
        name = dotted(path)
        sources = table.sources(name)
        if not sources:
            problems["unmapped"].append(f"{name} {list(leaf.shape)}: no rule has this name")
        elif len(sources) > 1:
            problems["ambiguous"].append(f"{name} meets {len(sources)} rules: {', '.join(key for key, _ in sources)}")
        elif sources[0][0] in made_from:
            key = sources[0][0]
            problems["doubly filled"].append(f"{key} by {made_from[key]} and by {name}")
        else:
            key, rule = sources[0]
            made_from[key] = name
            shape = _source_shape(rule, name, leaf.shape, problems)
            if shape is not None:
                plan.append(Assignment(key, path, rule.transform, shape, np.dtype(leaf.dtype)))
    problems.raise_if_any(table.model)
    return plan


def _source_shape(rule: Rule, name: str, shape: Shape, problems: _Problems) -> Shape | None:
    try:
        return rule.transform.inverse_shape(tuple(shape))
    except EinopsError:
        problems["wrong shape"].append(
            f"{name} is {list(shape)} in the model, but {rule.transform.name} lays out '{rule.transform.target}'"
        )
        return None


def stream(
    table: Table, plan: Iterable[Assignment], state_dict: Mapping[str, Any]
) -> Iterator[tuple[Path, np.ndarray]]:
    """Read, re-lay and cast one tensor after another.

    `state_dict` may read a tensor each time it is asked for one: no more than that tensor is held here.

    Yields:
        the path of a parameter and its value, C-contiguous, in the parameter's dtype, sharing no memory
        with the state dict.

    Raises:
        WeightsError: a tensor is not of the planned shape, or not of floating point.
    """
    for assignment in plan:
        yield assignment.path, _read(table, assignment, state_dict)


def _read(table: Table, a: Assignment, state_dict: Mapping[str, Any]) -> np.ndarray:
    array = np.asarray(state_dict[a.key])
    if array.shape != a.source_shape:
        line = f"{a.key} is {list(array.shape)}, its file said {list(a.source_shape)}"
        raise WeightsError(table.model, {"wrong shape": [line]})
    if not jnp.issubdtype(array.dtype, jnp.floating):
        # Integers in a weight are a quantised checkpoint; cast to floats they would be noise.
        raise WeightsError(table.model, {"wrong dtype": [f"{a.key} is {array.dtype}, not floating point"]})
    return np.array(a.transform.forward(array), dtype=a.dtype, order="C")


def flatten(tree: Mapping[Any, Any]) -> dict[Path, Any]:
    """The leaves of nested dicts by path: Flax's own, whose types say less."""
    return cast(dict[Path, Any], flatten_dict(tree))


def unflatten(leaves: Mapping[Path, Any]) -> dict[Any, Any]:
    """The inverse of `flatten`."""
    return unflatten_dict(leaves)


def dotted(path: Path) -> str:
    return ".".join(map(str, path))


def by_name(tree: Mapping[Any, Any]) -> dict[str, Any]:
    """The leaves of nested dicts by dotted path."""
    return {dotted(path): leaf for path, leaf in flatten(tree).items()}


def nested_as(tree: Mapping[Any, Any], leaves: Mapping[str, Any]) -> dict[Any, Any]:
    """The inverse of `by_name`: leaves by dotted path in the nesting of `tree`, which has the same."""
    return unflatten({path: leaves[dotted(path)] for path in flatten(tree)})

"""What may import what: each storey only what lies below it, and nothing in a circle."""

import graphlib

import grimp
import pytest

BESIDE = {"training", "preparation", "evaluation"}
STOREYS = (
    {"scripts"},
    BESIDE,
    {"sampling"},
    {"perception"},
    {"weights", "data"},
    {"models"},
    # The ground: everything that is not in a folder.
)
PACKAGE = "stableanimator_jax"


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """The modules that each module imports, in functions and for types too."""
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in sorted(graph.modules)}


def storey(module: str) -> int:
    """Counted from the top; the package's own `__init__`, which hands everything out, and `__main__` are above all."""
    parts = module.split(".")
    if len(parts) == 1 or parts[1] == "__main__":
        return -1
    return next((i for i, rooms in enumerate(STOREYS) if parts[1] in rooms), len(STOREYS))


def test_nothing_imports_from_above(imports):
    upward = [f"{a} imports {b}" for a, found in imports.items() for b in found if storey(b) < storey(a)]
    assert not upward
    # Training, preparation and evaluation stand beside each other: none needs another.
    rooms = {(a.split(".")[1], b.split(".")[1]) for a, found in imports.items() for b in found if a != PACKAGE}
    assert not [room for room in rooms if room[0] != room[1] and set(room) <= BESIDE]


def test_nothing_imports_in_a_circle(imports):
    list(graphlib.TopologicalSorter(imports).static_order())  # raises where there is one


def test_every_room_has_its_storey(imports):
    packages = {module.split(".")[1] for module in imports if module.count(".") > 1}
    assert packages == set().union(*STOREYS)

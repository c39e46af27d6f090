"""With `pytest -p tests.typechecker` calls of the package, and its records, are checked against their annotations."""

import pytest
from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as static checkers have it
install_import_hook("stableanimator_jax", "tests.typechecker.check")


def pytest_configure(config: pytest.Config) -> None:
    # Flax's List is a `typing.MutableSequence`.
    config.addinivalue_line("filterwarnings", "ignore::beartype.roar.BeartypeDecorHintPep585DeprecationWarning")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that give what the annotations forbid, to see it refused."""
    mistyped = [item for item in items if item.get_closest_marker("mistyped")]
    config.hook.pytest_deselected(items=mistyped)
    items[:] = [item for item in items if item not in mistyped]

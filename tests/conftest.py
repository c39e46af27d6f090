"""Every test runs on the CPU with JAX's strict modes on; pyproject.toml makes warnings errors.

Compiling is most of the tests' time: the processes that pytest shares the tests among, and the scripts that tests
start, keep their compiled programs in one place. XLA's low effort saves a third of it and costs more than that where
the programs run.
"""

import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module", autouse=True)
def _programs_of_one_file() -> Iterator[None]:
    """Programs are let go after each file of tests: all of them together take many gigabytes."""
    yield
    jax.clear_caches()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests against torch are skipped where it is not installed; --no-skips fails then."""
    if item.get_closest_marker("parity"):
        pytest.importorskip("torch", reason="parity tests need torch: pip install -e '.[parity]'")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="fail if any test was skipped, or none ran")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not session.config.getoption("--no-skips"):
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and (reporter.stats.get("skipped") or not reporter.stats.get("passed")):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED

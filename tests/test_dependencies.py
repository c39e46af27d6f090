"""Whatever is imported is declared in `pyproject.toml`, not only brought by something else."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
OURS = {path.stem for path in ROOT.iterdir() if path.is_dir() or path.suffix == ".py"}


def distributions(requirements: list[str]) -> set[str]:
    return {normal(re.split(r"[^\w.-]", requirement)[0]) for requirement in requirements}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def undeclared(sources: list[Path], declared: set[str]) -> list[str]:
    """The imports, in functions too, of what no declared distribution has, as "file: module"."""
    owners, found = packages_distributions(), []
    for path in sources:
        # A script finds those beside it.
        ours = OURS | sys.stdlib_module_names | {other.stem for other in path.parent.glob("*.py")}
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for module in {name.split(".")[0] for name in names} - ours:
                if not declared & {normal(owner) for owner in owners.get(module, [module])}:
                    found.append(f"{path.relative_to(ROOT)}: {module}")
    return found


def test_what_users_run_needs_only_what_they_are_told_to_install():
    scripts = [path for path in ROOT.glob("*.py") if path.name != "setup.py"]  # whose needs pip installs by itself
    sources = [*ROOT.glob("stableanimator_jax/**/*.py"), *ROOT.glob("configs/*.py"), *scripts]
    # With torch, an extra for comparing with it, `.pth` files can be read too.
    extras = [line for name in ("beam", "wandb", "heif", "evaluate", "app", "parity") for line in EXTRAS[name]]
    assert not undeclared(sources, distributions([*PROJECT["dependencies"], *extras]))


@pytest.mark.parametrize("folder", ["tests", "benchmarks", "examples"])
def test_what_developers_run_needs_only_what_they_are_told_to_install(folder):
    extras = [line for lines in EXTRAS.values() for line in lines]
    sources = list(ROOT.glob(f"{folder}/**/*.py"))
    assert sources
    assert not undeclared(sources, distributions([*PROJECT["dependencies"], *extras]))


def test_what_is_not_declared_is_found():
    assert f"{Path(__file__).relative_to(ROOT)}: pytest" in undeclared([Path(__file__)], set())

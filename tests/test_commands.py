"""What the commands are called, in the program of an installed package and as scripts of the repository."""

import os
import runpy
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from stableanimator_jax.commands import COMMANDS, as_called, called
from stableanimator_jax.scripts import main

ROOT = Path(__file__).parents[1]


def run(directory: Path, *argv: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, *argv],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    return done.returncode, done.stdout, done.stderr


def run_program(directory: Path, *argv: str) -> tuple[int, str, str]:
    return run(directory, "-m", "stableanimator_jax", *argv)


@pytest.mark.parametrize("name", COMMANDS)
def test_scripts_and_the_program_run_the_same(name):
    program = EntryPoint(name, COMMANDS[name].program, "console_scripts").load()
    assert program is runpy.run_path(str(ROOT / COMMANDS[name].script))["script"]


def test_the_program_is_installed():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"] == {
        "stableanimator": "stableanimator_jax.scripts.main:script"
    }
    assert callable(main.script)


@pytest.mark.parametrize(
    ("argv0", "sample", "line"),
    [
        ("/home/me/.venv/bin/stableanimator", "stableanimator sample", "stableanimator sample --help"),
        ("C:/venv/Scripts/stableanimator.exe", "stableanimator sample", "stableanimator sample --help"),
        ("sample.py", "sample.py", "python sample.py --help"),
        ("/clone/train.py", "sample.py", "python sample.py --help"),
        (
            "/lib/stableanimator_jax/__main__.py",
            "python -m stableanimator_jax sample",
            "python -m stableanimator_jax sample --help",
        ),
        ("/lib/pytest/__main__.py", "stableanimator sample", "stableanimator sample --help"),  # from Python
        ("", "stableanimator sample", "stableanimator sample --help"),
    ],
)
def test_a_command_is_called_as_the_user_called_it(monkeypatch, argv0, sample, line):
    monkeypatch.setattr("sys.argv", [argv0])
    assert called("sample") == sample
    assert as_called("stableanimator sample --help") == line
    assert as_called("a stableanimator") == "a stableanimator"


def test_help_imports_no_command():
    code = "import contextlib, sys; from stableanimator_jax.scripts.main import script; sys.argv = ['stableanimator']\n"
    code += "with contextlib.suppress(SystemExit): script()\n"
    code += "assert not {'jax', 'numpy', 'stableanimator_jax.scripts.sample.command'} & {*sys.modules}"
    status, out, err = run(ROOT, "-c", code)
    assert status == 0, err
    assert all(f"    {name} " in out for name in COMMANDS)


@pytest.mark.parametrize("argv", [["-h"], ["--help"]])
def test_help_is_no_error(tmp_path, argv):
    status, out, err = run_program(tmp_path, *argv)
    assert (status, err) == (0, "")
    assert "python -m stableanimator_jax COMMAND" in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_that_names_it_so(monkeypatch, capsys, name):
    """In an installed package: no script of the repository is spoken of, in the flags' help neither."""
    monkeypatch.setattr("sys.argv", ["/home/me/.local/bin/stableanimator", name, "--help"])
    with pytest.raises(SystemExit) as end:
        main.script()
    said = capsys.readouterr()
    assert (end.value.code, said.err) == (0, "")
    assert f"stableanimator {name}" in said.out
    assert not [command.script for command in COMMANDS.values() if command.script in said.out]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["smaple"], "unknown command 'smaple'; did you mean sample? (see python -m stableanimator_jax --help)"),
        (["--steps"], "unknown command '--steps': give one of sample, train, convert, prepare, evaluate, app"),
        (["convert", "dance"], "(see python -m stableanimator_jax convert --help)"),
        (["sample", "--setps", "3"], "did you mean --steps"),
    ],
)
def test_what_is_wrong_is_one_line_and_status_2(tmp_path, argv, message):
    status, out, err = run_program(tmp_path, *argv)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_the_version(tmp_path):
    version = runpy.run_path(str(ROOT / "stableanimator_jax/__init__.py"))["__version__"]
    assert run_program(tmp_path, "--version") == (0, f"stableanimator_jax {version}\n", "")

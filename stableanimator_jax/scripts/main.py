"""One program for all commands."""

import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, version
from typing import NoReturn

from stableanimator_jax.commands import COMMANDS, program
from stableanimator_jax.scripts.cli import leave, run_script, unknown_command


def script() -> NoReturn:
    """The program `stableanimator`, or `python -m stableanimator_jax`."""
    argv = sys.argv[1:]
    if argv and argv[0] in COMMANDS:
        EntryPoint(argv[0], COMMANDS[argv[0]].program, "console_scripts").load()(argv[1:])
    leave(run_script(_without_command, argv))


def _without_command(argv: Sequence[str]) -> None:
    """Help, the version, or an `InputError`."""
    prog = program() or "stableanimator"
    if not argv or argv[0] in ("-h", "--help"):
        print(f"StableAnimator in JAX/Flax: identity-preserving human image animation.\n\n    {prog} COMMAND ...\n")
        print("\n".join(f"    {name:<12}{command.what}" for name, command in COMMANDS.items()))
        print(f"\n`{prog} COMMAND --help` explains a command. `{prog} sample`, alone, animates an example.")
    elif argv[0] == "--version":
        print(f"stableanimator_jax {version('stableanimator-jax')}")
    else:
        raise unknown_command(argv[0], COMMANDS, prog=prog)

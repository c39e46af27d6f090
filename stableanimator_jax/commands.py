"""The commands: what each is called, and where its program is.

An installed package has them as one program, `stableanimator sample`; the repository also as scripts, `sample.py`.
"""

import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Command:
    """One of them. `program` is "module:function", imported when it is asked for: what it needs is slow to import."""

    script: str
    program: str
    what: str


COMMANDS = {
    "sample": Command("sample.py", "stableanimator_jax.scripts.sample.command:script", "animate a person"),
    "train": Command("train.py", "stableanimator_jax.scripts.train.command:script", "train or finetune"),
    "convert": Command(
        "convert_weights.py", "stableanimator_jax.scripts.convert.command:script", "bring published weights in"
    ),
    "prepare": Command("prepare_data.py", "stableanimator_jax.scripts.prepare.command:script", "make training data"),
    "evaluate": Command("evaluate.py", "stableanimator_jax.scripts.evaluate.command:script", "measure videos"),
    "app": Command("app.py", "stableanimator_jax.scripts.app.command:script", "animate a person in a browser"),
}


def program() -> str | None:
    """What the user called that has all commands; None where it was a script of the repository, which is one."""
    path = Path((sys.argv or [""])[0])
    if path.name in {command.script for command in COMMANDS.values()}:
        return None
    as_module = path.parts[-2:] == ("stableanimator_jax", "__main__.py")
    return "python -m stableanimator_jax" if as_module else "stableanimator"


def called(name: str) -> str:
    """What the user calls one of `COMMANDS` here, for usage and messages: "stableanimator sample", or "sample.py"."""
    whole = program()
    return COMMANDS[name].script if whole is None else f"{whole} {name}"


def as_called(text: str) -> str:
    """A text about commands, with "stableanimator sample" replaced by what the user types here."""
    python = "python " if program() is None else ""
    for name in COMMANDS:
        text = text.replace(f"stableanimator {name}", python + called(name))
    return text

"""What README and docs tell users to type: commands, flags and configs that there are.

`.ci/run` runs the README's two commands, `slow/test_page_commands.py` what else can be run; `test_python_page.py`,
`test_readme.py` and `test_notebook.py` run Python.
"""

import io
import re
import shlex
import tomllib
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from unittest.mock import patch

import pytest

import stableanimator_jax
from stableanimator_jax.commands import COMMANDS
from stableanimator_jax.scripts.main import script
from stableanimator_jax.scripts.shipped_configs import shipped_configs
from tests.page_commands import PAGES, ROOT, blocks, needs

SUBCOMMANDS = {"convert": ("import", "export", "inspect"), "prepare": ("videos", "faces", "encode")}
SETTINGS = ("sample", "train", "evaluate")


def commands(page: Path) -> list[list[str]]:
    """Words of every whole `stableanimator` command in the page's blocks of bash, and in its `code`."""
    inline = re.findall(r"(?<!`)`(stableanimator [^`]+)`(?!`)", page.read_text(encoding="utf-8"))
    found = []
    for line in blocks(page) + inline:
        words = shlex.split(line, comments=True)
        if "stableanimator" in words and words.index("stableanimator") + 1 < len(words):
            found.append(words[words.index("stableanimator") + 1 :])
    return found


@cache
def help_of(*words: str) -> str:
    out = io.StringIO()
    called = patch("sys.argv", ["stableanimator", *words, "--help"])
    with called, redirect_stdout(out), pytest.raises(SystemExit) as left:
        script()
    assert left.value.code == 0
    return out.getvalue()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_commands_flags_and_config_are_there(page):
    for name, *words in commands(page):
        if name.startswith("-") or "COMMAND" in (name, *words[:1]):
            continue
        assert name in COMMANDS, f"{name} {words}"
        if words and words[0] in SUBCOMMANDS.get(name, ()):
            known = help_of(name, words[0])
        elif name in SUBCOMMANDS or (name == "evaluate" and words[:1] in (["merge"], ["compare"])):
            known = help_of(name, *[word for word in words[:1] if not word.startswith("-")])
        else:
            known = help_of(name)
            if name in SETTINGS and words and re.fullmatch(r"[a-z0-9_]+", words[0]):
                assert words[0] in shipped_configs(), f"{name} {words}"
        for word in words:
            if word.startswith("--") and word not in ("--help", "--list-configs", "--flag"):
                assert re.search(rf"{re.escape(word.split('=')[0])}[\s,]", known), f"{name}: {word}"


def test_what_is_run_of_the_pages():
    found = [(page.name, command.split()[:4]) for page in PAGES for command in blocks(page) if needs(command) is None]
    assert found == [
        ("control.md", ["stableanimator", "sample", "--pose.strength", "0.8"]),
        ("drawn_world.md", ["python", "-m", "examples.drawn_world", "glasses"]),
        ("drawn_world.md", ["python", "-m", "examples.drawn_world", "limits"]),
        ("evaluation.md", ["python", "-m", "examples.drawn_world", "dataset"]),
        ("evaluation.md", ["stableanimator", "evaluate", "--checkpoint", "embedded"]),
        ("training.md", ["python", "-m", "examples.drawn_world", "dataset"]),
        ("training.md", ["stableanimator", "train", "train_tiny", "--data.dataset"]),
    ]


def test_the_site_has_every_page_once():
    nav = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]
    listed = re.findall(r"'([\w./]+\.md)'", repr(nav))
    assert sorted(listed) == [page.name for page in PAGES[1:]]


def test_the_reference_has_every_public_name():
    page = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    shown = {path.rsplit(".", 1)[-1] for path in re.findall(r"^::: (\S+)$", page, re.MULTILINE)}
    assert shown == set(stableanimator_jax.__all__)

"""What pyproject.toml cannot say: configs/ goes into the wheel, and a package index shows a README of its own."""

import re
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """`configs/` becomes `stableanimator_jax/configs/`, where commands find them by name. A clone keeps its own."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            folder = Path(self.build_lib, "stableanimator_jax", "configs")
            folder.mkdir(parents=True, exist_ok=True)
            for file in Path("configs").glob("*.py"):
                self.copy_file(str(file), str(folder / file.name))


def without_files_of_the_repository(text: str) -> str:
    """The README without its pictures, and with the text alone of links that lead to other files."""
    text = re.sub(r"^ *(<img .*>|!\[.*\]\(.*\))\n+", "", text, flags=re.MULTILINE)
    return re.sub(r"\[([^\]]+)\]\((?!\w+:)[^)]+\)", r"\1", text)


setup(
    cmdclass={"build_py": BuildWithConfigs},
    long_description=without_files_of_the_repository(Path("README.md").read_text(encoding="utf-8")),
    long_description_content_type="text/markdown",
)

"""What goes into the wheel and the source archive, and what the Dockerfile does."""

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILD = "import sys; from setuptools import build_meta as b; getattr(b, 'build_' + sys.argv[1])(sys.argv[2])"


def build(kind: str, source: Path, into: Path) -> Path:
    before = set(into.iterdir())
    subprocess.run([sys.executable, "-c", BUILD, kind, str(into)], cwd=source, check=True, capture_output=True)
    (made,) = set(into.iterdir()) - before
    return made


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(source archive, wheel), the wheel out of what is in the archive."""
    work = tmp_path_factory.mktemp("packaging")
    source, made = work / "source", work / "made"
    made.mkdir()
    source.mkdir()
    for name in ("stableanimator_jax", "configs", "tests/scripts"):
        shutil.copytree(ROOT / name, source / name)  # with what Python and editors leave there
    for path in [*ROOT.glob("*.*"), ROOT / "LICENSE", *ROOT.glob("tests/*.py")]:
        if path.is_file():
            shutil.copy(path, source / path.relative_to(ROOT))
    archive = build("sdist", source, made)
    with tarfile.open(archive) as tar:
        tar.extractall(work / "unpacked", filter="data")
    (unpacked,) = (work / "unpacked").iterdir()
    return archive, build("wheel", unpacked, made)


def files(folder: str, pattern: str = "**/*") -> set[str]:
    paths = (path for path in (ROOT / folder).glob(pattern) if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT).as_posix() for path in paths}


@pytest.mark.long
def test_the_wheel_has_the_package_its_weights_and_the_configs(archives: tuple[Path, Path]):
    with zipfile.ZipFile(archives[1]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    package = files("stableanimator_jax")
    assert "stableanimator_jax/assets/weights/config.json" in package
    assert names == package | {f"stableanimator_jax/{name}" for name in files("configs", "*.py")}


@pytest.mark.long
def test_the_source_archive_is_what_the_wheel_is_built_of(archives: tuple[Path, Path]):
    with tarfile.open(archives[0]) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert files("stableanimator_jax") | files("configs", "*.py") <= names
    assert {
        "sample.py",
        "train.py",
        "convert_weights.py",
        "prepare_data.py",
        "evaluate.py",
        "app.py",
        "setup.py",
        "LICENSE",
    } <= names
    assert not [name for name in names if name.startswith("tests") or "__pycache__" in name]


@pytest.mark.long
def test_the_page_of_a_package_index_has_no_dead_links(archives: tuple[Path, Path]):
    with zipfile.ZipFile(archives[1]) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = message_from_bytes(wheel.read(name))
    assert metadata["Author"] == "the stableanimator_jax authors"
    assert metadata["Description-Content-Type"] == "text/markdown"
    text = metadata.get_payload()
    assert isinstance(text, str)
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links
    assert all(link.startswith("https://") for link in links)
    assert "<img" not in text
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^#.*$|^```(?:.|\n)*?^```$", text, re.M) == re.findall(
        r"^#.*$|^```(?:.|\n)*?^```$", readme, re.M
    )


def test_the_dockerfile_installs_as_the_readme_says():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"^RUN (.*)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.M)
    system, install, cuda = lines
    libraries = re.search(r"install -y --no-install-recommends (.*?) &&", system)
    assert libraries is not None
    assert f"`apt-get install {libraries[1]}`" in readme
    assert f"\n{install} && .venv/bin/python sample.py\n" in readme
    assert re.search(rf"^{re.escape(cuda)}\s", readme, re.M)

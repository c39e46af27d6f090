"""Config files and flags, and how scripts end."""

import io
import os
import pickle
import runpy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from tqdm import tqdm

from stableanimator_jax.config import StableAnimatorConfig
from stableanimator_jax.errors import InputError, printable
from stableanimator_jax.scripts.cli import config_file, flag_value, parse, run_script
from stableanimator_jax.scripts.sample.settings import SampleConfig
from stableanimator_jax.training.config import TrainConfig
from tests.scripts.sample_script import ROOT


@dataclass(frozen=True)
class Part:
    """A part of it."""

    learning_rate: float = 1e-5
    """How fast."""
    names: tuple[str, ...] = ("a",)


@dataclass(frozen=True)
class Whole:
    kind: Literal["small", "large"] = "small"
    folder: Path | None = None
    part: Part = field(default_factory=Part)

    def __post_init__(self):
        if self.part.learning_rate <= 0:
            raise InputError("learning-rate must be positive\nand small")


def parsed(*argv: str, default: Whole = Whole()) -> Whole:
    return parse(argv, default, prog="test.py", description="Test.")


def test_flags_override_the_default():
    default = Whole(kind="large", folder=Path("x"))
    assert parsed(default=default) == default
    assert parsed("--part.learning-rate", "3", "--part.names", "b", "c", default=default) == Whole(
        "large", Path("x"), Part(3.0, ("b", "c"))
    )


def test_config_file_then_flags(tmp_path):
    file = tmp_path / "large.py"
    file.write_text(
        "from tests.scripts.test_cli import Part, Whole\n"
        "def get_config():\n"
        "    return Whole(kind='large', part=Part(learning_rate=0.5))\n"
    )
    assert parsed(str(file), "--part.names", "z") == Whole("large", None, Part(0.5, ("z",)))
    assert config_file([str(file), "--kind", "small"], Whole())[1] == ["--kind", "small"]


def test_config_file_may_give_text_for_a_path(tmp_path):
    file = tmp_path / "config.py"
    file.write_text("from tests.scripts.test_cli import Whole\nget_config = lambda: Whole(folder='x')")
    assert config_file([str(file)], Whole())[0] == Whole(folder=Path("x"))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--part.learning-rat", "3"], "unrecognized options: .*; did you mean --part.learning-rate"),
        (["--kind", "medium"], r"invalid choice 'medium' for argument '--kind'. Expected one of \('small', 'large'\)"),
        (["--part.learning-rate", "fast"], "error parsing --part.learning-rate: could not convert string to float"),
        (["--kind", "small", "stray"], "unrecognized options: stray"),
        (["--part.learning-rate", "0"], "^learning-rate must be positive\nand small$"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_wrong_flags(monkeypatch, argv, message, encoding):
    """Whichever way tyro draws its box: it goes by the encoding of stdout."""
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    with pytest.raises(InputError, match=message) as error:
        parsed(*argv)
    assert not set(str(error.value)) & set("│─╭╰")
    assert "----" not in str(error.value)


def test_help_is_no_error(capsys):
    assert run_script(lambda argv: print(parsed(*argv)), ["--help"]) == 0
    said = capsys.readouterr()
    assert "--part.learning-rate FLOAT" in said.out
    assert "How fast." in said.out
    assert said.err == ""


def test_flag_value():
    assert flag_value(["--a", "1", "--from-json", "x"], "--from-json") == "x"
    assert flag_value(["--from_json=x=y", "--a"], "--from-json") == "x=y"
    assert flag_value(["--from-json", "x", "--from-json", "y"], "--from-json") == "y"
    assert flag_value(["--a", "--from-json"], "--from-json") is None
    assert flag_value([], "--from-json") is None


def test_ends(capsys):
    assert run_script(lambda argv: print(*argv), ["a", "b"]) == 0
    assert capsys.readouterr() == ("a b\n", "")
    assert run_script(lambda argv: print(parsed("--part.learning-rate", "0")), []) == 2
    assert capsys.readouterr() == ("", "error: learning-rate must be positive; and small\n")  # one line
    assert run_script(lambda argv: print(bytearray(2**62)), []) == 2
    assert capsys.readouterr() == ("", "error: not enough memory for this\n")
    with pytest.raises(ZeroDivisionError):
        run_script(lambda argv: print(1 / 0), [])


def test_the_last_line_is_ours_though_a_bar_is_left_in_a_generator(capsys):
    def numbers():
        yield from tqdm(range(9), "numbers")

    kept = []

    def interrupted(argv):
        kept.append(numbers())
        next(kept[0])
        raise KeyboardInterrupt

    assert run_script(interrupted, []) == 130
    kept.clear()
    lines = capsys.readouterr().err.splitlines()
    assert any("numbers" in line for line in lines)
    assert lines[-1] == "interrupted: nothing half-written is left"


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("[!_]*.py")), ids=lambda path: path.stem)
def test_configs(path):
    """Each is of use as it is, and says how to run it."""
    default = TrainConfig() if path.stem.startswith("train_") else SampleConfig()
    config, rest = config_file([str(path)], default)
    assert not rest
    script = "train.py" if isinstance(config, TrainConfig) else "sample.py"
    assert f"python {script} configs/{path.name}" in runpy.run_path(str(path))["__doc__"]
    if isinstance(config, TrainConfig):
        return
    multiple = StableAnimatorConfig().size_multiple
    assert config.width is not None
    assert config.height is not None
    assert config.width % multiple == config.height % multiple == 0


def test_configs_are_found_by_name(tmp_path, monkeypatch):
    """Wherever the user is."""
    monkeypatch.chdir(tmp_path)
    for name in ("stableanimator_512", "svd"):
        file = ROOT / "configs" / f"{name}.py"
        assert config_file([name], SampleConfig()) == config_file([str(file)], SampleConfig())
    assert config_file(["train_512", "--steps", "3"], TrainConfig())[1] == ["--steps", "3"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "stableanimator_521",
            "config stableanimator_521; did you mean stableanimator_512 or stableanimator_576x1024?",
        ),
        ("configs/stableanimator_512", r"config configs/stableanimator_512; did you mean stableanimator_512"),
        ("me.jpg", r"config me\.jpg; give a CONFIG\.py, or a name of --list-configs"),
        ("__init__", "there is no config __init__; "),
        ("train_512", "train_512.py is for another script"),
    ],
)
def test_wrong_names_of_configs(name, message):
    with pytest.raises(InputError, match=message):
        config_file([name], SampleConfig())


@pytest.mark.parametrize(("kind", "count"), [(SampleConfig, 8), (TrainConfig, 4)])
def test_configs_are_listed(capsys, kind, count):
    """Those of the command that is asked, each with what it is."""
    assert run_script(lambda argv: print(config_file(argv, kind())), ["--list-configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == count
    assert all((ROOT / "configs" / f"{line.split()[0]}.py").exists() and line.endswith(".") for line in lines)


def test_a_name_that_is_no_utf8_is_printable_in_every_error():
    """Files, protocols and processes that take UTF-8 alone get what they can take."""
    name = os.fsdecode(b"\xd6\xd0.mkv")
    assert str(InputError(f"video {name} is missing")) == r"video \xd6\xd0.mkv is missing"
    assert str(pickle.loads(pickle.dumps(InputError(name)))) == r"\xd6\xd0.mkv"
    assert printable("\ud800") == r"\ud800"
    assert printable("å 中") == "å 中"
    assert printable("å".encode().decode("ascii", "surrogateescape")) == "å"  # as a C locale has it

"""What the scripts share: a dataclass from a config file and flags, and errors as one line."""

import contextlib
import dataclasses
import difflib
import io
import itertools
import os
import re
import runpy
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import tyro
from tqdm import tqdm

from stableanimator_jax.commands import as_called
from stableanimator_jax.config import checked
from stableanimator_jax.errors import InputError
from stableanimator_jax.files import require_local
from stableanimator_jax.interrupts import interruptible
from stableanimator_jax.scripts.shipped_configs import config_path, first_line, shipped_configs

T = TypeVar("T")


class _HelpPrinted(Exception):
    """There is nothing more to do."""


def run_script(main: Callable[[Sequence[str]], None], argv: Sequence[str] | None = None) -> int:
    """Run a script's `main(argv)` and return its exit status.

    Bad input (`InputError`), or too much of it (`MemoryError`), becomes one line on stderr and status 2, an interrupt
    (Ctrl-C, SIGTERM) one line and status 130, a reader of our output that went away (`… | head`) status 141.
    Anything else is a bug in this program and keeps its traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name may be in letters that it cannot show
    try:
        with interruptible(), _plain_warnings():
            with contextlib.suppress(_HelpPrinted):
                main(sys.argv[1:] if argv is None else argv)
            sys.stdout.flush()  # here, where a reader that went away is still handled
    except InputError as e:
        status, told = 2, f"error: {_joined(str(e))}"
    except MemoryError as e:
        status, told = 2, f"error: {_one_line(f'not enough memory for this: {e}').rstrip(': ')}"
    except KeyboardInterrupt as e:
        status, told = 130, str(e) or "interrupted: nothing half-written is left"
    except BrokenPipeError:
        # Python flushes stdout once more on its way out, which would fail again, noisily.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    else:
        return 0
    _close_bars()
    print(told, file=sys.stderr)
    return status


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Warnings become one line each, for people, without the place in the code."""
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"warning: {_one_line(str(message))}\n"
    try:
        yield
    finally:
        warnings.formatwarning = before


def _close_bars() -> None:
    """End all progress bars, so that our last line stays the last.

    A bar inside a generator that nobody asks any more would else be drawn once again when Python clears it away.
    """
    for bar in list(tqdm._instances):  # pyright: ignore[reportAttributeAccessIssue]
        bar.close()


def leave(status: int, *, at_once: bool = False) -> NoReturn:
    """End the program with what `run_script` gave; `at_once` without waiting for other processes of the same run.

    After an interrupt the device may still be computing for arrays that nobody waits for; if Python took itself down
    around that, it would crash now and then. All files are closed by then, so it just stops.
    """
    if status == 130 or at_once:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)
    sys.exit(status)


def run_command(
    argv: Sequence[str], commands: Mapping[str, Callable[[Sequence[str]], None]], *, prog: str, description: str
) -> None:
    """Run the command that `argv` begins with, with the flags that follow it; `--help` alone prints `description`.

    Raises:
        InputError: there is no such command (the nearest one is named), or what the command raises.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(as_called(description).strip())
        return
    if argv[0] not in commands:
        raise unknown_command(argv[0], commands, prog=prog)
    commands[argv[0]](argv[1:])


def unknown_command(name: str, commands: Iterable[str], *, prog: str) -> InputError:
    """The error that says so, and names the nearest one."""
    near = difflib.get_close_matches(name, commands, n=1)
    meant = f"; did you mean {near[0]}?" if near else f": give one of {', '.join(commands)}"
    return InputError(f"unknown command {name!r}{meant} (see {prog} --help)")


def parse(argv: Sequence[str], default: T, *, prog: str, description: str) -> T:
    """A configuration from the command line: `[CONFIG] [--flag value ...]`.

    Args:
        argv: the arguments after the script's name. A first one that is no flag is a config file (as `config_file`
            finds it), whose `get_config()` gives the values that the flags override; without one they override
            `default`.
        default: a dataclass; its type decides the flags, its docstrings `--help`.

    Raises:
        InputError: the config file cannot be used, or a flag is unknown (the nearest one is named), has a bad value, or
            names a URL where a path is wanted.
        _HelpPrinted: `--help` was asked for; `run_script` ends well on it.
    """
    default, flags = config_file(argv, default)
    return parse_flags(flags, default, prog=prog, description=description)


def config_file(argv: Sequence[str], default: T) -> tuple[T, Sequence[str]]:
    """Split a leading config off `argv` and load it: (its configuration or else `default`, the flags left).

    It is a file `CONFIG.py`, or the name of one that comes with the package; `--list-configs` prints those that give
    `default`'s type.

    Raises:
        InputError: the file is missing, fails, or gives something other than `default`'s type.
        _HelpPrinted: they were listed.
    """
    if "--list-configs" in argv:
        _list_configs(type(default))
        raise _HelpPrinted
    if not argv or argv[0].startswith("-"):
        return default, argv
    path = config_path(argv[0])
    get_config = _load(path).get("get_config")
    if not callable(get_config):
        raise InputError(f"config file {path} has no get_config() function")
    try:
        config = get_config()
    except InputError as e:
        raise InputError(f"config file {path}: {e}") from e
    except (Exception, SystemExit) as e:
        raise InputError(f"config file {path}: get_config() failed: {type(e).__name__}: {e}") from e
    if not isinstance(config, type(default)):
        raise InputError(
            f"config file {path} is for another script: what its get_config() gives is of type "
            f"{type(config).__name__}, not {type(default).__name__}"
        )
    try:
        return checked(config), argv[1:]
    except InputError as e:
        raise InputError(f"config file {path}: {e}") from e


def _list_configs(kind: type) -> None:
    for name, path in shipped_configs().items():
        if isinstance(_load(path)["get_config"](), kind):
            print(f"{name:<26}{as_called(first_line(path))}")


def parse_flags(argv: Sequence[str], default: T, *, prog: str, description: str) -> T:
    """Override fields of the dataclass `default` by `--flag value`; as `parse`, without a config file."""
    # tyro draws its complaints into a box on stderr and exits: caught here and made one line like every other.
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            config = tyro.cli(
                type(default),
                default=default,
                args=list(argv),
                prog=prog,
                description=as_called(description),
                config=(tyro.conf.DisallowNone,),  # `--reference None` is a file's name
            )
    except SystemExit as e:
        if not e.code:
            raise _HelpPrinted from None
        raise InputError(_validation_error(e) or f"{_unboxed(complaint.getvalue())} (see {prog} --help)") from None
    _require_local_paths(config)
    return config


def _require_local_paths(value: Any) -> None:
    if isinstance(value, Path):
        require_local(value)
    elif isinstance(value, tuple):
        for part in value:
            _require_local_paths(part)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            _require_local_paths(getattr(value, field.name))


def flag_value(argv: Sequence[str], flag: str) -> str | None:
    """The last value given for `flag` (as "--from-json"), before the whole line is parsed; None where there is none."""
    value = None
    for argument, following in itertools.zip_longest(argv, argv[1:]):
        name, equals, attached = argument.partition("=")
        if name.replace("_", "-") == flag:
            value = attached if equals else following
    return value


def _load(path: Path) -> dict[str, Any]:
    """The names that a Python file defines."""
    try:
        if not path.is_file():
            raise InputError(f"config file {path} does not exist")
        return runpy.run_path(str(path))
    except InputError:
        raise
    except (Exception, SystemExit) as e:
        raise InputError(f"config file {path} cannot be loaded: {type(e).__name__}: {e}") from e


def _validation_error(error: BaseException) -> str | None:
    """The message of the `InputError`, raised by a dataclass when made, that `error` came from."""
    cause = error.__context__
    while cause is not None and not isinstance(cause, InputError):
        cause = cause.__context__
    return None if cause is None else str(cause)


def _unboxed(box: str) -> str:
    """tyro's boxed complaint as one line: what is wrong, then the flags that may have been meant."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", box)
    # A title, then sections between rules; drawn with "│" and "─", or plainly where the output is not UTF-8.
    lines = [line.strip(" │╭╮╰╯") for line in text.splitlines()[1:]]
    runs = itertools.groupby(lines, lambda line: re.fullmatch("─{4,}|-{4,}", line) is not None)
    sections = [list(run) for is_rule, run in runs if not is_rule]
    if not sections:
        return _one_line(text)
    message = " ".join(sections[0]).strip()
    alike = [s for s in sections[1:] if s[0].startswith(("Perhaps you meant", "Arguments similar to"))]
    meant = [line.split()[0].rstrip(",") for section in alike for line in section if line.startswith("--")]
    return message[:1].lower() + message[1:] + (f"; did you mean {' or '.join(meant[:3])}?" if meant else "")


def _joined(message: str) -> str:
    """A message of several lines, one a problem, as one line."""
    return "; ".join(line for part in message.splitlines() if (line := _one_line(part)))


def _one_line(text: str) -> str:
    return " ".join(text.split())

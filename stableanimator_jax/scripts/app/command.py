"""Serve a page on which people are animated in a browser.

    stableanimator app                                           drawn people, with the weights in this package
    stableanimator app --checkpoint DIR --dwpose models/DWPose --insightface-root models/antelopev2

Open the address that it prints. One job runs at a time; others wait, and see their place. Visitors' files are deleted
when they leave, and all of them when the page ends (Ctrl-C). docs/app.md says more. It needs the extra `app`:
pip install 'stableanimator-jax[app]'.

Exit status: 0 done, 2 something in the input is wrong (one line on stderr says what), 130 interrupted.
"""

import dataclasses
import importlib.util
from collections.abc import Sequence
from typing import NoReturn

from stableanimator_jax.commands import called
from stableanimator_jax.errors import InputError
from stableanimator_jax.files import absolute_path
from stableanimator_jax.scripts.app.settings import AppConfig
from stableanimator_jax.scripts.cli import leave, parse_flags, run_script


def main(argv: Sequence[str]) -> None:
    """Parse the command line and serve. Raises `InputError`."""
    config = parse_flags(argv, AppConfig(), prog=called("app"), description=__doc__ or "")
    if importlib.util.find_spec("gradio") is None:
        raise InputError("the page needs gradio: pip install 'stableanimator-jax[app]', or pip install -e '.[app]'")
    dwpose, insightface_root = (path and absolute_path(path) for path in (config.dwpose, config.insightface_root))

    from stableanimator_jax.scripts.app.serving import serve  # gradio, OpenCV and JAX: slow, and not for --help

    serve(dataclasses.replace(config, dwpose=dwpose, insightface_root=insightface_root))


def script(argv: Sequence[str] | None = None) -> NoReturn:
    """The program `app.py`, or `stableanimator app`."""
    leave(run_script(main, argv))

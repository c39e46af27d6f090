"""One page for the tests of a file.

gradio's server leaves sockets and event loops to the garbage collector (6.31): `UNCLOSED` passes over them, and they
are collected before the tests of another file begin.
"""

import asyncio
import gc
import socket
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import gradio as gr
import pytest

from stableanimator_jax.scripts.app.serving import open_page
from stableanimator_jax.scripts.app.settings import AppConfig
from stableanimator_jax.scripts.app.work import Workshop

UNCLOSED = pytest.mark.filterwarnings("ignore:unclosed (event loop|<socket):ResourceWarning")


class Served(NamedTuple):
    page: gr.Blocks
    workshop: Workshop
    address: str


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def collected() -> Iterator[None]:
    """For `served`, whose value pytest holds until it is torn down. gradio would leave this thread a loop, unclosed."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        gc.collect()


@pytest.fixture(scope="module")
def served(collected) -> Iterator[Served]:
    with open_page(AppConfig(port=free_port(), max_frames=40, max_upload_mb=1, max_side=128)) as served:
        yield Served(*served)
    assert not served[1].root.exists()

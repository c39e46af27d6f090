"""The page served, its files in a folder that goes with it."""

import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import gradio as gr

from stableanimator_jax.errors import InputError
from stableanimator_jax.scripts.app.form import base_config
from stableanimator_jax.scripts.app.page import CSS, build
from stableanimator_jax.scripts.app.settings import AppConfig
from stableanimator_jax.scripts.app.work import Workshop
from stableanimator_jax.shipped import EMBEDDED
from stableanimator_jax.weights.opening import open_checkpoint


def serve(app: AppConfig) -> None:
    """Serve the page until it is interrupted. Raises `InputError` where it cannot be served."""
    with open_page(app) as (page, _, address):
        print(f"the page is at {address} (Ctrl-C ends it)", flush=True)
        page.block_thread()


@contextlib.contextmanager
def open_page(app: AppConfig) -> Iterator[tuple[gr.Blocks, Workshop, str]]:
    """The page, served within the block by other threads; at its end all jobs and files of visitors go.

    Raises:
        InputError: the checkpoint cannot be used, or the address is taken.
    """
    if app.checkpoint != EMBEDDED:
        open_checkpoint(app.checkpoint)
    base_config(app)
    _require_free(app)
    with tempfile.TemporaryDirectory(prefix="stableanimator-app-", ignore_cleanup_errors=True) as folder:
        workshop = Workshop(app, Path(folder).resolve())
        with _uploads_in(workshop.cache):
            page = build(workshop)
            workshop.visitors.shipped = {path for path in workshop.cache.rglob("*") if path.is_file()}
            _, address, _ = page.launch(
                server_name=app.host,
                server_port=app.port,
                max_file_size=app.max_upload_mb * 10**6,
                css=CSS,
                allowed_paths=[],
                prevent_thread_lock=True,
                quiet=True,
                share=False,
                footer_links=[],
                run_history=False,
                enable_monitoring=False,
                ssr_mode=False,
                app_kwargs={"docs_url": None, "redoc_url": None, "openapi_url": None},
            )
            try:
                yield page, workshop, address
            finally:
                workshop.visitors.all_leave()
                page.close(verbose=False)


def _require_free(app: AppConfig) -> None:
    """Raise `InputError` where the page could not listen, before gradio's server says so in its own words."""
    try:
        family, *_, address = socket.getaddrinfo(app.host, app.port, type=socket.SOCK_STREAM)[0]
        socket.create_server(address[:2], family=family).close()
    except (OSError, UnicodeError) as e:
        raise InputError(f"cannot listen at {app.host}:{app.port}: give another --host or --port") from e


@contextlib.contextmanager
def _uploads_in(folder: Path) -> Iterator[None]:
    """Within the block gradio keeps all of its files there."""
    names = {"GRADIO_TEMP_DIR": str(folder), "GRADIO_ANALYTICS_ENABLED": "False"}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value

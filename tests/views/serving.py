"""Real kernels, servers on loopback and a browser, each with a time limit: what the browser tests share."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from psodlib.views.notebooks import notebooks_running

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
needs_chromium = pytest.mark.skipif(
    not Path(CHROMIUM).exists(), reason="chromium is not installed (apt-get install chromium)"
)
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run",
]  # fmt: skip


def run_notebook(path: Path, parameters: dict[str, Any] | None = None) -> Any:
    """A notebook run from top to bottom in a kernel of its own, with some of its parameters replaced."""
    with notebooks_running({path: parameters or {}}, 1) as running:
        return running[path].result()


@contextmanager
def jupyterlab(work: Path) -> Iterator[tuple[str, str]]:
    """JupyterLab over a folder: its address and token."""
    token = secrets.token_hex(16)
    options = [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={work}", "--LabApp.news_url=", "--LabApp.expose_app_in_browser=True",
               "--ip=127.0.0.1", "--allow-root"]  # fmt: skip
    with _served(["jupyterlab", *options], work, "/api") as root:
        yield root, token


@contextmanager
def voila(notebook: Path) -> Iterator[str]:
    """Voila serving one notebook: its address."""
    options = [notebook.name, "--Voila.ip=127.0.0.1", "--show_tracebacks=True"]
    with _served(["voila", *options], notebook.parent, "/static/") as root:
        yield root


@contextmanager
def _served(arguments: list[str], work: Path, ready: str) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # The tree under test, whatever is installed; none of the person's own settings.
    homes = {name: str(work / f".{name}") for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")}
    environment = {**os.environ, **homes, "HOME": str(work), "PYTHONPATH": str(Path(__file__).parents[2])}
    log = work / "server.log"
    with log.open("wb") as told:
        command = [sys.executable, "-m", *arguments, "--no-browser", f"--port={port}"]
        server = subprocess.Popen(command, cwd=work, env=environment, stdout=told, stderr=told)
        try:
            _wait_for(f"http://127.0.0.1:{port}{ready}", server, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait(5)


def _wait_for(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except urllib.error.HTTPError as error:  # refused without a token, or no such page: it is up
            error.close()
            return
        except OSError:
            time.sleep(0.25)
    pytest.fail(f"the server did not come up: {log.read_text()[-2000:]}")


@contextmanager
def chromium_page(width: int = 1280, height: int = 1100) -> Iterator[Any]:
    """A page of a fresh browser that asks nobody but loopback."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=30_000)
        page = browser.new_context(viewport={"width": width, "height": height}).new_page()
        page.set_default_timeout(20_000)
        yield page
        browser.close()


def run_all(page: Any, address: str) -> None:
    """Open a notebook in JupyterLab and run its cells, once its kernel is idle: before, Lab drops all but the first."""
    from playwright.sync_api import expect

    page.goto(address, timeout=30_000)
    expect(page.locator(".jp-NotebookPanel .jp-Cell").first).to_be_visible(timeout=30_000)
    expect(page.get_by_text("Python 3 (ipykernel) | Idle")).to_be_visible(timeout=40_000)
    news = page.get_by_role("button", name="No", exact=True)
    if news.count():
        news.first.click()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()

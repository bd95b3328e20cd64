"""A server on loopback and Chromium, for tests of what a person clicks."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import nbformat
import psutil
import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
QUIET = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync", "--disable-quic"]
CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
PATIENCE = 180_000  # milliseconds: a busy machine answers late
BIG = '{"websocket_max_message_size": 104857600}'

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


@contextmanager
def serve_lab(folder):
    """A JupyterLab over a folder; yields its URL with a place for the notebook's name.

    Tests that open one notebook share its kernel and its imports. Notebooks are never saved, tabs
    are not restored, and a kernel without a page ends after a minute.
    """
    options = {
        "ServerApp.root_dir": folder,
        "ServerApp.tornado_settings": BIG,
        "IdentityProvider.token": "test",
        "LabApp.news_url": "None",
        "LabApp.user_settings_dir": folder / "jupyter" / "settings",
    }
    cull = "MappingKernelManager.cull_"
    options |= {f"{cull}idle_timeout": 60, f"{cull}interval": 10}
    saving = folder / "jupyter" / "settings" / "@jupyterlab" / "docmanager-extension"
    saving.mkdir(parents=True)
    (saving / "plugin.jupyterlab-settings").write_text('{"autosave": false}')
    with _serve("jupyterlab", "ServerApp", folder, options) as url:
        yield f"{url}/lab/tree/{{}}?token=test&reset"


@contextmanager
def serve_app(notebook):
    """Voila with one notebook, as `make app` starts it, but looking for idle kernels every second.

    Yields its URL.

    A kernel counts as idle while it starts, which takes seconds on a busy machine: one that is
    forgotten sooner never answers.
    """
    options = {"Voila.tornado_settings": BIG}
    cull = "MappingKernelManager.cull_"
    options |= {f"{cull}idle_timeout": 60, f"{cull}interval": 1}
    with _serve("voila", "Voila", notebook.parent, options, str(notebook)) as url:
        yield url


@contextmanager
def _serve(module, name, folder, options, *arguments):
    options = {f"{name}.ip": "127.0.0.1"} | options
    options[f"{name}.port_retries"] = 0  # rather end than talk to another server
    command = [sys.executable, "-m", module, *arguments, "--no-browser"]
    command += ["--allow-root"] if module == "jupyterlab" else []
    command += [f"--{option}={value}" for option, value in options.items()]
    places = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    environment = os.environ | {place: str(folder / "jupyter" / place) for place in places}
    (folder / "jupyter" / "IPYTHONDIR").mkdir(parents=True)
    for _ in range(3):  # another worker's server may take a free port first
        port = _free_port()
        start = [*command, f"--{name}.port={port}"]
        with (folder / "server.log").open("w") as log:
            server = subprocess.Popen(start, stdout=log, stderr=log, env=environment, cwd=folder)
        url = f"http://127.0.0.1:{port}"
        try:
            if _answers(f"{url}/api", server):
                yield url
                return
        finally:
            _end(server)
    pytest.fail(f"The server did not start: {(folder / 'server.log').read_text()}")


def _free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _answers(url, server):
    """Wait until a server answers, if only by a refusal; false if it ends, or after minutes."""
    for _ in range(240):
        if server.poll() is not None:
            return False
        try:
            urllib.request.urlopen(url, timeout=120).close()
        except urllib.error.HTTPError:
            return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
        else:
            return True
    return False


def _end(server):
    server.terminate()
    try:
        server.wait(120)
    except subprocess.TimeoutExpired:
        server.kill()


def kernels():
    """The processes of all kernels that servers of this test have started."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if child.is_running() and "ipykernel" in _command(child)]


def _command(process):
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has just ended
        return ""


def wait_until_no_kernel():
    for _ in range(600):
        if not kernels():
            return
        time.sleep(0.5)
    pytest.fail("A kernel lives on after its page was closed.")


def write_notebook(path, text):
    """A notebook of code cells, with a line of dashes between them."""
    cells = [nbformat.v4.new_code_cell(part) for part in text.split("---\n")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, path)


def open_browser(playwright, *options):
    """Chromium, for `with`; the tests of a file share one, each with a page of its own."""
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE)
    return playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, *options])


@contextmanager
def new_page(browser, **options):
    """A page that shares nothing with others."""
    with browser.new_page(**options) as page:
        page.set_default_timeout(PATIENCE)
        yield page


def wait_until_it_listens(page, panels):
    """Until browser.js has found so many panels: a click before is lost."""
    page.wait_for_function(
        """n => {
            const panels = [...document.querySelectorAll(".dc-browser")];
            return panels.length >= n && panels.every((panel) => panel.dcInput);
        }""",
        arg=panels,
    )


@contextmanager
def open_and_run(browser, url):
    """A page on which all cells of a notebook have been started."""
    with new_page(browser, viewport={"width": 1200, "height": 1400}) as page:
        page.goto(url)
        page.locator(".jp-Notebook .jp-Cell").first.wait_for()
        page.get_by_text("| Idle").wait_for()  # the kernel is up
        page.locator("#jp-MainMenu").get_by_text("Run", exact=True).click()
        page.get_by_text("Run All Cells", exact=True).click()
        yield page


def show_state(page, name):
    """A screenshot, where the environment names a folder for them."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / name)

"""A real browser without a window, driven by its own DevTools protocol over a WebSocket."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

from tests.support.running import until

__all__ = ["Page", "chromium_page", "find_chromium"]

_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
_WAIT_S = 60


def find_chromium() -> str:
    """The path of the machine's Chromium or Chrome; empty if there is none on PATH."""
    return next((path for name in _NAMES if (path := shutil.which(name))), "")


class Page:
    """One page of the browser."""

    def __init__(self, link: ClientConnection) -> None:
        self._link = link
        self._numbers = itertools.count(1)

    def open(self, url: str) -> None:
        """Go to an address and wait until the page is whole."""
        self._ask("Page.navigate", url=url)
        shown = "document.readyState === 'complete' && location.href"
        until(lambda: str(self.tell(shown)).startswith(url), _WAIT_S, f"{url} in the browser")

    def tell(self, expression: str) -> Any:
        """The value of a JavaScript expression, or of the promise that it is."""
        answer = self._ask(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """Wait until an expression is true; its value."""
        return until(lambda: self.tell(expression), _WAIT_S, expression)

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._link.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._link.recv(timeout=_WAIT_S))
            if answer.get("id") == number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result


@contextlib.contextmanager
def chromium_page(program: str) -> Iterator[Page]:
    """A page of a browser of its own, which is gone at the end, with all that it kept."""
    profile = Path(tempfile.mkdtemp(prefix="hm-chromium-"))
    command = [program, "--headless=new", "--remote-debugging-port=0", f"--user-data-dir={profile}"]
    command += ["--no-first-run", "--no-proxy-server", "--disable-gpu", "--disable-dev-shm-usage"]
    if os.geteuid() == 0:
        # Chromium's sandbox does not work for root; it loads nothing here but pages of ours.
        command.append("--no-sandbox")
    log = (profile / "log").open("wb")
    browser = subprocess.Popen([*command, "about:blank"], stdout=log, stderr=log)
    try:
        port = _port(browser, profile)
        pages = httpx.get(f"http://127.0.0.1:{port}/json/list", trust_env=False).json()
        url = next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")
        with connect(url, proxy=None, max_size=None) as link:
            yield Page(link)
    finally:
        browser.terminate()
        try:
            browser.wait(20)
        except subprocess.TimeoutExpired:
            browser.kill()
            browser.wait()
        log.close()
        shutil.rmtree(profile, ignore_errors=True)


def _port(browser: subprocess.Popen[bytes], profile: Path) -> int:
    """Where the browser listens, which it writes down."""
    file = profile / "DevToolsActivePort"

    def written() -> str:
        assert browser.poll() is None, (profile / "log").read_text(errors="replace")[-2_000:]
        return file.read_text() if file.exists() else ""

    return int(until(written, _WAIT_S, "the browser's port").splitlines()[0])

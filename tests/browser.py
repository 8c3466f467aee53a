"""A headless Chromium for tests of pages, driven by ChromeDriver as the WebDriver standard (W3C) says.

    with Browser(width=1280, height=800) as browser:
        browser.open(path)
        browser.run("return document.title")

`reason()` says why there can be none, None if there can.
"""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Self

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
          "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
          "--disable-dev-shm-usage")  # fmt: skip
_KEYS = {"ArrowUp": "\ue013", "ArrowDown": "\ue015", "ArrowLeft": "\ue012", "ArrowRight": "\ue014", "Enter": "\ue007",
         "Escape": "\ue00c", "Tab": "\ue004"}  # fmt: skip
_START_SECONDS = 60


def reason() -> str | None:
    """Why there is no browser to test with."""
    if next(filter(None, map(shutil.which, _NAMES)), None) is None:
        return "needs a browser: Chromium or Chrome"
    return None if shutil.which("chromedriver") else "needs ChromeDriver (Debian: chromium-driver)"


class BrowserError(Exception):
    """What the browser has against a command."""


class Browser:
    """One window."""

    def __init__(self, width: int = 1280, height: int = 800, dark: bool = False) -> None:
        self._size = width, height
        self._dark = dark

    def __enter__(self) -> Self:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._folder = tempfile.TemporaryDirectory(prefix="graphc-browser-", ignore_cleanup_errors=True)
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=quiet, stderr=quiet)
        self._base = f"http://127.0.0.1:{port}"
        try:
            self._wait_for_driver()
            binary = next(filter(None, map(shutil.which, _NAMES)))
            flags = [*_FLAGS, f"--user-data-dir={self._folder.name}", "--window-size={},{}".format(*self._size)]
            options = {"binary": binary, "args": flags}
            made = self._send("POST", "/session", {"capabilities": {"alwaysMatch": {
                "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}}})
            self._base += f"/session/{made['sessionId']}"
            self.resize(*self._size)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        if "/session/" in self._base:
            self._send("DELETE", "", None)
        self._process.terminate()
        self._process.wait(10)
        self._folder.cleanup()

    def open(self, path: Path) -> None:
        """Load a file, and wait until it says that it is ready."""
        self._send("POST", "/url", {"url": path.resolve().as_uri()})
        deadline = time.monotonic() + 30
        while not self.run("return document.body && document.body.dataset.ready === 'true'"):
            if time.monotonic() > deadline:
                raise BrowserError(f"{path.name} did not become ready: {self.messages()}")
            time.sleep(0.02)

    def run(self, script: str, *args: Any) -> Any:
        """What a function of this body returns."""
        return self._send("POST", "/execute/sync", {"script": script, "args": list(args)})

    def settled(self) -> None:
        """Wait until what is to be drawn is drawn."""
        script = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()));"
        self._send("POST", "/execute/async", {"script": script, "args": []})

    def resize(self, width: int, height: int) -> None:
        """Give the page this size, in CSS pixels."""
        sizes = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._devtools("Emulation.setDeviceMetricsOverride", **sizes)
        self.prefer("dark" if self._dark else "light")

    def prefer(self, scheme: str) -> None:
        """Have the system prefer "light" or "dark"."""
        self._devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def keys(self, *names: str) -> None:
        """Press keys, one after another."""
        presses = [{"type": kind, "value": _KEYS.get(name, name)} for name in names for kind in ("keyDown", "keyUp")]
        self._send("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": presses}]})

    def click(self, x: float, y: float) -> None:
        """Click at a place of the page."""
        moves: list[dict[str, Any]] = [{"type": "pointerMove", "duration": 0, "x": round(x), "y": round(y)},
                                       {"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}]
        self._send("POST", "/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": moves}]})

    def hover(self, x: float, y: float) -> None:
        """Move the pointer there."""
        moves = [{"type": "pointerMove", "duration": 0, "x": round(x), "y": round(y)}]
        self._send("POST", "/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": moves}]})

    def screenshot(self) -> bytes:
        """The window as a PNG."""
        return base64.b64decode(self._send("GET", "/screenshot", None))

    def messages(self) -> list[str]:
        """What the page has written to the console since the last time, errors in scripts among it."""
        return [entry["message"] for entry in self._send("POST", "/se/log", {"type": "browser"})]

    def _devtools(self, command: str, **parameters: Any) -> None:
        self._send("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def _wait_for_driver(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                if self._send("GET", "/status", None)["ready"]:
                    return
            except (urllib.error.URLError, ConnectionError):
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
            time.sleep(0.05)

    def _send(self, method: str, path: str, body: Any) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, data, {"Content-Type": "application/json"}, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=120) as response:
                return json.loads(response.read())["value"]
        except urllib.error.HTTPError as error:
            raise BrowserError(json.loads(error.read())["value"]["message"]) from None

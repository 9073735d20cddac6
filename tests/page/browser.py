"""A headless Chromium, driven over WebDriver with nothing but the standard library."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

# What it would otherwise do on its own: updates, metrics, syncing, a first-run page.
QUIET = [
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def missing() -> str | None:
    """What a browser cannot be had without; None: it can."""
    for program in ("chromedriver", "chromium"):
        if shutil.which(program) is None:
            return f"{program} (Debian: chromium, chromium-driver)"
    return None


class Browser:
    """One window. To be closed."""

    def __init__(self) -> None:
        self._profile = tempfile.mkdtemp(prefix="miniflow-page-")
        self._driver = subprocess.Popen(
            ["chromedriver", "--port=0"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # with the browser, so that both can be ended
        )
        try:
            self._at = f"http://127.0.0.1:{self._port()}"
            arguments = [*QUIET, f"--user-data-dir={self._profile}"]
            if os.geteuid() == 0:
                arguments.append("--no-sandbox")  # root cannot have one
            capabilities = {
                "goog:chromeOptions": {"args": arguments, "binary": shutil.which("chromium")},
                "goog:loggingPrefs": {"browser": "ALL"},
            }
            session = self._call("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})
            self._at += f"/session/{session['sessionId']}"
        except BaseException:
            self._end()
            raise

    def _port(self) -> int:
        assert self._driver.stdout is not None
        for line in self._driver.stdout:
            _, found, port = line.strip().rstrip(".").partition("started successfully on port ")
            if found:
                return int(port)
        raise RuntimeError(f"chromedriver ended with status {self._driver.wait()}")

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._at + path, data, method=method)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, url: str) -> None:
        """Loads a page, and waits until it is loaded."""
        self._call("POST", "/url", {"url": url})

    def run(self, script: str) -> Any:
        """What a script returns, in the page."""
        return self._call("POST", "/execute/sync", {"script": script, "args": []})

    def text(self, selector: str) -> str:
        """The text of the first element that fits."""
        text: str = self.run(f"return document.querySelector({json.dumps(selector)}).textContent")
        return text

    def count(self, selector: str) -> int:
        """How many elements fit."""
        count: int = self.run(f"return document.querySelectorAll({json.dumps(selector)}).length")
        return count

    def console(self) -> list[str]:
        """What was written to the console, or went wrong, since this was asked last."""
        return [entry["message"] for entry in self._call("POST", "/se/log", {"type": "browser"})]

    def size(self, width: int, height: int) -> None:
        """Makes the page as large as this, a phone's display if it is narrow."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._devtools("Emulation.setDeviceMetricsOverride", metrics)

    def colours(self, scheme: str) -> None:
        """Makes the page believe that the reader likes "light" or "dark" pages."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._devtools("Emulation.setEmulatedMedia", {"features": features})

    def _devtools(self, command: str, params: dict[str, Any]) -> None:
        self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": params})

    def screenshot(self, path: Path) -> None:
        """Saves what is to be seen as a PNG file."""
        path.write_bytes(base64.b64decode(self._call("GET", "/screenshot")))

    def close(self) -> None:
        """Ends the browser."""
        try:
            self._call("DELETE", "")
        finally:
            self._end()

    def _end(self) -> None:
        try:
            os.killpg(self._driver.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._driver.wait()
        shutil.rmtree(self._profile, ignore_errors=True)

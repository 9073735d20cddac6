"""An engine with some load, and the server of its page: the example `watched`, and `miniflow metrics`."""

from __future__ import annotations

import http.server
import itertools
import json
import mimetypes
import os
import signal
import subprocess
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any, Callable

BINARIES = Path(os.environ.get("MINIFLOW_BINARIES", "target/release"))
PAGE = Path(__file__).parents[2] / "src/bin/miniflow/metrics/page"
PATIENCE = 30.0

_names = (f"page-{os.getpid()}-{number}" for number in itertools.count())


def unique_name() -> str:
    """A name for an engine."""
    return next(_names)


def until(what: str, holds: Callable[[], Any]) -> None:
    """Waits until something holds that comes to hold by itself."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {PATIENCE} s: {what}")
        time.sleep(0.05)


class Program:
    """A program that says in its first line that it is there. To be ended."""

    def __init__(self, arguments: list[str]) -> None:
        self.process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.first_line = self.process.stdout.readline()
        if not self.first_line:
            raise RuntimeError(f"{arguments[0]} ended with status {self.process.wait()}")

    def end(self, how: int = signal.SIGKILL) -> None:
        """Ends it, if it has not ended. An engine's workers end with it."""
        if self.process.returncode is None:
            self.process.send_signal(how)
            self.process.communicate()


class Engine(Program):
    """The example `watched`."""

    def __init__(self, name: str, *options: str) -> None:
        super().__init__([str(BINARIES / "examples" / "watched"), name, *options])


class Server(Program):
    """`miniflow metrics`, for the engine with this name, or all."""

    def __init__(self, *name: str) -> None:
        super().__init__([str(BINARIES / "miniflow"), "metrics", *name, "--listen", "127.0.0.1:0"])
        self.url = self.first_line.split()[-1]

    def status(self, name: str) -> dict[str, Any]:
        """What the page is told."""
        with urllib.request.urlopen(f"{self.url}status.json?engine={name}", timeout=PATIENCE) as answer:
            status: dict[str, Any] = json.load(answer)
            return status


class Pretender:
    """A server of the page's files, with a status of the test's own. Unlike the real one it does not tell the
    browser to run no other scripts. To be ended."""

    def __init__(self, status: dict[str, Any]) -> None:
        files = {f"/{path.name}": path for path in PAGE.iterdir()}
        files["/"] = files["/index.html"]
        answers = {"/status.json": status, "/engines.json": [status["name"]]}

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                body = json.dumps(answers[path]).encode() if path in answers else files[path].read_bytes()
                kind = mimetypes.guess_type(files.get(path, "x.json"))[0]
                self.send_response(200)
                self.send_header("Content-Type", kind or "text/plain")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def end(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

"""Takes the picture of the live page that the README shows, from a running engine: about a minute.

cargo build --release --bin miniflow --example watched
python3 tests/page/screenshot.py docs/page.png [WIDTH HEIGHT] [dark]
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from browser import Browser
from running import Engine, Server, until

NAME = "watched"


def main() -> None:
    path, *rest = sys.argv[1:]
    width, height = (int(size) for size in rest[:2]) if len(rest) >= 2 else (1280, 900)
    engine = Engine(NAME)
    server = Server(NAME)
    browser = Browser()
    try:
        browser.size(width, height)
        browser.colours("dark" if "dark" in rest else "light")
        browser.open(server.url)
        time.sleep(20)
        os.kill(server.status(NAME)["workers"][0]["pid"], signal.SIGKILL)
        time.sleep(48)  # a minute of history, and the third wave is at its height
        until("the crash is told", lambda: browser.count("#crashes li") > 0)
        browser.screenshot(Path(path))
    finally:
        browser.close()
        server.end()
        engine.end()


if __name__ == "__main__":
    main()

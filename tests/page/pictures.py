"""Takes the pictures of the README, top.png and page.png, of one engine. `ci/pictures.sh` runs this.

python3 tests/page/pictures.py DIRECTORY
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from browser import Browser
from running import BINARIES, Engine, Server, until

NAME = "images"
# How long they watch: the fourth wave of the load begins, and there are history, crashes and decisions.
SECONDS = 66
COLUMNS, ROWS = 116, 36


def main() -> None:
    directory = Path(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="miniflow-pictures-") as work:
        take(directory, Path(work) / "top.svg")


def take(directory: Path, terminal: Path) -> None:
    engine = Engine(NAME, "--crashes")
    server = Server(NAME)
    browser = Browser()
    try:
        browser.size(1280, 900)
        browser.colours("light")
        browser.open(server.url)
        screenshot = str(BINARIES / "examples" / "screenshot")
        top = [str(BINARIES / "miniflow"), "top", NAME]
        subprocess.run([screenshot, f"{COLUMNS}x{ROWS}", str(SECONDS), str(terminal), *top], check=True)
        until("the page tells a crash", lambda: browser.count("#crashes li") > 0)
        browser.screenshot(directory / "page.png")
        browser.open(terminal.as_uri())
        width, height = (
            int(browser.run(f"return document.documentElement.getAttribute('{side}')"))
            for side in ("width", "height")
        )
        browser.size(width, height)
        browser.screenshot(directory / "top.png")
    finally:
        browser.close()
        server.end()
        engine.end()


if __name__ == "__main__":
    main()

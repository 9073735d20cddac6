"""Progress of bulk work on a stream, in the manner of tqdm."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_EVERY = 0.1  # seconds between two pictures on a terminal
_EVERY_PLAIN = 5.0  # between two lines elsewhere
_WIDTH = 30


class Progress:
    """How far a run of tasks is: a bar that is drawn over on a terminal, a line now and then elsewhere.

    >>> import io
    >>> out = io.StringIO()
    >>> with Progress(total=2, label="work", file=out) as progress:
    ...     progress.advance(2)
    >>> out.getvalue().startswith("work: 2/2, 100 %, 0 failed")
    True
    """

    def __init__(self, total: int | None = None, label: str = "", file: TextIO | None = None) -> None:
        self.done = 0
        self.failed = 0
        self.total = total
        self._label = label
        self._file = sys.stderr if file is None else file
        self._start = time.monotonic()
        self._bar = self._file.isatty()
        self._next = self._start + (0 if self._bar else _EVERY_PLAIN)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def advance(self, done: int = 1, failed: int = 0) -> None:
        """So many more tasks have ended, so many of them not well."""
        self.done += done
        self.failed += failed
        now = time.monotonic()
        if now >= self._next:
            self._next = now + (_EVERY if self._bar else _EVERY_PLAIN)
            self._show(now, last=False)

    def close(self) -> None:
        """Shows the last state."""
        self._show(time.monotonic(), last=True)

    def line(self, now: float) -> str:
        """The state in words."""
        spent = now - self._start
        rate = self.done / spent if spent > 0 else 0.0
        label = f"{self._label}: " if self._label else ""
        if self.total:
            share = min(1.0, self.done / self.total)
            bar = ""
            if self._bar:
                bar = "[" + ("#" * int(share * _WIDTH)).ljust(_WIDTH, ".") + "] "
            left = (self.total - self.done) / rate if rate > 0 else 0.0
            text = f"{label}{bar}{self.done}/{self.total}, {share:.0%}".replace("%", " %")
            ending = f", {_clock(left)} left" if self.done < self.total else f" in {_clock(spent)}"
        else:
            text = f"{label}{self.done}"
            ending = f" in {_clock(spent)}"
        return f"{text}, {self.failed} failed, {rate:.0f}/s{ending}"

    def _show(self, now: float, *, last: bool) -> None:
        text = self.line(now)
        try:
            if self._bar:
                self._file.write(f"\r\x1b[K{text}" + ("\n" if last else ""))
            else:
                self._file.write(f"{text}\n")
            self._file.flush()
        except (OSError, ValueError):
            pass  # nobody looks any more: no reason to stop the work


def _clock(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    minutes, whole = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole:02}" if hours else f"{minutes}:{whole:02}"

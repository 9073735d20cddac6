"""What tasks print, task by task.

While it is captured, sys.stdout and sys.stderr are stand-ins that look which task the writing code belongs
to. That is a context variable: besides the task's own thread, coroutines and asyncio.to_thread() have it. A
thread that a script starts by threading.Thread has not, unless it runs in a copy of the context
(`Thread(target=contextvars.copy_context().run, args=(function,))`): its text goes where it went before, as
does what C code and child processes write to file descriptors 1 and 2.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Iterable
from contextvars import ContextVar, Token
from typing import IO, Any, TextIO

__all__ = ["Captured", "install", "uninstall"]

LIMIT = 1 << 20
"""How many bytes of UTF-8 are kept of each stream of one task."""


class Captured:
    """What one task prints, from start() to finish(), which the same thread calls."""

    __slots__ = ("_streams", "_token")

    def __init__(self) -> None:
        self._streams = (_Buffer(), _Buffer())
        self._token: Token[tuple[_Buffer, _Buffer] | None] | None = None

    def start(self) -> None:
        self._token = _task.set(self._streams)

    def finish(self) -> tuple[str, str]:
        """What was written to stdout and to stderr. What still runs for this task is not captured after."""
        if self._token is not None:
            _task.reset(self._token)
            self._token = None
        stdout, stderr = self._streams
        return stdout.close(), stderr.close()


class _Buffer:
    """The head of one stream of one task."""

    __slots__ = ("_data", "_dropped", "_lock", "_open")

    def __init__(self) -> None:
        self._data = bytearray()
        self._dropped = 0
        self._open = True
        # Reentrant: a signal handler or a finalizer may print in the middle of a print.
        self._lock = threading.RLock()

    def append(self, data: bytes) -> bool:
        """Keeps what there is room for. Returns False if the task is over."""
        with self._lock:
            if not self._open:
                return False
            kept = data[: LIMIT - len(self._data)]
            self._data += kept
            self._dropped += len(data) - len(kept)
            return True

    def close(self) -> str:
        with self._lock:
            self._open = False
            data, dropped = bytes(self._data), self._dropped
            self._data = bytearray()
        if not dropped:
            return data.decode("utf-8", "replace")
        # The cut may have gone through a character.
        return data.decode("utf-8", "ignore") + f"\n... truncated, {dropped} bytes more"


_task: ContextVar[tuple[_Buffer, _Buffer] | None] = ContextVar("miniflow_task_output", default=None)


class _StandIn(io.TextIOBase):
    """Stands in for sys.stdout (0) or sys.stderr (1): writes to the task's buffer, or passes on."""

    def __init__(self, original: TextIO, which: int) -> None:
        super().__init__()
        self.original = original
        self._which = which
        self._bytes = _Bytes(original, which)

    def write(self, text: str, /) -> int:
        streams = _task.get()
        if streams is None:
            return self.original.write(text)
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        # Escaped rather than refused, as on the real stderr: text that cannot be shown is no reason to fail.
        if streams[self._which].append(text.encode("utf-8", "backslashreplace")):
            return len(text)
        return self.original.write(text)

    def writelines(self, lines: Iterable[str], /) -> None:  # type: ignore[override]
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if _task.get() is None:
            self.original.flush()

    def close(self) -> None:
        """Does nothing: the stream is that of all tasks."""

    def detach(self) -> Any:
        raise io.UnsupportedOperation("the output of tasks is captured")

    def reconfigure(self, **options: object) -> None:
        """Accepts and ignores what a TextIOWrapper takes: captured text is UTF-8 and written at once."""

    def fileno(self) -> int:
        return self.original.fileno()

    def isatty(self) -> bool:
        return _task.get() is None and self.original.isatty()

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    @property
    def buffer(self) -> IO[bytes]:
        return self._bytes  # type: ignore[return-value]

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8" if _task.get() is not None else self.original.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return "backslashreplace" if _task.get() is not None else self.original.errors

    @property
    def name(self) -> Any:
        return getattr(self.original, "name", None)

    @property
    def mode(self) -> str:
        return "w"

    @property
    def line_buffering(self) -> bool:
        return True


class _Bytes(io.BufferedIOBase):
    """The binary side of a stand-in: sys.stdout.buffer."""

    def __init__(self, original: TextIO, which: int) -> None:
        super().__init__()
        self._original = original
        self._which = which

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        streams = _task.get()
        if streams is None or not streams[self._which].append(view.tobytes()):
            self._original.buffer.write(view)
        return view.nbytes

    def flush(self) -> None:
        self._original.flush()

    def close(self) -> None:
        pass

    def fileno(self) -> int:
        return self._original.fileno()

    def writable(self) -> bool:
        return True


def install() -> None:
    """Puts the stand-ins in place of sys.stdout and sys.stderr. Once, in a worker that captures."""
    sys.stdout = _stand_in(sys.stdout, 0)
    sys.stderr = _stand_in(sys.stderr, 1)


def uninstall() -> None:
    """Puts the real streams back, unless somebody else has put something there."""
    if isinstance(sys.stdout, _StandIn):
        sys.stdout = sys.stdout.original
    if isinstance(sys.stderr, _StandIn):
        sys.stderr = sys.stderr.original


def _stand_in(stream: TextIO | None, which: int) -> TextIO:
    if isinstance(stream, _StandIn):
        return stream
    # Python has None there if the descriptor was closed when it started; print() then writes nothing.
    if stream is None:
        stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for the rest of the process
    return _StandIn(stream, which)  # type: ignore[return-value]

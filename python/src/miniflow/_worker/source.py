"""Files of Python source, and whether they are still what was read."""

from __future__ import annotations

import os
import stat
import time

__all__ = ["Source"]

_MILLISECOND = 1_000_000
_SECOND = 1_000_000_000

# A file's time stamp moves in steps (a tick of the kernel's, at most 10 ms; a second or two on some file
# systems): a file that is written again within the step, to the same size, has the same stamp.
_STEP = 100 * _MILLISECOND
_COARSE_STEP = 2 * _SECOND

# How long a file that is being replaced is left to its writer, who may be between truncating and writing it.
_WRITING = 10 * _MILLISECOND
_EMPTY = _SECOND


class Source:
    """What was read of one file, by which a change of it is noticed."""

    __slots__ = ("_digest", "_stamp", "_young_until", "path")

    def __init__(self, path: str, status: os.stat_result, content: bytes) -> None:
        self.path = path
        self._stamp = (status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev)
        self._digest = hash(content)
        step = _COARSE_STEP if status.st_mtime_ns % _SECOND == 0 else _STEP
        young = _age(status) < step
        self._young_until = time.monotonic_ns() + step if young else 0

    @classmethod
    def read(cls, path: str) -> tuple[Source, bytes]:
        """Reads the file. Raises an OSError if it cannot, or if it is no regular file."""
        status, content = _read(path)
        return cls(path, status, content), content

    @classmethod
    def read_settled(cls, path: str) -> tuple[Source, bytes]:
        """Reads a file that changed a moment ago, when nobody seems to be writing it any more.

        Many editors truncate a file and then write it. A worker that notices the change at once would read
        half of it, and fail a task for a script that was right before and is right afterwards. So it waits,
        for a second at most.
        """
        give_up = time.monotonic_ns() + _EMPTY
        while True:
            status, content = _read(path)
            source = cls(path, status, content)
            settled = _age(status) >= (_WRITING if content else _EMPTY) and not source.changed()
            if settled or time.monotonic_ns() >= give_up:
                return source, content
            time.sleep(0.002)

    def changed(self) -> bool:
        """Whether the file is another one by now, or gone."""
        try:
            now = os.stat(self.path)
        except OSError:
            return True
        if (now.st_mtime_ns, now.st_size, now.st_ino, now.st_dev) != self._stamp:
            return True
        return self._young_until != 0 and self._rewritten()

    def _rewritten(self) -> bool:
        """Compares the content, as long as the stamp alone does not tell."""
        # The clock first: only when the step was over before the read does a later write get another stamp.
        grown = time.monotonic_ns() >= self._young_until
        try:
            _, content = _read(self.path)
        except OSError:
            return True
        if hash(content) != self._digest:
            return True
        if grown:
            self._young_until = 0
        return False


def _age(status: os.stat_result) -> int:
    """How long ago the file was written. Another machine's clock may say that it will be."""
    return abs(time.time_ns() - status.st_mtime_ns)


def _read(path: str) -> tuple[os.stat_result, bytes]:
    # O_NONBLOCK: opening a FIFO would wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        # Before the content is read: a change in between then shows as a change.
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is not a regular file")
        return status, file.read()

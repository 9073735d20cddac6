"""What a script is told about the task that it runs."""

from __future__ import annotations

from operator import index
from typing import Callable, SupportsIndex

__all__ = ["Context"]

# What the engine can report: the counters of a task are 64 bits wide.
_MOST = (1 << 64) - 1


def _never() -> bool:
    return False


def _unheard(done: int, total: int) -> None:
    pass


class Context:
    """The second argument of a script's `main(params, context)`.

    A script's own tests may make one by hand: `Context("some-id")` is never cancelled, and nobody
    hears of its progress.
    """

    __slots__ = ("_cancelled", "_progress", "attempt", "task_id", "worker_id")

    task_id: str
    """The task's id, as `submit_task()` returned it."""
    worker_id: str
    """The worker that runs it, such as "io-0"."""
    attempt: int
    """Which start of the task this is, from 1 on."""

    def __init__(
        self,
        task_id: str,
        worker_id: str = "io-0",
        attempt: int = 1,
        cancelled: Callable[[], bool] = _never,
        progress: Callable[[int, int], object] = _unheard,
    ) -> None:
        self.task_id = task_id
        self.worker_id = worker_id
        self.attempt = attempt
        self._cancelled = cancelled
        self._progress = progress

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked for this task to be cancelled: a long script looks now and then."""
        return self._cancelled()

    def progress(self, done: SupportsIndex, total: SupportsIndex | None = None) -> None:
        """Reports how far the task is, in units of its own: `done` of `total` (None: not known)."""
        so_far = index(done)
        of = 0 if total is None else index(total)
        if not (0 <= so_far <= _MOST and 0 <= of <= _MOST):
            raise ValueError(f"progress({so_far}, {total}): expected whole numbers from 0 to 2**64 - 1")
        self._progress(so_far, of)

    def __repr__(self) -> str:
        return f"Context(task_id={self.task_id!r}, worker_id={self.worker_id!r}, attempt={self.attempt})"

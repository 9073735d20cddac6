"""Many tasks at a time: a window of them in flight, their values as they come or in their order."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from . import _abi, _outcome, _wire
from ._core import Core
from .progress import Progress


class Cell:
    """The sink of one task of many."""

    __slots__ = ("_raw", "count", "ended", "ident", "settled", "token")

    ident: _abi.TaskId
    token: int
    _raw: tuple[int, int, int, int, int, _wire.Readable]

    def __init__(self, ended: deque[Cell], count: int) -> None:
        self.settled = False
        self.ended = ended
        self.count = count

    def settle(
        self,
        outcome: int,
        code: int,
        flags: int,
        worker: int,
        attempt: int,
        data: _wire.Readable,
        queued_ns: int,
        run_ns: int,
    ) -> None:
        """Takes the end of the task, which is read by whoever asks for it."""
        if self.settled:
            return
        self._raw = (outcome, code, flags, worker, attempt, data)
        # Whoever sees it settled finds it in the queue, once: an interrupt in between leaves it last.
        if not self.ended or self.ended[-1] is not self:
            self.ended.append(self)
        self.settled = True

    def result(self) -> tuple[Any, BaseException | None]:
        """The task's value, or the exception in its place."""
        return _outcome.read(*self._raw)


def chunks(iterables: tuple[Iterable[Any], ...], size: int) -> Iterator[tuple[list[Any], ...]]:
    """The arguments of ``size`` calls at a time, by columns."""
    if len(iterables) == 1:
        source = iter(iterables[0])
        while column := list(itertools.islice(source, size)):
            yield (column,)
        return
    rows = zip(*iterables)
    while taken := list(itertools.islice(rows, size)):
        yield tuple(list(column) for column in zip(*taken))


def stream(
    core: Core,
    kind: bytes,
    values: Iterable[tuple[int, object]],
    opts: _abi.SubmitOpts,
    *,
    ordered: bool,
    window: int,
    progress: Progress | None = None,
    return_exceptions: bool = False,
) -> Iterator[Any]:
    """Submits a task for each value (with how many items it stands for), ``window`` at a time, and
    yields what they return. Closing the generator cancels what is in flight."""
    source = iter(values)
    flying: dict[int, Cell] = {}  # by token, oldest first
    ended: deque[Cell] = deque()
    more = True
    try:
        while more or flying:
            while more and len(flying) < window:
                following = next(source, None)
                if following is None:
                    more = False
                    break
                cell = Cell(ended, following[0])
                core.submit(kind, following[1], cell, opts)
                flying[cell.token] = cell
            while flying:
                ready = _next(flying, ended, ordered)
                if ready is None:
                    if more and len(flying) < window:
                        break
                    core.wait_until(lambda: _next(flying, ended, ordered) is not None, None)
                    continue
                if ended:
                    ended.popleft()
                del flying[ready.token]
                value, error = ready.result()
                if progress is not None:
                    progress.advance(ready.count, ready.count if error is not None else 0)
                if error is None:
                    yield value
                elif return_exceptions:
                    yield error
                else:
                    raise error
    finally:
        for cell in flying.values():
            if not cell.settled and not core.cancel(cell):
                core.interrupt(cell)
        if progress is not None:
            progress.close()


def _next(flying: dict[int, Cell], ended: deque[Cell], ordered: bool) -> Cell | None:
    """The cell whose turn it is, if it has ended."""
    if ordered:
        first = next(iter(flying.values()))
        return first if first.settled else None
    return ended[0] if ended else None

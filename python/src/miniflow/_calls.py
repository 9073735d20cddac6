"""What an engine does with calls and scripts beside single tasks: in bulk, and in asyncio."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from os import PathLike
from os.path import abspath
from typing import Any, Callable, TypeVar, Union

from . import _aio, _bulk, _wire
from ._core import Core
from ._future import TaskFuture
from .progress import Progress
from .scaling import sticky_number
from .tasks import TaskType

T = TypeVar("T")

# A function that workers can import or that cloudpickle can send, or the path of a script.
Work = Union[Callable[..., T], str, "PathLike[str]"]


class Calls:
    """Mixed into :class:`~miniflow.Engine`."""

    def _running(self) -> Core:
        """The engine underneath; raises EngineError ENG002 if it was not started."""
        raise NotImplementedError

    def submit(
        self,
        fn: Callable[..., T],
        /,
        *args: Any,
        task_type: TaskType = TaskType.CPU_BOUND,
        timeout: float | None = None,
        retries: int = 0,
        sticky_key: int | str | bytes | None = None,
        **kwargs: Any,
    ) -> TaskFuture[T]:
        """Schedules ``fn(*args, **kwargs)`` in a worker, and returns a `concurrent.futures.Future`.

        ``timeout``: seconds that it may run. ``retries``: how many more starts it has if workers die
        of it. ``sticky_key``: calls with the same key run on the same worker, and wait for it while it is
        busy; what it has in its memory for the key is there.
        """
        core = self._running()
        future: TaskFuture[T] = TaskFuture(core)
        opts = core.options(
            io=task_type is TaskType.IO_BOUND,
            timeout=timeout,
            max_attempts=retries + 1,
            sticky_key=0 if sticky_key is None else sticky_number(sticky_key),
        )
        core.submit(_wire.CALL, (fn, args, kwargs), future, opts)
        return future

    async def run(
        self,
        work: Work[T],
        /,
        *args: Any,
        task_type: TaskType | None = None,
        timeout: float | None = None,
        retries: int = 0,
        **kwargs: Any,
    ) -> T:
        """Awaits ``work(*args, **kwargs)``, or the script ``work`` with the params ``args[0]``.

        Must run in an asyncio loop, which learns of the end through the engine's event descriptor.
        ``timeout`` is as for :meth:`submit`; a coroutine that is cancelled (``asyncio.wait_for``)
        cancels its task: if it runs, it is told so, and goes on unless it looks.
        """
        core = self._running()
        value: object
        if callable(work):
            kind, default = _wire.CALL, TaskType.CPU_BOUND
            value = (work, args, kwargs)
        else:
            kind, default = _wire.SCRIPT, TaskType.IO_BOUND
            value = (abspath(work), args[0] if args else kwargs)
        opts = core.options(
            io=(task_type or default) is TaskType.IO_BOUND, timeout=timeout, max_attempts=retries + 1
        )
        result: T = await _aio.run(core, kind, value, opts)
        return result

    def map(
        self,
        work: Work[T],
        /,
        *iterables: Iterable[Any],
        chunksize: int = 1,
        ordered: bool = True,
        progress: bool | str | Progress = False,
        task_type: TaskType | None = None,
        timeout: float | None = None,
        retries: int = 0,
        window: int = 1024,
        return_exceptions: bool = False,
    ) -> Iterator[T]:
        """Yields ``work`` over the iterables: a function of their items, or a script whose params
        they are. Reads them as far ahead as ``window`` tasks, so they may have no end.

        ``progress``: True, a label, or a :class:`~miniflow.Progress` shows how far it is, on stderr.
        ``chunksize`` calls of a function travel as one task. An exception ends the run, and what is
        in flight is cancelled; with ``return_exceptions`` it is yielded in the place of its value
        (of one, for a chunk). ``timeout`` and ``retries``: as for :meth:`submit`, for each task.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be at least 1")
        if window < 1:
            raise ValueError("window must be at least 1")
        core = self._running()
        if callable(work):
            kind = _wire.CALL if chunksize == 1 else _wire.CHUNK
            default = TaskType.CPU_BOUND
        elif chunksize != 1 or len(iterables) != 1:
            raise ValueError("a script takes one params at a time: one iterable, and no chunksize")
        else:
            work = abspath(work)  # a worker may be elsewhere
            kind, default = _wire.SCRIPT, TaskType.IO_BOUND
        opts = core.options(
            io=(task_type or default) is TaskType.IO_BOUND, timeout=timeout, max_attempts=retries + 1
        )
        shown: Progress | None = None
        if isinstance(progress, Progress):
            shown = progress
        elif progress:
            total = min((len(i) for i in iterables if isinstance(i, Sized)), default=None)
            shown = Progress(total, progress if isinstance(progress, str) else "")
        values = _values(kind, work, iterables, chunksize)
        found = _bulk.stream(
            core,
            kind,
            values,
            opts,
            ordered=ordered,
            window=window,
            progress=shown,
            return_exceptions=return_exceptions,
        )
        return _flat(found) if kind == _wire.CHUNK else found

    def imap_unordered(self, work: Work[T], /, *iterables: Iterable[Any], **options: Any) -> Iterator[T]:
        """:meth:`map`, with the values as they come."""
        return self.map(work, *iterables, ordered=False, **options)


def _values(
    kind: bytes, work: object, iterables: tuple[Iterable[Any], ...], size: int
) -> Iterator[tuple[int, object]]:
    if kind == _wire.SCRIPT:
        for params in iterables[0]:
            yield 1, (work, params)
    elif kind == _wire.CALL:
        for args in zip(*iterables):
            yield 1, (work, args, {})
    else:
        for columns in _bulk.chunks(iterables, size):
            yield len(columns[0]), (work, columns)


def _flat(found: Iterator[Any]) -> Iterator[Any]:
    for values in found:
        if isinstance(values, BaseException):
            yield values
        else:
            yield from values

"""``miniflow.Executor``: in place of ``concurrent.futures.ProcessPoolExecutor``."""

from __future__ import annotations

import concurrent.futures
import itertools
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Callable, TypeVar

from . import _bulk, _wire
from ._core import Core
from ._future import TaskFuture
from ._placement import Placement
from ._settings import ClassSettings, Settings, available_cpus, checked_count
from .errors import EngineError, TaskError
from .scaling import Scaling, ScalingDecision, ScalingPolicy, checked_scaling

T = TypeVar("T")

_CLOSED = "cannot schedule new futures after shutdown"


class Executor(concurrent.futures.Executor):
    """Runs calls in worker processes of one thread each.

    A drop-in for ``ProcessPoolExecutor``, with these differences: a worker that dies fails the one
    call that it ran, with :class:`~miniflow.WorkerCrashed` (or has it tried again, see ``retries``),
    and everything else goes on; functions of ``__main__``, lambdas and closures can be submitted if
    cloudpickle is installed; numpy arrays and other pickle-5 buffers travel through shared memory, and
    arrive as read-only views of it; workers are forked from a small process of their own, never from
    this one, so that threads here do no harm.

    ``max_workers``
        Worker processes; by default as many as this process may use processors.
    ``mp_context``
        Not used: there for calls that are written for ``ProcessPoolExecutor``.
    ``initializer``, ``initargs``
        Called in each worker before its first task. If it raises, so do all calls there, with that as
        their cause.
    ``max_tasks_per_child``
        Calls after which a worker is replaced by a new one.
    ``preload``
        Modules to be imported once, before workers are forked: these then start in milliseconds.
    ``timeout``
        Seconds that a call may run, by default; its worker is killed after that, and the future
        raises :class:`~miniflow.TaskTimeout`.
    ``retries``
        How many times more a call is started whose worker died.
    ``python``
        The interpreter of the workers; by default this one.
    ``memory_limit``
        Bytes of memory of its own that a worker may have; beyond it calls raise ``MemoryError``.
    ``affinity``, ``nice``, ``scheduler``, ``io_priority``, ``huge_pages``
        Where workers run and how: see :class:`~miniflow.EngineConfig`.
    ``name``
        A name by which others on this machine can watch the workers; by default an automatic one, none
        if it is empty.
    ``scaling``
        How the number of workers follows the load, from ``min_workers`` (1 by default) to ``max_workers``:
        "by_load", "adaptive", "compatible", or a callable that is shown a
        :class:`~miniflow.ScalingSnapshot` and answers with a number of workers or None, or a
        :class:`~miniflow.Scaling`, which has thresholds. By default it does not ("off"), and there are
        ``max_workers``.
    ``dispatch``
        Which worker gets a call: "least_loaded", "round_robin" or "power_of_two".
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: object = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        preload: Sequence[str] = (),
        timeout: float | None = None,
        retries: int = 0,
        python: str | None = None,
        memory_limit: int | None = None,
        name: str | None = None,
        affinity: str | Sequence[int] | None = None,
        nice: int = 0,
        scheduler: str | None = None,
        io_priority: int | str | None = None,
        huge_pages: bool = False,
        min_workers: int | None = None,
        scaling: str | ScalingPolicy | Scaling = "off",
        dispatch: str = "least_loaded",
    ) -> None:
        del mp_context
        if max_workers is None:
            max_workers = available_cpus()
        if max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_tasks_per_child is not None:
            if not isinstance(max_tasks_per_child, int):
                raise TypeError("max_tasks_per_child must be an integer")
            if max_tasks_per_child <= 0:
                raise ValueError("max_tasks_per_child must be >= 1")
        if not 0 <= retries < 65_535:
            raise ValueError("retries must be from 0 to 65534")
        if min_workers is None:
            min_workers = max_workers if checked_scaling(scaling).policy == "off" else 1
        if not 1 <= min_workers <= max_workers:
            raise ValueError("min_workers must be from 1 to max_workers")
        self._settings = Settings(
            cpu=ClassSettings(workers=min_workers, max_workers=max_workers, timeout=timeout),
            name=name,
            preload=preload if isinstance(preload, str) else tuple(preload),
            initializer=initializer,
            initargs=tuple(initargs),
            python=python,
            memory_limit=memory_limit,
            recycle_after=max_tasks_per_child,
            placement=Placement(
                affinity=affinity,
                nice=nice,
                scheduler=scheduler,
                io_priority=io_priority,
                huge_pages=huge_pages,
            ),
            scaling=scaling,
            dispatch=dispatch,
        )
        self._max_workers = max_workers
        self._attempts = retries + 1
        self._core: Core | None = None
        self._lock = threading.Lock()
        self._shut = False
        self._finalizer: weakref.finalize[..., Executor] | None = None
        _executors.add(self)

    def _start(self) -> Core:
        """The engine, which the first call starts."""
        with self._lock:
            if self._shut:
                raise RuntimeError(_CLOSED)
            if self._core is None:
                core = Core(self._settings)
                self._opts = core.options(max_attempts=self._attempts)
                self._finalizer = weakref.finalize(self, _abandon, core)
                self._finalizer.atexit = False  # `_at_exit` has it
                _live.add(core)
                self._core = core
            return self._core

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> TaskFuture[T]:
        """Schedules ``fn(*args, **kwargs)`` and returns its future.

        Waits if more than 65 536 calls are outstanding, or their arguments fill the shared memory.
        """
        core = self._core
        if core is None or self._shut:
            core = self._start()
        future: TaskFuture[T] = TaskFuture(core)
        try:
            core.submit(_wire.CALL, (fn, args, kwargs), future, self._opts)
        except EngineError as error:
            self._refused(future, error)
        return future

    def _refused(self, future: TaskFuture[Any], error: EngineError) -> None:
        """The call was not submitted. What is wrong with it, its future says, as it does for errors in
        the worker."""
        if isinstance(error, TaskError):
            future.fail(error)
        elif self._shut or future._core.stopped:
            raise RuntimeError(_CLOSED) from error
        else:
            raise error

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """The results of ``fn`` over the iterables, in their order.

        ``timeout`` is in seconds from now, for the whole; ``chunksize`` calls travel as one task.
        With ``buffersize`` the iterables are read only as far ahead as so many tasks.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        deadline = None if timeout is None else time.monotonic() + timeout
        chunks = _bulk.chunks(iterables, chunksize)
        waiting: deque[TaskFuture[list[T]]] = deque()
        try:
            for columns in itertools.islice(chunks, buffersize):
                waiting.append(self._submit_chunk(fn, columns))
            if not waiting and self._shut:
                raise RuntimeError(_CLOSED)
        except BaseException:
            for future in waiting:
                future.cancel()
            raise
        if buffersize is None:
            return _results(waiting, deadline)
        return _results(waiting, deadline, (self._submit_chunk(fn, columns) for columns in chunks))

    def _submit_chunk(self, fn: Callable[..., T], columns: tuple[list[Any], ...]) -> TaskFuture[list[T]]:
        core = self._core
        if core is None or self._shut:
            core = self._start()
        future: TaskFuture[list[T]] = TaskFuture(core)
        try:
            core.submit(_wire.CHUNK, (fn, columns), future, self._opts)
        except EngineError as error:
            self._refused(future, error)
        return future

    def metrics_text(self) -> str:
        """Counters, gauges and histograms in the text format of Prometheus; empty before the first call
        and after the end."""
        core = self._core
        if core is None:
            return ""
        try:
            return core.metrics_text()
        except EngineError:
            if self._shut:
                return ""
            raise

    def resize(self, workers: int) -> None:
        """Sets how many workers there are, up to ``max_workers``. More are started; fewer leave when they
        have finished what they run. A scaling policy goes on from there after 10 s."""
        core = self._core
        if core is None or self._shut:
            core = self._start()
        core.resize(False, checked_count("workers", workers, self._max_workers))

    def scaling_decisions(self) -> list[ScalingDecision]:
        """The last 1000 decisions about the number of workers, oldest first; none before the first call and
        after the end."""
        core = self._core
        if core is None:
            return []
        try:
            return core.scaling_decisions()
        except EngineError:
            if self._shut:
                return []
            raise

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more calls, and ends the workers when those that were taken have ended.

        With ``wait=False`` returns at once, and a thread sees to the rest. ``cancel_futures``
        cancels all that no worker has been given.
        """
        with self._lock:
            self._shut = True
            core = self._core
        if core is None:
            return
        if cancel_futures:
            for sink in core.sinks():
                if isinstance(sink, TaskFuture):
                    sink.cancel()
        if wait:
            _finish(core)
        elif self._finalizer is not None and self._finalizer.detach():
            _abandon(core)


def _results(
    waiting: deque[TaskFuture[list[T]]],
    deadline: float | None,
    following: Iterator[TaskFuture[list[T]]] | None = None,
) -> Iterator[T]:
    """Yields what the futures hold in their order, and cancels the rest when nobody wants more. For each
    one that is awaited, another one that is `following` is submitted."""
    try:
        while waiting:
            # Out of the queue before it is yielded, so that nothing here keeps it alive.
            future = waiting.popleft()
            try:
                if following is not None:
                    waiting.extend(itertools.islice(following, 1))
                values = future.result(None if deadline is None else deadline - time.monotonic())
            finally:
                future.cancel()
                del future
            # Out of the list, too.
            values.reverse()
            yield from map(list.pop, itertools.repeat(values, len(values)))
    finally:
        for future in waiting:
            future.cancel()


def _finish(core: Core) -> None:
    core.stop(None)
    core.close()


def _abandon(core: Core) -> None:
    """An executor that nobody waits for, or that is no more: its calls still end, then its workers.

    Always by a thread: the collector may be at work in one that holds a lock of this very engine."""
    try:
        threading.Thread(target=_finish, args=(core,), name="miniflow-drain").start()
    except RuntimeError:
        pass  # the interpreter is about to end, and `_at_exit` has been here or will be


_live: weakref.WeakSet[Core] = weakref.WeakSet()
_executors: weakref.WeakSet[Executor] = weakref.WeakSet()


def _at_exit() -> None:
    """As the executors of the standard library do, take nothing more and let what was submitted end."""
    for executor in list(_executors):
        executor._shut = True
    for core in list(_live):
        _finish(core)


# Before non-daemon threads are joined, as concurrent.futures has it.
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]


def _after_fork() -> None:
    # The thread that held a lock is not in the child.
    for executor in list(_executors):
        executor._lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)

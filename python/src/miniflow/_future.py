"""The future of an :class:`~miniflow.Executor`.

A `concurrent.futures.Future` that costs a tenth: its condition, its waiters and its callbacks come into
being when somebody asks for them, and who asks :meth:`~TaskFuture.result` drives the engine himself.
`concurrent.futures.wait()`, `as_completed()` and `asyncio.wrap_future()` work on it as on any other.
"""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, Future, TimeoutError
from concurrent.futures._base import CANCELLED_AND_NOTIFIED, FINISHED, LOGGER, PENDING
from typing import TYPE_CHECKING, Any, Callable, Final, TypeVar

from . import _abi, _outcome, _wire

if TYPE_CHECKING:
    from ._core import Core

T = TypeVar("T")

_COMPLETED = _abi.MF_COMPLETED
_CANCELLED = _abi.MF_CANCELLED

# What stands in the place of the condition of a future that ended before somebody wanted one.
_ENDED: Final = "ended"


class TaskFuture(Future[T]):
    """The future of one task. See :class:`concurrent.futures.Future` for its methods."""

    # A new future, without a store: an instance has only what differs.
    _result: Any = None
    _exception: BaseException | None = None
    _raw: tuple[int, int, int, int, int, _wire.Readable] | None = None  # what came, until it is read
    _failed = False
    settled = False  # the end is here for everybody to see
    token = 0
    # The final state, as soon as it is known.
    _end: str | None = None
    # What came first: the condition of somebody who looks, or the end. This decides between two threads,
    # so it is only ever set by dict.setdefault. If there is a condition, the end is shown under it, as
    # concurrent.futures expects: whoever holds it sees the future pending, or sees it ended and will
    # not be told again.
    _first: threading.Condition | str | None = None
    _shown: str = PENDING  # the state, if there is a condition
    _owed: list[Any]  # waiters that do not know of the end yet
    ident: _abi.TaskId

    def __init__(self, core: Core) -> None:
        # Not super().__init__(): it makes a lock and two lists, see __getattr__.
        self._core = core

    def __getattr__(self, name: str) -> Any:
        """What only waits and callbacks use, and what concurrent.futures looks at while it does."""
        if name == "_state":
            return PENDING if self._pending() else self._end
        if name == "_condition":
            first = self._first
            if first is None:
                first = self.__dict__.setdefault("_first", threading.Condition())
            if first is _ENDED:
                # Nothing is left to be shown, but they want to lock something.
                return self.__dict__.setdefault("_condition", threading.Condition())
            return first
        if name == "_waiters":
            # Asked for by wait() and as_completed(), which then sleep until they are told.
            waiters = self.__dict__.setdefault("_waiters", [])
            if self._pending():
                self._core.watch(self)
            return waiters
        if name == "_done_callbacks":
            return self.__dict__.setdefault("_done_callbacks", [])
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        state = "pending" if self._pending() else "cancelled" if self.cancelled() else "finished"
        if state == "finished" and self._raw is None:
            error = self._exception
            state += f" returned {type(self._result).__name__}" if error is None else f" raised {error!r}"
        return f"<{type(self).__name__} at {id(self):#x} {state}>"

    def _pending(self) -> bool:
        first = self._first
        return first is None or (first is not _ENDED and self._shown == PENDING)

    # -- Sink

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
        """Takes the end of the task, once. What it says is read by whoever asks for it, in their own
        thread: unpickling runs other people's code."""
        if self._end is None:
            if outcome == _CANCELLED:
                self._end = CANCELLED_AND_NOTIFIED
            else:
                self._raw = (outcome, code, flags, worker, attempt, data)
                self._failed = outcome != _COMPLETED
                self._end = FINISHED
        if self.__dict__.setdefault("_first", _ENDED) is _ENDED:
            self.settled = True
        else:
            self._show()

    def _read(self) -> None:
        """Reads what the task said, if nobody has: its value or its exception."""
        raw = self._raw
        if raw is None:
            return
        value, error = _outcome.read(*raw)
        if error is not None:
            self._exception = error
        else:
            # Of two threads that read it at once, both get the same object.
            self.__dict__.setdefault("_result", value)
        self._raw = None

    def fail(self, error: BaseException) -> None:
        """Ends a future whose task was not submitted."""
        self._exception = error
        self._failed = True
        self._end = FINISHED
        self._show()

    def _show(self) -> None:
        """Makes the end known, or goes on with it where an interrupt has cut it short."""
        first = self.__dict__.setdefault("_first", _ENDED)
        if first is _ENDED:
            self.settled = True
            return
        with first:
            if self._shown == PENDING:
                # Those who come later see that it has ended, and do not count on being told.
                self._owed = list(self.__dict__.get("_waiters", ()))
                self._shown = self._end or FINISHED
            while self._owed:
                waiter = self._owed[0]
                if self._shown == CANCELLED_AND_NOTIFIED:
                    waiter.add_cancelled(self)
                elif self._failed:
                    waiter.add_exception(self)
                else:
                    waiter.add_result(self)
                # Afterwards: who is told twice, after an interrupt, may look once too often; who is
                # not told sleeps for ever.
                del self._owed[0]
        self.settled = True
        if "_done_callbacks" in self.__dict__:
            self._core.wake()  # a callback may wait for those who wait for this
            self._call_back()

    def _call_back(self) -> None:
        """Each callback once, also if two threads are at it or an interrupt comes up."""
        while True:
            with self._condition:
                if not self._done_callbacks:
                    return
                callback = self._done_callbacks.pop(0)
            try:
                callback(self)
            except BaseException as error:
                # In the main thread it may be a KeyboardInterrupt, which is not the callback's own.
                in_main = threading.current_thread() is threading.main_thread()
                if in_main and not isinstance(error, Exception):
                    raise
                LOGGER.exception("exception calling callback for %r", self)

    # -- Future

    def cancel(self) -> bool:
        """Cancels the task if no worker has been given it; whether it will never run."""
        if self._pending() and self._core.cancel(self):
            # The engine promises that it never runs; whoever settles its completion says the same.
            self._end = CANCELLED_AND_NOTIFIED
            self._show()
        return self.cancelled()

    def cancelled(self) -> bool:
        """Whether the task was cancelled."""
        return not self._pending() and self._end == CANCELLED_AND_NOTIFIED

    def running(self) -> bool:
        """Whether a worker runs the task now."""
        if not self._pending():
            return False
        state = self._core.state(self)
        return state is not None and state.running

    def done(self) -> bool:
        """Whether the task has ended or was cancelled."""
        if self._pending():
            self._core.drive(0)
        return not self._pending()

    def _await(self, timeout: float | None) -> None:
        if self._pending() and not self._core.wait(self, timeout):
            raise TimeoutError

    def result(self, timeout: float | None = None) -> T:
        """The task's value; waits for it, ``timeout`` seconds at most."""
        if not self.settled:
            self._await(timeout)
        if self._raw is not None:
            self._read()
        if self._exception is not None:
            try:
                raise self._exception
            finally:
                del self  # no cycle through the traceback
        if self._end == CANCELLED_AND_NOTIFIED:
            raise CancelledError
        result: T = self._result
        return result

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the task raised, if it did; waits as :meth:`result` does."""
        if not self.settled:
            self._await(timeout)
        if self._end == CANCELLED_AND_NOTIFIED:
            raise CancelledError
        if self._raw is not None:
            self._read()
        return self._exception

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        """Calls ``fn(self)`` when the task has ended: in the thread that drives, or now."""
        with self._condition:
            pending = self._pending()
            if pending:
                self._done_callbacks.append(fn)
        if pending:
            self._core.watch(self, by_loop=True)
            return
        try:
            fn(self)
        except Exception:
            LOGGER.exception("exception calling callback for %r", self)

    def set_running_or_notify_cancel(self) -> bool:
        """The engine does this by itself."""
        raise RuntimeError("the state of a task's future is set by its engine")

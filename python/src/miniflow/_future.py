"""The future of an :class:`~miniflow.Executor`.

A `concurrent.futures.Future` that costs a tenth: its condition, its waiters and its callbacks come into
being when somebody asks for them, and who asks :meth:`~TaskFuture.result` drives the engine himself.
`concurrent.futures.wait()`, `as_completed()` and `asyncio.wrap_future()` work on it as on any other.
"""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, Future, TimeoutError
from concurrent.futures._base import CANCELLED_AND_NOTIFIED, FINISHED, LOGGER, PENDING
from typing import TYPE_CHECKING, Any, Callable, TypeVar

from . import _abi, _outcome, _wire

if TYPE_CHECKING:
    from ._core import Core

T = TypeVar("T")

_COMPLETED = _abi.MF_COMPLETED
_CANCELLED = _abi.MF_CANCELLED
_loads = _wire.loads


class TaskFuture(Future[T]):
    """The future of one task. See :class:`concurrent.futures.Future` for its methods."""

    # The state of a new future, without a store: an instance has only what differs.
    _state: str = PENDING
    _result: Any = None
    _exception: BaseException | None = None
    settled = False
    token = 0
    _told = 0  # waiters that know of the end
    ident: _abi.TaskId
    _condition: threading.Condition
    _waiters: list[Any]
    _done_callbacks: list[Callable[[Future[T]], object]]

    def __init__(self, core: Core) -> None:
        # Not super().__init__(): it makes a lock and two lists, see __getattr__.
        self._core = core

    def __getattr__(self, name: str) -> Any:
        """Makes what only waits and callbacks need, when it is first used."""
        if name == "_condition":
            # setdefault: two threads may be here at once, and must get the same one. The order is what
            # counts: the condition first, then (by whoever asked for it) a look at the state. `settle`
            # has it the other way round, so one of the two sees the other.
            made = self.__dict__.setdefault(name, threading.Condition())
            if not self.settled:
                self._core.watch(self)
            return made
        if name in ("_waiters", "_done_callbacks"):
            return self.__dict__.setdefault(name, [])
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

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
        """Takes the end of the task, once."""
        if self.settled:
            return  # cancelled here before the engine said so, or said again after an interrupt
        if self._state == PENDING:
            state = FINISHED
            try:
                if outcome == _COMPLETED:
                    self._result = _loads(data)
                elif outcome == _CANCELLED:
                    state = CANCELLED_AND_NOTIFIED
                else:
                    self._exception = _outcome.failure(outcome, code, flags, worker, attempt, data)
            except Exception as error:  # what came cannot be unpickled here
                self._exception = error
            self._state = state
        if "_condition" in self.__dict__:
            self._announce()
        self.settled = True

    def _announce(self) -> None:
        with self._condition:
            while self._told < len(self._waiters):
                waiter = self._waiters[self._told]
                self._told += 1
                if self._state == CANCELLED_AND_NOTIFIED:
                    waiter.add_cancelled(self)
                elif self._exception is not None:
                    waiter.add_exception(self)
                else:
                    waiter.add_result(self)
            self._condition.notify_all()
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
            except Exception:
                LOGGER.exception("exception calling callback for %r", self)

    # -- Future

    def cancel(self) -> bool:
        """Cancels the task if no worker has been given it; whether it will never run."""
        if self._state != PENDING:
            return self._state == CANCELLED_AND_NOTIFIED
        if not self._core.cancel(self):
            return self.cancelled()
        # The engine promises that it never runs; whoever settles its completion says the same.
        self._state = CANCELLED_AND_NOTIFIED
        if "_condition" in self.__dict__:
            self._announce()
        self.settled = True
        return True

    def cancelled(self) -> bool:
        """Whether the task was cancelled."""
        return self._state == CANCELLED_AND_NOTIFIED

    def running(self) -> bool:
        """Whether a worker runs the task now."""
        if self._state != PENDING:
            return False
        state = self._core.state(self)
        return state is not None and state.running

    def done(self) -> bool:
        """Whether the task has ended or was cancelled."""
        if self._state == PENDING:
            self._core.drive(0)
        return self._state != PENDING

    def result(self, timeout: float | None = None) -> T:
        """The task's value; waits for it, ``timeout`` seconds at most."""
        if self._state == PENDING and not self._core.wait(self, timeout):
            raise TimeoutError
        if self._state == CANCELLED_AND_NOTIFIED:
            raise CancelledError
        if self._exception is not None:
            try:
                raise self._exception
            finally:
                del self  # no cycle through the traceback
        result: T = self._result
        return result

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the task raised, if it did; waits as :meth:`result` does."""
        if self._state == PENDING and not self._core.wait(self, timeout):
            raise TimeoutError
        if self._state == CANCELLED_AND_NOTIFIED:
            raise CancelledError
        return self._exception

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        """Calls ``fn(self)`` when the task has ended: in the thread that drives, or now."""
        with self._condition:
            self._done_callbacks.append(fn)
        # `settle` sets the state before it looks for a condition, and this made one before it looks
        # at the state: the callback is not forgotten, and taken off the list by one of both.
        if self._state != PENDING:
            self._call_back()

    def set_running_or_notify_cancel(self) -> bool:
        """The engine does this by itself."""
        raise RuntimeError("the state of a task's future is set by its engine")

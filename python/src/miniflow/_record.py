"""What an engine keeps of a task from its submission until its result is taken."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

from . import _abi, _outcome
from .errors import WorkerCrashed, signal_name
from .tasks import Result, Task, TaskStatus

if TYPE_CHECKING:
    from . import _wire

_COMPLETED = _abi.MF_COMPLETED
_STATUS = {
    _abi.MF_COMPLETED: TaskStatus.COMPLETED,
    _abi.MF_FAILED: TaskStatus.FAILED,
    _abi.MF_CRASHED: TaskStatus.FAILED,
    _abi.MF_TIMED_OUT: TaskStatus.FAILED,
    _abi.MF_CANCELLED: TaskStatus.CANCELLED,
}


class Ledger:
    """The records of an engine, by the ids of their tasks."""

    __slots__ = ("accepted", "ended", "held", "records")

    def __init__(self) -> None:
        #: Those whose results nobody has taken.
        self.records: dict[str, Record] = {}
        #: Those of them that are settled.
        self.ended: dict[str, Record] = {}
        #: How many there ever were.
        self.accepted = 0
        #: How many wait for other tasks, in workflows.
        self.held = 0

    def flying(self) -> int:
        """How many the workers have been given, or wait for one of them."""
        return len(self.records) - len(self.ended) - self.held


class Record:
    """The sink of one task. It keeps the end as it came: who takes the result unpickles it."""

    __slots__ = (
        "_attempt",
        "_code",
        "_data",
        "_ended_at",
        "_flags",
        "_ledger",
        "_outcome",
        "_queued_ns",
        "_run_ns",
        "_submitted_at",
        "_worker",
        "ident",
        "settled",
        "task",
        "task_id",
        "token",
        "waiting",
    )

    ident: _abi.TaskId
    token: int

    def __init__(self, task: Task, ledger: Ledger) -> None:
        self.settled = False
        self.task = task
        self.task_id = task.id  # a program may change the task's
        #: Threads that wait for the result; about right is enough.
        self.waiting = 0
        self._ledger = ledger
        self._submitted_at = time.time()

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
        """Takes the end of the task."""
        if self.settled:
            return
        if data.__class__ is memoryview and not self.waiting:
            # Nobody may come for it soon, and its worker wants the memory back.
            try:
                data = bytes(data)
            except MemoryError:
                pass  # then it stays where it is
        self._outcome = outcome
        self._code = code
        self._flags = flags
        self._worker = worker
        self._attempt = attempt
        self._data: _wire.Readable = data
        self._queued_ns = queued_ns
        self._run_ns = run_ns
        # The engine measures spans; the one that it cannot know is that of a task that never ran.
        span = (queued_ns + run_ns) * 1e-9
        self._ended_at = self._submitted_at + span if attempt else time.time()
        task = self.task
        task.retry_count = attempt - 1 if attempt > 1 else 0
        task._status = _STATUS[outcome]
        task._look = None
        self._ledger.ended[self.task_id] = self
        self.settled = True

    @property
    def outcome(self) -> int:
        """How it ended, once it is settled."""
        return self._outcome

    def value(self) -> Any:
        """What the task returned, once it has completed."""
        return _outcome.value(self._data)[0]

    def why(self) -> str:
        """What went wrong, once it has ended otherwise."""
        return self.result(0).error or "for a reason that it did not tell"

    def result(self, io_base: int) -> Result:
        """The result, once it is settled. `io_base` is the number of the first IO-bound worker."""
        attempt, worker = self._attempt, self._worker
        outcome, data = self._outcome, self._data
        result = Result(
            self.task_id,
            _STATUS[outcome],
            started_at=self._submitted_at + self._queued_ns * 1e-9 if attempt else None,
            completed_at=self._ended_at,
            worker_id=None if worker == _abi.MF_NO_WORKER else worker_name(worker, io_base),
            attempt=attempt,
            queued_ms=self._queued_ns * 1e-6,
            run_ms=self._run_ns * 1e-6,
        )
        try:
            if outcome == _COMPLETED:
                result.data, result.stdout, result.stderr = _outcome.value(data)
            elif self._flags & _abi.MF_F_DATA:
                _tell_raised(result, _outcome.raised(data))
            else:
                # The engine tells of tasks by ids of its own.
                told = bytes(data).replace(self._engine_id().encode(), self.task_id.encode())
                error = _outcome.failure(outcome, self._code, self._flags, worker, attempt, told)
                _tell_failed(result, error)
        except Exception as error:  # whatever an object raises that cannot be unpickled here
            result.status = TaskStatus.FAILED
            _tell_failed(result, error)
            result.error = f"the result cannot be unpickled here: {type(error).__name__}: {error}"
        return result

    def _engine_id(self) -> str:
        return str(uuid.UUID(bytes=bytes(self.ident.bytes)))


def worker_name(slot: int, io_base: int) -> str:
    """The name that scripts know a worker by: its class, and its number in it."""
    return f"cpu-{slot}" if slot < io_base else f"io-{slot - io_base}"


def _tell_raised(result: Result, raised: _outcome.Raised) -> None:
    """Fills in what a script raised, which is unpickled only if somebody asks for it."""
    result.error = raised.text or raised.type_name
    result.error_details = {"type": raised.type_name, "traceback": raised.traceback}
    result.stdout = raised.stdout
    result.stderr = raised.stderr
    result._failure = raised


def _tell_failed(result: Result, error: BaseException) -> None:
    """Fills in why a task failed that did not say so itself."""
    details: dict[str, Any] = {"type": type(error).__name__}
    if isinstance(error, WorkerCrashed):
        details["signal"] = error.signal
        details["signal_name"] = signal_name(error.signal) if error.signal else None
        details["exit_code"] = error.exit_code
        details["collateral"] = error.collateral
    result.error = getattr(error, "message", None) or str(error)
    result.error_details = details
    result._failure = error
    if hasattr(error, "task_id"):
        error.task_id = result.task_id

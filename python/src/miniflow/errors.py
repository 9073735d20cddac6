"""The exceptions of miniflow.

All of them are `EngineError`: they have a `message`, a `code` that does not change between versions, print as
`[CODE] message`, and survive pickling. The codes are listed in `CODES`.
"""

from __future__ import annotations

import signal as _signal
from typing import Any

__all__ = [
    "CODES",
    "ConfigError",
    "EngineError",
    "ExecutorError",
    "QueueError",
    "QueueFull",
    "TaskCancelled",
    "TaskError",
    "TaskTimeout",
    "WorkerCrashed",
    "WorkerError",
    "signal_name",
]

#: Every code, and what it stands for.
CODES: dict[str, str] = {
    "ENG000": "the engine cannot do that, for a reason that has no code of its own",
    "ENG001": "the engine is started already",
    "ENG002": "the engine is not started, or was shut down",
    "ENG003": "the engine cannot start",
    "TASK000": "the task is not one that the engine can take, or it failed",
    "TASK001": "as many tasks wait to be started as the input queue has room for",
    "TASK002": "the engine is overloaded: as many results wait to be taken as the output queue has room for",
    "TASK003": "the task ran for longer than its timeout",
    "TASK004": "the task was cancelled",
    "TASK005": "a task with this id is in the engine already",
    "TASK006": "a workflow is not a directed acyclic graph, or a task depends on one that is not in it",
    "QUEUE000": "a queue cannot do that",
    "QUEUE001": "the queue is full",
    "CONFIG000": "a setting has a value that it cannot have",
    "EXEC000": "an executor cannot do that",
    "WORKER000": "a worker cannot do that, or did something that it must not",
    "WORKER001": "a worker process died while it ran the task",
}


class EngineError(Exception):
    """What miniflow raises when something is wrong with itself or with how it is used.

    Exceptions that a task raises are not wrapped in one: they are handed on as they are.
    """

    #: The code of those that are made without one.
    default_code = "ENG000"

    #: What is wrong, for people, without the code.
    message: str
    #: One of `CODES`, for programs.
    code: str

    def __init__(self, message: str = "", code: str | None = None) -> None:
        # Not super().__init__(): OSError, a base of TaskTimeout, gives its arguments meanings of its own.
        self.args = (message,)
        self.message = message
        self.code = self.default_code if code is None else code

    def __str__(self) -> str:
        return f"[{self.code}] {self.message}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r}, code={self.code!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        # The default calls the class with `args`, which would lose the code, and fails for subclasses whose
        # constructors take something else.
        return _rebuilt, (type(self), self.message), self.__dict__.copy()


def _rebuilt(kind: type[EngineError], message: str) -> EngineError:
    """An unpickled error before it gets its attributes."""
    error = kind.__new__(kind, message)
    error.args = (message,)
    return error


class TaskError(EngineError):
    """Something is wrong with one task."""

    default_code = "TASK000"

    #: The task's id, if it has one.
    task_id: str | None

    def __init__(self, message: str = "", code: str | None = None, task_id: str | None = None) -> None:
        super().__init__(message, code)
        self.task_id = task_id


class TaskTimeout(TaskError, TimeoutError):
    """The task ran for longer than its timeout; its worker was killed unless the task ended by itself."""

    default_code = "TASK003"


class TaskCancelled(TaskError):
    """The task was cancelled, before it was started or while it ran."""

    default_code = "TASK004"


class QueueError(EngineError):
    """Something is wrong with a queue."""

    default_code = "QUEUE000"


class QueueFull(QueueError):
    """A bounded queue is full and the caller did not want to wait, or has waited for long enough."""

    default_code = "QUEUE001"


class ConfigError(EngineError, ValueError):
    """A setting has a value that it cannot have. Also a `ValueError`."""

    default_code = "CONFIG000"


class ExecutorError(EngineError):
    """Something is wrong with an executor."""

    default_code = "EXEC000"


class WorkerError(EngineError):
    """Something is wrong with a worker process."""

    default_code = "WORKER000"


class WorkerCrashed(WorkerError):
    """The worker process died while it ran the task. All other tasks go on, on other workers."""

    default_code = "WORKER001"

    #: The number of the signal that the process died of; None if it exited.
    signal: int | None
    #: What the process exited with; None if it died of a signal.
    exit_code: int | None
    #: The worker's number.
    worker: int | None
    #: Which start of the task this was, from 1; the starts before it ended in the same way.
    attempt: int
    #: True if the worker ran other tasks beside this one, and one of those may be to blame.
    collateral: bool
    #: All that is known about the death: the process, the task, and where in the code, if it was a fault.
    report: str

    def __init__(
        self,
        message: str = "",
        code: str | None = None,
        *,
        signal: int | None = None,
        exit_code: int | None = None,
        worker: int | None = None,
        attempt: int = 1,
        collateral: bool = False,
        report: str = "",
    ) -> None:
        how = _death(signal, exit_code)
        if not message:
            message = report or f"worker {'?' if worker is None else worker} {how}"
            if how not in message:
                message = f"{message} ({how})"
            if collateral:
                message += "; a task that ran beside this one may be to blame"
        super().__init__(message, code)
        self.signal = signal
        self.exit_code = exit_code
        self.worker = worker
        self.attempt = attempt
        self.collateral = collateral
        self.report = report


def signal_name(number: int) -> str:
    """`SIGKILL` for 9; `signal 99` for a number that has no name here."""
    try:
        return _signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _death(signal: int | None, exit_code: int | None) -> str:
    if signal is not None:
        return f"died of {signal_name(signal)}" if signal else "died of an unknown signal"
    if exit_code is not None:
        return f"exited with code {exit_code}"
    return "died"

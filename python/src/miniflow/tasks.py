"""What a program hands to an :class:`~miniflow.Engine` and gets back: tasks and results."""

from __future__ import annotations

import os
import random
import reprlib
import time
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from enum import Enum
from typing import Any, Callable, NamedTuple, Protocol

from .errors import ConfigError

__all__ = ["Result", "Task", "TaskProgress", "TaskStatus", "TaskType"]


class TaskType(Enum):
    """Which workers a task is for."""

    CPU_BOUND = "cpu_bound"
    IO_BOUND = "io_bound"


class TaskStatus(Enum):
    """Where a task is."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class TaskProgress(NamedTuple):
    """Where a task is, and how far it says it has come."""

    status: TaskStatus
    #: The worker that runs it, such as "io-0".
    worker_id: str | None
    #: Seconds since its start; 0 unless it is running.
    elapsed: float
    #: What it last gave to `context.progress(done, total)`; a total of 0 is not known.
    done: int
    total: int


_COMPLETED = TaskStatus.COMPLETED

# Ids must be unique, not secret, and uuid.uuid4() would be most of what a task costs. A forked child
# must not go on with its parent's sequence.
_random = random.Random()
os.register_at_fork(after_in_child=_random.seed)
_random_bits = _random.getrandbits
_UUID_CLEAR = ~(0xF << 76 | 0x3 << 62)
_UUID_SET = 0x4 << 76 | 0x2 << 62  # version 4, of the variant of RFC 9562


def new_id() -> str:
    """A random UUID."""
    text = "%032x" % (_random_bits(128) & _UUID_CLEAR | _UUID_SET)
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _moment(value: datetime | float | None) -> datetime | None:
    """A time as programs see it, of one as it is kept: most are never looked at."""
    if value.__class__ is float:
        return datetime.fromtimestamp(value, timezone.utc)
    return value  # type: ignore[return-value]


class Task:
    """A script to be run, with its parameters. Other attributes may be set on it at will."""

    __slots__ = (
        "__dict__",
        "__weakref__",
        "_created_at",
        "_look",
        "_status",
        "dependencies",
        "id",
        "max_retries",
        "params",
        "priority",
        "retry_count",
        "script_path",
        "sticky_key",
        "task_type",
        "timeout",
    )

    #: A UUID, unless the program chose something else.
    id: str
    #: The file whose `main(params, context)` is to be called.
    script_path: str
    #: What `main` gets; a dict by convention.
    params: Any
    task_type: TaskType
    #: How often the task may be started again after its worker died. An exception in the script is not
    #: retried.
    max_retries: int
    #: How often it was started again.
    retry_count: int
    #: Ids of the tasks of the same workflow whose results it needs.
    dependencies: list[str]
    #: Seconds that each start of it may run; None: as the engine's configuration says.
    timeout: float | None
    #: From -3 to 3: tasks of higher priority are started first.
    priority: int
    #: Tasks of one type with the same key run on the same worker; None: on any.
    sticky_key: int | str | bytes | None

    def __init__(
        self,
        script_path: str | os.PathLike[str],
        params: Any = None,
        # Not as in `create`: programs rely on either.
        task_type: TaskType = TaskType.CPU_BOUND,
        max_retries: int = 3,
        dependencies: Iterable[str] | None = None,
        *,
        id: str | None = None,
        created_at: datetime | None = None,
        status: TaskStatus = TaskStatus.PENDING,
        retry_count: int = 0,
        timeout: float | None = None,
        priority: int = 0,
        sticky_key: int | str | bytes | None = None,
    ) -> None:
        if script_path.__class__ is not str:
            script_path = os.fspath(script_path)
        if task_type.__class__ is not TaskType:
            task_type = TaskType(task_type)
        if not script_path:
            raise ConfigError("script_path is empty: name the file whose main() is to run")
        if max_retries < 0:
            raise ConfigError(f"max_retries is {max_retries}: it cannot be negative")
        if timeout is not None and timeout <= 0:
            raise ConfigError(f"timeout is {timeout}: it must be more than 0 seconds, or None")
        if priority and not -3 <= priority <= 3:
            raise ConfigError(f"priority is {priority}: it must be from -3 to 3")
        self.id = new_id() if id is None else id
        self.script_path = script_path
        self.params = {} if params is None else params
        self.task_type = task_type
        self.max_retries = max_retries
        self.retry_count = retry_count
        self.dependencies = [] if dependencies is None else list(dependencies)
        self.timeout = timeout
        self.priority = priority
        self.sticky_key = sticky_key
        self._created_at: datetime | float = time.time() if created_at is None else created_at
        self._status = status
        self._look: Callable[[Task], None] | None = None

    @classmethod
    def create(
        cls,
        script_path: str | os.PathLike[str],
        params: Any = None,
        task_type: TaskType = TaskType.IO_BOUND,
        max_retries: int = 3,
        dependencies: Iterable[str] | None = None,
        *,
        timeout: float | None = None,
        priority: int = 0,
        sticky_key: int | str | bytes | None = None,
    ) -> Task:
        """A new task with an id of its own, known before it is submitted."""
        return cls(
            script_path,
            params,
            task_type,
            max_retries,
            dependencies,
            timeout=timeout,
            priority=priority,
            sticky_key=sticky_key,
        )

    @property
    def created_at(self) -> datetime:
        """When this object was made, in UTC."""
        return _moment(self._created_at)  # type: ignore[return-value]

    @created_at.setter
    def created_at(self, value: datetime) -> None:
        self._created_at = value

    @property
    def status(self) -> TaskStatus:
        """Where the task is now. While it is in an engine, this asks the engine."""
        look = self._look
        if look is not None:
            look(self)
        return self._status

    @status.setter
    def status(self, value: TaskStatus) -> None:
        self._status = value

    def to_dict(self) -> dict[str, Any]:
        """The task as a dict for `from_dict`, with `timeout`, `priority` and `sticky_key` if they are set."""
        result: dict[str, Any] = {
            "task_id": self.id,
            "script_path": self.script_path,
            "params": self.params,
            "task_type": self.task_type.value,
            "max_retries": self.max_retries,
            "dependencies": list(self.dependencies),
        }
        if self.timeout is not None:
            result["timeout"] = self.timeout
        if self.priority:
            result["priority"] = self.priority
        if self.sticky_key is not None:
            result["sticky_key"] = self.sticky_key
        return result

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Task:
        """A task like the one that `to_dict` was asked of, with its id."""
        return cls(
            data.get("script_path", ""),
            data.get("params"),
            TaskType(data.get("task_type", "io_bound")),
            data.get("max_retries", 3),
            data.get("dependencies"),
            id=data.get("task_id"),
            timeout=data.get("timeout"),
            priority=data.get("priority", 0),
            sticky_key=data.get("sticky_key"),
        )

    def __repr__(self) -> str:
        return f"<Task {self.id} {self.script_path!r} {self._status.value}>"

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy has no engine behind it.
        state = {name: getattr(self, name) for name in _TASK_STATE}
        return object.__new__, (type(self),), {**self.__dict__, **state, "_look": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


_TASK_STATE = [name for name in Task.__slots__ if name[:2] != "__" and name != "_look"]


class _Failure(Protocol):
    """What can be turned into the exception that a task failed with."""

    def exception(self) -> BaseException: ...


class Result:
    """What became of a task."""

    __slots__ = (
        "__dict__",
        "__weakref__",
        "_completed_at",
        "_failure",
        "_started_at",
        "attempt",
        "data",
        "error",
        "error_details",
        "queued_ms",
        "run_ms",
        "status",
        "stderr",
        "stdout",
        "task_id",
        "worker_id",
    )

    task_id: str
    #: COMPLETED, FAILED or CANCELLED.
    status: TaskStatus
    #: What the script returned.
    data: Any
    #: Why the task failed, in one line; None if it completed.
    error: str | None
    #: More about it: `type`, the name of the exception's class, and what that kind of failure has to tell:
    #: `traceback`; or `signal`, `signal_name`, `exit_code` and `collateral` if the worker died.
    error_details: dict[str, Any] | None
    #: What the task printed, if the engine captures output.
    stdout: str
    stderr: str
    #: The worker that ran it last, such as "io-0"; None if none did.
    worker_id: str | None
    #: 1 if it ended in its first start; 0 if it was never started.
    attempt: int
    #: Milliseconds from its submission to its last start, and from there to its end.
    queued_ms: float | None
    run_ms: float | None

    def __init__(
        self,
        task_id: str,
        status: TaskStatus,
        data: Any = None,
        error: str | None = None,
        error_details: dict[str, Any] | None = None,
        started_at: datetime | float | None = None,
        completed_at: datetime | float | None = None,
        *,
        stdout: str = "",
        stderr: str = "",
        worker_id: str | None = None,
        attempt: int = 0,
        queued_ms: float | None = None,
        run_ms: float | None = None,
        exception: BaseException | _Failure | None = None,
    ) -> None:
        self.task_id = task_id
        self.status = status
        self.data = data
        self.error = error
        self.error_details = error_details
        self._started_at = started_at
        self._completed_at = time.time() if completed_at is None else completed_at
        self.stdout = stdout
        self.stderr = stderr
        self.worker_id = worker_id
        self.attempt = attempt
        self.queued_ms = queued_ms
        self.run_ms = run_ms
        self._failure = exception

    @classmethod
    def success(cls, task_id: str, data: Any, started_at: datetime | None = None) -> Result:
        """The result of a task that completed now."""
        return cls(task_id, TaskStatus.COMPLETED, data, started_at=started_at)

    @classmethod
    def failed(cls, task_id: str, error: str, started_at: datetime | None = None) -> Result:
        """The result of a task that failed now."""
        return cls(task_id, TaskStatus.FAILED, error=error, started_at=started_at)

    @property
    def is_success(self) -> bool:
        """Whether the task completed."""
        return self.status is _COMPLETED

    @property
    def is_failed(self) -> bool:
        """Whether it did not."""
        return self.status is not _COMPLETED

    @property
    def started_at(self) -> datetime | None:
        """When the task was started, the last time, in UTC; None if it never was."""
        return _moment(self._started_at)

    @started_at.setter
    def started_at(self, value: datetime | None) -> None:
        self._started_at = value

    @property
    def completed_at(self) -> datetime:
        """When the task ended, in UTC."""
        return _moment(self._completed_at)  # type: ignore[return-value]

    @completed_at.setter
    def completed_at(self, value: datetime) -> None:
        self._completed_at = value

    @property
    def duration(self) -> float | None:
        """Seconds from the start to the end; None if the task was never started."""
        start, end = self.started_at, self.completed_at
        if start is None:
            return None
        if start.tzinfo is None:  # a program's own datetime.now()
            start = start.astimezone()
        if end.tzinfo is None:
            end = end.astimezone()
        return (end - start).total_seconds()

    @property
    def exception(self) -> BaseException | None:
        """What the script raised, with the traceback in the worker as its cause; or the error of miniflow
        that tells why the task did not complete. None if it did."""
        failure = self._failure
        if failure is not None and not isinstance(failure, BaseException):
            failure = self._failure = failure.exception()
        return failure

    def to_dict(self) -> dict[str, Any]:
        """The result as a dict, for `from_dict`; a status other than COMPLETED is "FAILED" there."""
        start = self.started_at
        result: dict[str, Any] = {
            "task_id": self.task_id,
            "status": "SUCCESS" if self.is_success else "FAILED",
            "data": self.data,
            "error": self.error,
            "error_details": self.error_details,
            "started_at": None if start is None else start.isoformat(),
            "completed_at": self.completed_at.isoformat(),
        }
        for name in _RESULT_EXTRAS:
            value = getattr(self, name)
            if value:
                result[name] = value
        return result

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Result:
        """A result like the one that `to_dict` was asked of, but for its exception."""
        start, end = data.get("started_at"), data.get("completed_at")
        return cls(
            data.get("task_id", "unknown"),
            TaskStatus.COMPLETED if data.get("status") == "SUCCESS" else TaskStatus.FAILED,
            data.get("data"),
            data.get("error"),
            data.get("error_details"),
            datetime.fromisoformat(start) if start else None,
            datetime.fromisoformat(end) if end else None,
            **{name: data[name] for name in _RESULT_EXTRAS if name in data},
        )

    def __repr__(self) -> str:
        outcome = reprlib.repr(self.data) if self.is_success else self.error
        return f"<Result of {self.task_id}: {self.status.value}, {outcome}>"

    def __reduce__(self) -> tuple[Any, ...]:
        state = {name: getattr(self, name) for name in _RESULT_STATE}
        return object.__new__, (type(self),), {**self.__dict__, **state}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


_RESULT_EXTRAS = ("stdout", "stderr", "worker_id", "attempt", "queued_ms", "run_ms")
_RESULT_STATE = [name for name in Result.__slots__ if name[:2] != "__"]

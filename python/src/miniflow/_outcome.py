"""What became of a task, as a value or an exception."""

from __future__ import annotations

import pickle
from typing import Any, NamedTuple

from . import _abi, _wire
from .errors import TaskCancelled, TaskError, TaskTimeout, WorkerCrashed

_VALUE = _wire.VALUE[0]


class RemoteTraceback(Exception):
    """The traceback of an exception in a worker, as the cause of the exception here."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class Raised(NamedTuple):
    """An exception as it came from a worker."""

    pickled: bytes | None
    type_name: str
    text: str
    traceback: str
    stdout: str
    stderr: str

    def exception(self) -> BaseException:
        """The exception itself if it can be unpickled here, else a TaskError that tells of it."""
        error: BaseException
        try:
            if self.pickled is None:
                raise ValueError
            error = pickle.loads(self.pickled)
            if not isinstance(error, BaseException):
                raise TypeError
        except Exception:
            error = TaskError(f"{self.type_name}: {self.text}")
        error.__cause__ = RemoteTraceback(self.traceback)
        return error


def raised(data: _wire.Readable) -> Raised:
    """What a RAISED message says."""
    return Raised(*_wire.loads(data))


def failure(
    outcome: int, code: int, flags: int, worker: int, attempt: int, data: _wire.Readable
) -> BaseException:
    """The exception that stands for a task that did not complete."""
    if flags & _abi.MF_F_DATA:
        return raised(data).exception()
    text = bytes(data).decode("utf-8", "replace")
    if outcome == _abi.MF_CRASHED:
        by_signal = bool(flags & _abi.MF_F_BY_SIGNAL)
        return WorkerCrashed(
            signal=code if by_signal else None,
            exit_code=None if by_signal else code,
            worker=None if worker == _abi.MF_NO_WORKER else worker,
            attempt=attempt,
            collateral=bool(flags & _abi.MF_F_COLLATERAL),
            report=text,
        )
    if outcome == _abi.MF_TIMED_OUT:
        return TaskTimeout(text or "the task ran for longer than its timeout")
    if outcome == _abi.MF_CANCELLED:
        return TaskCancelled(text or "the task was cancelled")
    return TaskError(text or f"the task failed with code {code}")


def value(data: _wire.Readable) -> tuple[Any, str, str]:
    """The value of a task that completed, and its output if that was captured."""
    if data[0] == _VALUE:
        return pickle.loads(data[1:]), "", ""
    got = _wire.loads(data)
    if _wire.kind_of(data) == _wire.VALUE_AND_OUTPUT:
        result, stdout, stderr = got
        return result, stdout, stderr
    return got, "", ""


def read(
    outcome: int, code: int, flags: int, worker: int, attempt: int, data: _wire.Readable
) -> tuple[Any, BaseException | None]:
    """The value of a task that completed, or the exception in its place, also if the value cannot be
    unpickled here. Raises only what is the reader's own: an interrupt, or the end of its stack."""
    try:
        if outcome == _abi.MF_COMPLETED:
            return value(data)[0], None
        return None, failure(outcome, code, flags, worker, attempt, data)
    except (RecursionError, MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:
        return None, error
    except BaseException as error:  # which shall not end the reader
        return None, TaskError(f"the result cannot be unpickled: {type(error).__name__}: {error}")

"""Runs a task of any kind, and says in the wire's terms what came of it."""

from __future__ import annotations

import ctypes
import json
from typing import Any

from .. import _abi, _wire
from ..errors import WorkerError
from . import failures, output
from .context import Context
from .scripts import Scripts

_OK = 0
_RAISED = 1
_CLASSES = {_abi.MF_CPU_BOUND: "cpu", _abi.MF_IO_BOUND: "io"}


class Runner:
    """Runs the tasks of one worker, on any of its threads."""

    def __init__(self, worker: ctypes.c_void_p, *, capture: bool, io_base: int) -> None:
        slot = _abi.check(_abi.lib.mf_worker_slot(worker))
        task_class = _abi.check(_abi.lib.mf_worker_class(worker))
        if task_class == _abi.MF_IO_BOUND:
            slot -= io_base  # its number in its class
        self._name = f"{_CLASSES[task_class]}-{slot}"
        self._scripts = Scripts()
        self._capture = output.Capture() if capture else None
        # Why no task can be run here, if the initializer failed.
        self._broken: BaseException | None = None

    def initialize(self, message: bytes) -> None:
        """Calls the initializer. If it raises, so does every task, with that as its cause: a worker
        that ended instead would be replaced by another one that ends."""
        try:
            function, args, kwargs = _wire.loads(message)
            function(*args, **kwargs)
        except BaseException as error:
            self._broken = error

    def run(self, work: _abi.Work, payload: _wire.Readable) -> tuple[int, _wire.Message]:
        """Runs a task: its code (0 if it did not raise) and its reply. Never raises."""
        if payload[0] == 67 and self._capture is None:  # CALL, the fast one
            try:
                if self._broken is not None:
                    raise self._no_initializer()
                function, args, kwargs = _wire.loads(payload)
                return _OK, _wire.dump(_wire.VALUE, function(*args, **kwargs))
            except BaseException as error:
                return _RAISED, failures.encode(error)
        return self._run(work, payload)

    def _run(self, work: _abi.Work, payload: _wire.Readable) -> tuple[int, _wire.Message]:
        kind = _wire.kind_of(payload)
        as_json = kind == _wire.JSON_SCRIPT
        captured = None if self._capture is None else self._capture.start()
        error: BaseException | None = None
        value: Any = None
        try:
            if self._broken is not None:
                raise self._no_initializer()
            value = self._value(kind, work, payload)
        except BaseException as raised:
            error = raised
        stdout, stderr = ("", "") if captured is None else captured.stop()
        if error is None:
            try:
                if as_json:
                    return _OK, _json_value(value, stdout, stderr)
                if captured is not None:
                    return _OK, _wire.dump(_wire.VALUE_AND_OUTPUT, (value, stdout, stderr))
                return _OK, _wire.dump(_wire.VALUE, value)
            except BaseException as raised:  # it cannot be pickled, or is no JSON
                error = raised
        encode = failures.encode_json if as_json else failures.encode
        return _RAISED, encode(error, stdout, stderr)

    def _value(self, kind: bytes, work: _abi.Work, payload: _wire.Readable) -> Any:
        if kind == _wire.CALL:
            function, args, kwargs = _wire.loads(payload)
            return function(*args, **kwargs)
        if kind == _wire.CHUNK:
            function, columns = _wire.loads(payload)
            return list(map(function, *columns))
        if kind == _wire.SCRIPT:
            path, params, *own_id = _wire.loads(payload)
            return self._scripts.run(path, params, self._context(work, *own_id))
        context = self._context(work)
        if kind == _wire.ITEM:
            return self._scripts.run_item(_wire.loads(payload), context)
        if kind == _wire.JSON_SCRIPT:
            order = json.loads(bytes(payload[1:]))
            return self._scripts.run(order["script"], order["params"], context)
        raise WorkerError(f"a task of the unknown kind {kind!r}: host and worker differ in version")

    def _context(self, work: _abi.Work, task_id: str | None = None) -> Context:
        task = work.task
        if task_id is None:
            label = bytes(work.label)
            digits = (label if any(label) else bytes(work.id.bytes)).hex()
            task_id = f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
        return Context(
            task_id,
            self._name,
            work.attempt,
            lambda: _abi.fast.mf_task_cancelled(task) == 1,
            lambda done, total: _report(task, done, total),
        )

    def _no_initializer(self) -> WorkerError:
        failed = WorkerError(f"the worker's initializer failed: {self._broken!r}")
        failed.__cause__ = self._broken
        return failed

    def refusal(self, why: str) -> bytes:
        """The reply of a task whose own reply cannot be stored."""
        return failures.encode(WorkerError(why))


def _report(task: int | None, done: int, total: int) -> None:
    _abi.fast.mf_task_progress(task, done, total)


def _json_value(value: Any, stdout: str, stderr: str) -> bytes:
    order: dict[str, Any] = {"data": value}
    if stdout:
        order["stdout"] = stdout
    if stderr:
        order["stderr"] = stderr
    return _wire.JSON_VALUE + json.dumps(order, allow_nan=False).encode()

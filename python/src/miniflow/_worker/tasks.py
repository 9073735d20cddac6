"""Runs a task of any kind, and says in the wire's terms what came of it."""

from __future__ import annotations

import ctypes
import json
import pickle
from typing import Any

from .. import _abi, _wire
from ..errors import WorkerError
from . import output, portable
from .context import Context
from .failure import Failure
from .scripts import Scripts

_CALL = _wire.CALL[0]
_SCRIPT = _wire.SCRIPT[0]
_PLAIN = (_CALL, _SCRIPT)
_OK = 0
_RAISED = 1
_loads = pickle.loads


class Runner:
    """Runs the tasks of one worker, on any of its threads."""

    def __init__(self, worker: ctypes.c_void_p, *, capture: bool, first_io_worker: int) -> None:
        slot = _abi.check(_abi.lib.mf_worker_slot(worker))
        task_class = _abi.check(_abi.lib.mf_worker_class(worker))
        is_io = task_class == _abi.MF_IO_BOUND
        self._name = f"io-{slot - first_io_worker}" if is_io else f"cpu-{slot}"
        self._scripts = Scripts()
        self._capture = capture
        if capture:
            output.install()
        # Why no task can be run here, if the initializer failed.
        self._broken: BaseException | None = None
        # Whether tasks need nothing around them, which is how it mostly is.
        self._is_plain = not capture

    def initialize(self, message: bytes) -> None:
        """Calls the initializer. If it raises, so does every task, with that as its cause: a worker
        that ended instead would be replaced by another one that ends."""
        try:
            function, args, kwargs = _wire.loads(message)
            function(*args, **kwargs)
        except BaseException as error:
            self._broken = error
            self._is_plain = False

    def run(self, work: _abi.Work, payload: _wire.Readable) -> tuple[int, _wire.Message]:
        """Runs a task: its code (0 if it did not raise) and its reply. Never raises."""
        kind = payload[0]
        if self._is_plain and kind in _PLAIN:
            try:
                if kind == _CALL:
                    function, args, kwargs = _loads(payload[1:])
                    return _OK, _wire.dump(_wire.VALUE, function(*args, **kwargs))
                order = _loads(payload[1:])
                context = self._context(work)
                if len(order) > 2:
                    context.task_id = order[2]  # one that is no UUID
                return _OK, _script_value(_wire.VALUE, self._scripts.run(order[0], order[1], context))
            except BaseException as error:
                return _RAISED, Failure.of(error).to_pickle()
        return self._run(work, payload)

    def _run(self, work: _abi.Work, payload: _wire.Readable) -> tuple[int, _wire.Message]:
        kind = _wire.kind_of(payload)
        captured = output.Captured() if self._capture else None
        if captured is not None:
            captured.start()
        error: BaseException | None = None
        value: Any = None
        try:
            if self._broken is not None:
                raise self._no_initializer()
            value = self._value(kind, work, payload)
        except BaseException as raised:
            error = raised
        printed = ("", "") if captured is None else captured.finish()
        as_json = kind == _wire.JSON_SCRIPT
        if error is None:
            try:
                if as_json:
                    return _OK, _json_value(value, *printed)
                return _OK, self._pickled(kind, value, printed)
            except BaseException as raised:  # it cannot be pickled, or is no JSON
                error = raised
        failure = Failure.of(error)
        return _RAISED, failure.to_json(*printed) if as_json else failure.to_pickle(*printed)

    def _pickled(self, kind: bytes, value: Any, printed: tuple[str, str]) -> _wire.Message:
        reply = _wire.VALUE
        if self._capture:
            reply = _wire.VALUE_AND_OUTPUT
            value = (value, *printed)
        if kind == _wire.CALL or kind == _wire.CHUNK:
            return _wire.dump(reply, value)
        return _script_value(reply, value)

    def _value(self, kind: bytes, work: _abi.Work, payload: _wire.Readable) -> Any:
        if kind == _wire.CALL:
            function, args, kwargs = _wire.loads(payload)
            return function(*args, **kwargs)
        if kind == _wire.CHUNK:
            function, columns = _wire.loads(payload)
            values = list(map(function, *columns))
            if len(values) != len(columns[0]):
                # As in a generator: it would pass for the end of the columns.
                raise RuntimeError("the function raised StopIteration")
            return values
        context = self._context(work)
        if kind == _wire.SCRIPT:
            path, params, *named = _wire.loads(payload)
            if named:
                context.task_id = named[0]  # one that is no UUID
            return self._scripts.run(path, params, context)
        if kind == _wire.ITEM:
            return self._scripts.run_item(_wire.loads(payload), context)
        if kind == _wire.JSON_SCRIPT:
            order = json.loads(bytes(payload[1:]))
            return self._scripts.run(order["script"], order["params"], context)
        raise WorkerError(f"a task of the unknown kind {kind!r}: host and worker differ in version")

    def _context(self, work: _abi.Work) -> Context:
        task = work.task
        label = bytes(work.label)
        if not any(label):
            label = bytes(work.id.bytes)
        digits = label.hex()
        return Context(
            f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}",
            self._name,
            work.attempt,
            lambda: _abi.fast.mf_task_cancelled(task) == 1,
            lambda done, total: _report(task, done, total),
        )

    def _no_initializer(self) -> WorkerError:
        failed = WorkerError(f"the worker's initializer failed: {self._broken!r}")
        failed.__cause__ = self._broken
        return failed

    def refusal(self, why: str, *, as_json: bool) -> bytes:
        """The reply of a task whose own reply cannot be stored."""
        failure = Failure.of(WorkerError(why))
        return failure.to_json() if as_json else failure.to_pickle()


def _script_value(kind: bytes, value: Any) -> _wire.Message:
    """The reply of a script, which may hold what only the script defines."""
    buffers: list[pickle.PickleBuffer] = []
    return _wire.pack(kind, portable.dumps(value, buffers), buffers)


def _report(task: int | None, done: int, total: int) -> None:
    _abi.fast.mf_task_progress(task, done, total)


def _json_value(value: Any, stdout: str, stderr: str) -> bytes:
    order: dict[str, Any] = {"data": value}
    if stdout:
        order["stdout"] = stdout
    if stderr:
        order["stderr"] = stderr
    return _wire.JSON_VALUE + json.dumps(order, allow_nan=False).encode()

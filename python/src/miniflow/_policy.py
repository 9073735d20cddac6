"""Policies between Python and the C ABI."""

from __future__ import annotations

import ctypes
import operator
import threading
from datetime import datetime, timezone
from typing import Any

from . import _abi, _log
from ._settings import IO, NS
from .scaling import ScalingDecision, ScalingPolicy, ScalingSnapshot
from .tasks import TaskType

_POLICIES = {
    "off": _abi.MF_SCALING_OFF,
    "by_load": _abi.MF_SCALING_DEFAULT,
    "compatible": _abi.MF_SCALING_COMPATIBLE,
    "adaptive": _abi.MF_SCALING_ADAPTIVE,
}
_DISPATCH = {
    "least_loaded": _abi.MF_DISPATCH_LEAST_LOADED,
    "round_robin": _abi.MF_DISPATCH_ROUND_ROBIN,
    "power_of_two": _abi.MF_DISPATCH_POWER_OF_TWO,
}
_ACTIONS = {
    _abi.MF_DECISION_GROW: "grow",
    _abi.MF_DECISION_SHRINK: "shrink",
    _abi.MF_DECISION_RESIZE: "resize",
    _abi.MF_DECISION_FAILURE: "failure",
}
_MEMORY = {
    _abi.MF_MEMORY_AMPLE: "ample",
    _abi.MF_MEMORY_NO_GROWTH: "no_growth",
    _abi.MF_MEMORY_SHEDDING: "shedding",
    _abi.MF_MEMORY_REFUSING: "refusing",
}
_NO_ANSWER = -1
_MOST = 1 << 30

_function = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.POINTER(_abi.ScalingSnapshot))


class Asked:
    """A policy of the program's own, which a thread of the engine's asks.

    That thread holds no lock of the engine's, so that it may wait for the interpreter as long as it takes.
    """

    def __init__(self, policy: ScalingPolicy) -> None:
        self._policy = policy
        self._failures = 0
        #: The thread that is in the policy now.
        self._thread: int | None = None
        #: For `mf_config.scaling`; must be there until nobody is in it.
        self.function = _function(self._ask)

    def _ask(self, _user: Any, snapshot: Any) -> int:
        self._thread = threading.get_ident()
        try:
            answer = self._policy(_seen(snapshot.contents))
            return _NO_ANSWER if answer is None else max(0, min(operator.index(answer), _MOST))
        except BaseException:
            self._failures += 1
            if self._failures & (self._failures - 1) == 0:  # not each of perhaps thousands
                _log.logger.exception("the scaling policy failed (%d times so far)", self._failures)
            return _abi.MF_SCALING_FAILED
        finally:
            self._thread = None

    def end(self) -> None:
        """The engine is gone, and has waited for an answer as long as it does.

        A policy that is still at it is interrupted: it must not need the interpreter when that ends."""
        thread = self._thread
        if thread is not None:
            _late.append(self)
            exception = ctypes.py_object(SystemExit)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), exception)


# Their functions are returned to, some time.
_late: list[Asked] = []


def configure(config: _abi.Config, scaling: str | ScalingPolicy, dispatch: str) -> Asked | None:
    """Puts the policies into the settings of an engine. What it returns must be kept while there is one."""
    config.dispatch_policy = _DISPATCH[dispatch]
    if isinstance(scaling, str):
        config.scaling_policy = _POLICIES[scaling]
        return None
    asked = Asked(scaling)
    config.scaling_policy = _abi.MF_SCALING_CUSTOM
    config.scaling = ctypes.cast(asked.function, ctypes.c_void_p).value
    return asked


def _seen(row: _abi.ScalingSnapshot) -> ScalingSnapshot:
    return ScalingSnapshot(
        _type(row.task_class),
        row.now_ns / NS,
        row.min_workers,
        row.max_workers,
        row.target,
        row.ready,
        row.starting,
        row.threads,
        row.queued,
        row.on_workers,
        row.peak,
        row.oldest_ns / NS,
        row.service_ns / NS,
        row.ended,
        _share(row.cpu_permille),
        _share(row.memory_permille),
        _share(row.pressure_permille),
        _MEMORY[row.memory_state],
    )


def decided(row: _abi.ScalingDecision) -> ScalingDecision:
    """A decision as programs see it."""
    return ScalingDecision(
        datetime.fromtimestamp(row.time_ns / NS, timezone.utc),
        _type(row.task_class),
        _ACTIONS[row.action],
        row.before,
        row.after,
        row.reason.decode("utf-8", "replace"),
        row.ready,
        row.starting,
        row.threads,
        row.queued,
        row.on_workers,
        row.oldest_ns / NS,
        row.service_ns / NS,
        _share(row.cpu_permille),
        _share(row.memory_permille),
    )


def _type(number: int) -> TaskType:
    return TaskType.IO_BOUND if number == IO else TaskType.CPU_BOUND


def _share(permille: int) -> float | None:
    return None if permille < 0 else permille / 1000

"""Policies between Python and the C ABI."""

from __future__ import annotations

import ctypes
import operator
import threading
from datetime import datetime, timezone
from typing import Any

from . import _abi, _log
from .scaling import Scaling, ScalingDecision, ScalingPolicy, ScalingSnapshot
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
_NS = 1_000_000_000
_MOST = 1 << 30

_function = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.POINTER(_abi.ScalingSnapshot))


class Asked:
    """A policy of the program's own, which a thread of the engine's asks.

    That thread holds no lock of the engine's, so that it may wait for the interpreter as long as it takes.
    """

    def __init__(self, policy: ScalingPolicy) -> None:
        self._policy = policy
        self._failures = 0
        self._closed = False
        #: The thread that is in the policy now.
        self._thread: int | None = None
        self._left = threading.Event()
        #: For `mf_config.scaling`; must be there until nobody is in it.
        self.function = _function(self._ask)

    def _ask(self, _user: Any, snapshot: Any) -> int:
        self._left.clear()
        self._thread = threading.get_ident()
        try:
            if self._closed:
                return _NO_ANSWER
            answer = self._policy(_seen(snapshot.contents))
            return _NO_ANSWER if answer is None else max(0, min(operator.index(answer), _MOST))
        except BaseException:
            self._failures += 1
            # Not each of perhaps thousands, and not what `close` has raised.
            if not self._closed and self._failures & (self._failures - 1) == 0:
                _log.logger.exception("the scaling policy failed (%d times so far)", self._failures)
            return _abi.MF_SCALING_FAILED
        finally:
            self._thread = None
            self._left.set()

    def close(self) -> None:
        """The engine is about to end. It waits for its thread then, but not for ever; and a thread that
        needs the interpreter while that ends takes the whole process along. So a policy that goes on
        thinking is interrupted."""
        if self._closed:
            return
        self._closed = True
        thread = self._thread
        if thread in (None, threading.get_ident()) or self._left.wait(_LAST_THOUGHT):
            return
        _late.append(self)
        exception = ctypes.py_object(SystemExit)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), exception)


# Seconds that a policy has to finish its thought when the engine ends.
_LAST_THOUGHT = 0.5
# The engine's thread may return to their functions at any time.
_late: list[Asked] = []


def configure(config: _abi.Config, scaling: Scaling, dispatch: str) -> Asked | None:
    """Puts the policies into the settings of an engine. What it returns must be kept while there is one."""
    config.dispatch_policy = _DISPATCH[dispatch]
    for field, threshold, scale in _THRESHOLDS:
        value = getattr(scaling, threshold)
        if value is not None:
            setattr(config, field, round(value * scale))
    if isinstance(scaling.policy, str):
        config.scaling_policy = _POLICIES[scaling.policy]
        return None
    asked = Asked(scaling.policy)
    config.scaling_policy = _abi.MF_SCALING_CUSTOM
    config.scaling = ctypes.cast(asked.function, ctypes.c_void_p).value
    return asked


# Of mf_config, of Scaling, and how often the unit of the one is in that of the other.
_THRESHOLDS = (
    ("scaling_interval_ns", "interval", _NS),
    ("scaling_max_wait_ns", "max_wait", _NS),
    ("scaling_cooldown_ns", "cooldown", _NS),
    ("scaling_load_permille", "load", 1000),
    ("scaling_peak_permille", "peak", 1000),
    ("scaling_idle_looks", "idle_looks", 1),
    ("scaling_cpu_permille", "cpu", 1000),
    ("memory_grow_permille", "memory", 1000),
    ("memory_shed_permille", "memory_shed", 1000),
    ("memory_refuse_permille", "memory_refuse", 1000),
    ("memory_pressure_permille", "memory_pressure", 1000),
)


def _seen(row: _abi.ScalingSnapshot) -> ScalingSnapshot:
    return ScalingSnapshot(
        _type(row.task_class),
        row.now_ns / _NS,
        row.min_workers,
        row.max_workers,
        row.target,
        row.ready,
        row.starting,
        row.threads,
        row.queued,
        row.on_workers,
        row.peak,
        row.oldest_ns / _NS,
        row.service_ns / _NS,
        row.ended,
        _share(row.cpu_permille),
        _share(row.memory_permille),
        _share(row.pressure_permille),
        _MEMORY[row.memory_state],
    )


def decided(row: _abi.ScalingDecision) -> ScalingDecision:
    """A decision as programs see it."""
    return ScalingDecision(
        datetime.fromtimestamp(row.time_ns / _NS, timezone.utc),
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
        row.oldest_ns / _NS,
        row.service_ns / _NS,
        _share(row.cpu_permille),
        _share(row.memory_permille),
    )


def _type(number: int) -> TaskType:
    return TaskType.IO_BOUND if number == _abi.MF_IO_BOUND else TaskType.CPU_BOUND


def _share(permille: int) -> float | None:
    return None if permille < 0 else permille / 1000

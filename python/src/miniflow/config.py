"""The settings of an :class:`~miniflow.Engine`."""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Callable

from ._placement import Placement
from .errors import ConfigError
from .scaling import Scaling, ScalingPolicy, checked_dispatch, checked_scaling

__all__ = ["EngineConfig"]

_MAX_WORKERS = 1024
_MAX_THREADS = 256
# Tasks that an engine can hold, less those that its threads may run.
_MAX_QUEUED = (1 << 20) - _MAX_WORKERS * _MAX_THREADS
_MAX_BYTES = 1 << 31


@dataclass(init=False)
class EngineConfig:
    """How many workers an engine has, how much it holds, and how its workers are set up.

    It may be changed until the engine is started, which looks at it again. A value that cannot be raises
    :class:`~miniflow.ConfigError`, which is a `ValueError`.
    """

    #: Tasks that may wait to be started; more are refused with code TASK001.
    input_queue_size: int
    #: Results that may wait to be taken, before new tasks are refused with code TASK002.
    output_queue_size: int
    #: Worker processes for CPU-bound tasks.
    cpu_bound_count: int
    #: Worker processes for IO-bound tasks; None becomes one less than there are processors, at least 1.
    io_bound_count: int
    #: Threads of each CPU-bound worker: how many tasks it runs at a time.
    cpu_bound_task_limit: int
    #: Threads of each IO-bound worker.
    io_bound_task_limit: int
    #: The level of the logger "miniflow".
    log_level: str
    #: Not used: no queue is polled. There for programs that set it.
    queue_poll_timeout: float
    #: Seconds that each start of a task may run, unless the task says; None: as long as it takes.
    timeout: float | None
    #: Whether what tasks print is kept in `Result.stdout` and `Result.stderr`, or goes where this
    #: program's output goes.
    capture_output: bool
    #: Modules to be imported once, before workers are forked: these then start in milliseconds.
    preload: Sequence[str]
    #: Called with `initargs` in each worker before its first task.
    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...]
    #: The interpreter of the workers; None: this one.
    python: str | None
    #: A name by which others on this machine can watch the engine, of A-Za-z0-9._-; None: an automatic
    #: one, which `Engine.name` tells; "": none.
    name: str | None
    #: Bytes of memory of its own that a worker may have; beyond it tasks get `MemoryError`.
    memory_limit: int | None
    #: Tasks after which a worker is replaced by a new one.
    recycle_after: int | None
    #: Where workers run: None (anywhere), "spread" (over cores, caches and NUMA nodes), "node:N" (on that
    #: NUMA node, whose memory they prefer), or processors that they get in turn, such as [0, 2, 4].
    affinity: str | Sequence[int] | None
    #: Added to the niceness of the workers, -20 to 19.
    nice: int
    #: "batch", "idle" or "normal"; None: as this program is scheduled.
    scheduler: str | None
    #: When the disk serves the workers: 0 (first) to 7, or "idle"; None: as this program.
    io_priority: int | str | None
    #: Whether parameters and results lie in huge pages, if the kernel gives them to shared memory.
    huge_pages: bool
    #: Largest parameters and largest result of a task in bytes, pickled.
    max_payload: int
    max_result: int
    #: Seconds that the workers may take to be ready, with all that is preloaded.
    start_timeout: float
    #: Most worker processes of each class, by `scaling` and by `Engine.resize`; None: as many as at the
    #: start.
    cpu_bound_max: int | None
    io_bound_max: int | None
    #: How the numbers of workers follow the load: "off", "by_load", "compatible", "adaptive", or a callable
    #: that is shown a :class:`~miniflow.ScalingSnapshot` and answers with a number of workers or None. A
    #: thread of the engine's calls it. Or a :class:`~miniflow.Scaling`, which has thresholds.
    scaling: str | ScalingPolicy | Scaling
    #: Which worker gets a task: "least_loaded", "round_robin" or "power_of_two".
    dispatch: str

    def __init__(
        self,
        input_queue_size: int = 1000,
        output_queue_size: int = 10000,
        cpu_bound_count: int = 1,
        io_bound_count: int | None = None,
        cpu_bound_task_limit: int = 1,
        io_bound_task_limit: int = 20,
        log_level: str = "INFO",
        queue_poll_timeout: float = 1.0,
        *,
        timeout: float | None = None,
        capture_output: bool = False,
        preload: Sequence[str] = (),
        initializer: Callable[..., object] | None = None,
        initargs: Sequence[Any] = (),
        python: str | None = None,
        name: str | None = None,
        memory_limit: int | None = None,
        recycle_after: int | None = None,
        affinity: str | Sequence[int] | None = None,
        nice: int = 0,
        scheduler: str | None = None,
        io_priority: int | str | None = None,
        huge_pages: bool = False,
        max_payload: int = 1 << 30,
        max_result: int = 1 << 30,
        start_timeout: float = 60.0,
        cpu_bound_max: int | None = None,
        io_bound_max: int | None = None,
        scaling: str | ScalingPolicy | Scaling = "off",
        dispatch: str = "least_loaded",
    ) -> None:
        if io_bound_count is None:
            io_bound_count = max(1, (os.cpu_count() or 1) - 1)
        self.input_queue_size = input_queue_size
        self.output_queue_size = output_queue_size
        self.cpu_bound_count = cpu_bound_count
        self.io_bound_count = io_bound_count
        self.cpu_bound_task_limit = cpu_bound_task_limit
        self.io_bound_task_limit = io_bound_task_limit
        self.log_level = log_level
        self.queue_poll_timeout = queue_poll_timeout
        self.timeout = timeout
        self.capture_output = capture_output
        self.preload = preload
        self.initializer = initializer
        self.initargs = tuple(initargs)
        self.python = python
        self.name = name
        self.memory_limit = memory_limit
        self.recycle_after = recycle_after
        self.affinity = affinity
        self.nice = nice
        self.scheduler = scheduler
        self.io_priority = io_priority
        self.huge_pages = huge_pages
        self.max_payload = max_payload
        self.max_result = max_result
        self.start_timeout = start_timeout
        self.cpu_bound_max = cpu_bound_max
        self.io_bound_max = io_bound_max
        self.scaling = scaling
        self.dispatch = dispatch
        self.validate()

    def validate(self) -> None:
        """Raises :class:`~miniflow.ConfigError` for the first setting that cannot be as it is."""
        for name, most in _COUNTS.items():
            setattr(self, name, _whole(name, getattr(self, name), most))
        for name in ("memory_limit", "recycle_after", "cpu_bound_max", "io_bound_max"):
            if getattr(self, name) is not None:
                setattr(self, name, _whole(name, getattr(self, name), None))
        total = 0
        for kind in ("cpu_bound", "io_bound"):
            count, most = getattr(self, f"{kind}_count"), getattr(self, f"{kind}_max")
            if most is not None and most < count:
                raise ConfigError(f"{kind}_max is {most}: it cannot be below {kind}_count, {count}")
            total += count if most is None else most
        if total > _MAX_WORKERS:
            raise ConfigError(
                f"cpu_bound_count and io_bound_count, or cpu_bound_max and io_bound_max, are {total} "
                f"together: an engine has {_MAX_WORKERS} workers at most"
            )
        checked_scaling(self.scaling)
        checked_dispatch(self.dispatch)
        for name in ("queue_poll_timeout", "start_timeout", "timeout"):
            _span(name, getattr(self, name))
        self.log_level = _level(self.log_level)
        if isinstance(self.preload, str) or not all(isinstance(name, str) for name in self.preload):
            raise ConfigError(f"preload is {self.preload!r}: it must be a sequence of names of modules")
        self.placement()
        if self.initializer is not None and not callable(self.initializer):
            raise ConfigError(f"initializer is {self.initializer!r}: it must be callable, or None")

    def placement(self) -> Placement:
        """Where and how the workers run, checked."""
        return Placement(
            affinity=self.affinity,
            nice=self.nice,
            scheduler=self.scheduler,
            io_priority=self.io_priority,
            huge_pages=self.huge_pages,
        )

    def to_dict(self) -> dict[str, Any]:
        """The settings by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


_COUNTS: dict[str, int | None] = {
    "input_queue_size": _MAX_QUEUED,
    "output_queue_size": None,
    "cpu_bound_count": _MAX_WORKERS,
    "io_bound_count": _MAX_WORKERS,
    "cpu_bound_task_limit": _MAX_THREADS,
    "io_bound_task_limit": _MAX_THREADS,
    "max_payload": _MAX_BYTES,
    "max_result": _MAX_BYTES,
}


def _whole(name: str, value: object, most: int | None) -> int:
    """A whole number from 1 on."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise ConfigError(f"{name} is {value!r}: it must be a whole number") from None
    if number < 1 or (most is not None and number > most):
        limit = "at least 1" if most is None else f"from 1 to {most}"
        raise ConfigError(f"{name} is {number}: it must be {limit}")
    return number


def _span(name: str, value: float | None) -> None:
    """Checks a number of seconds."""
    if value is None and name == "timeout":
        return
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not value > 0:
        raise ConfigError(f"{name} is {value!r}: it must be more than 0 seconds")


def _level(value: object) -> str:
    """The name of a level of logging, in upper case."""
    known = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
    if not isinstance(value, str) or value.upper() not in known:
        raise ConfigError(f"log_level is {value!r}: it must be one of {', '.join(known)}")
    return value.upper()

"""The settings of an engine as Python programs give them, and how they reach the C ABI."""

from __future__ import annotations

import base64
import ctypes
import json
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Callable

from . import _abi, _policy, _wire
from ._placement import Placement
from .errors import ConfigError
from .scaling import Scaling, ScalingPolicy, checked_dispatch, checked_scaling

CPU = _abi.MF_CPU_BOUND
IO = _abi.MF_IO_BOUND
NS = 1_000_000_000
_MOST_NS = (1 << 63) - 1
# How long a thread that waits may spin before it sleeps. Twice the engine's own default: what is waited
# for is often the next step of a Python program, which comes some 15 us later, and once spinning has
# failed the engine tries it again with a quarter of this only.
_SPIN_NS = 100_000

# Runs in the interpreter that becomes the zygote: its argument is a descriptor with the setup.
_BOOT = """
import json, os, sys
fd = int(sys.argv[1])
setup = json.loads(os.pread(fd, os.fstat(fd).st_size, 0))
sys.path[:] = setup["sys_path"]
sys.argv = ["miniflow"]
from miniflow._worker.zygote import main
sys.exit(main(setup))
"""


@dataclass(frozen=True)
class ClassSettings:
    """The workers of one class."""

    workers: int = 0
    max_workers: int | None = None  # None: as many as there are at the start
    threads: int = 1
    timeout: float | None = None  # seconds that a task may run if it does not say

    @property
    def most(self) -> int:
        """Workers at most."""
        return self.workers if self.max_workers is None else self.max_workers


@dataclass(frozen=True)
class Settings:
    """Everything about an engine that a Python program can choose."""

    cpu: ClassSettings = field(default_factory=ClassSettings)
    io: ClassSettings = field(default_factory=ClassSettings)
    name: str | None = None
    preload: Sequence[str] = ()
    initializer: Callable[..., object] | None = None
    initargs: tuple[Any, ...] = ()
    capture_output: bool = False
    python: str | None = None
    max_tasks: int = 65_536
    max_payload: int = 1 << 30
    max_result: int = 1 << 30
    payload_arena: int = 4 << 30  # address space: memory is taken as it is needed
    result_arena: int = 4 << 30
    memory_limit: int | None = None
    recycle_after: int | None = None
    recycle_rss: int | None = None
    placement: Placement = field(default_factory=Placement)
    start_timeout: float = 60.0
    scaling: str | ScalingPolicy | Scaling = "off"
    dispatch: str = "least_loaded"

    def __post_init__(self) -> None:
        for part in (self.cpu, self.io):
            checked_time("timeout", part.timeout)
        checked_time("start_timeout", self.start_timeout)
        checked_scaling(self.scaling)
        checked_dispatch(self.dispatch)
        if isinstance(self.preload, str):
            raise ConfigError(f"preload is {self.preload!r}: it must be a list of module names")
        if self.memory_limit is not None:
            checked_count("memory_limit", self.memory_limit)
        if self.name is not None and "\0" in self.name:
            raise ConfigError(f"name is {self.name!r}: it must be 1 to 64 of A-Za-z0-9._-")


def available_cpus() -> int:
    """Processors that this process may use: its affinity and its cgroup's quota, at least 1."""
    count = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):
        with open("/proc/self/cgroup", encoding="ascii") as file:
            path = next(line[3:].strip() for line in file if line.startswith("0::"))
        while True:
            with suppress(OSError, ValueError):
                with open(f"/sys/fs/cgroup{path}/cpu.max", encoding="ascii") as file:
                    quota, period = file.read().split()
                if quota != "max":
                    count = min(count, max(1, -(-int(quota) // int(period))))
            if path in ("", "/"):
                break
            path = os.path.dirname(path)
    return max(1, count)


def seconds(value: float | None) -> int:
    """A time as the C ABI takes it: nanoseconds, none is negative."""
    if value is None or value == math.inf:
        return -1
    return max(0, min(int(value * NS), _MOST_NS))


def checked_time(what: str, value: object) -> float | None:
    """A time limit in seconds as it was given, None if it is none; ConfigError if it cannot be one."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"{what} is {value!r}: it must be a number of seconds, or None")
    if not value > 0:  # also if it is not a number
        raise ConfigError(f"{what} is {value}: it must be more than 0 seconds, or None")
    return None if value == math.inf else value


def checked_count(what: str, value: object, most: int = (1 << 63) - 1) -> int:
    """A number that must be at least 1; ConfigError if it is not."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ConfigError(f"{what} is {value!r}: it must be a whole number from 1 to {most}")
    return value


class Prepared:
    """An `mf_config` with all that it points to. The setup's descriptor stays open in the host,
    because a zygote that died is started again with it."""

    def __init__(self, settings: Settings) -> None:
        self._keep: list[object] = []
        self.setup_fd = -1
        config = self.config = _abi.Config()
        _abi.check(_abi.lib.mf_config_init(config, ctypes.sizeof(config)))
        config.flags = _abi.MF_ZYGOTE
        if settings.name is not None:
            config.name = settings.name.encode()
        for number, chosen in ((CPU, settings.cpu), (IO, settings.io)):
            row = config.classes[number]
            row.min_workers = chosen.workers
            row.max_workers = chosen.most
            row.threads = chosen.threads
            row.deadline_ns = seconds(chosen.timeout)
        config.max_tasks = settings.max_tasks
        config.max_payload = settings.max_payload
        config.max_result = settings.max_result
        config.payload_arena = settings.payload_arena
        config.result_arena = settings.result_arena
        config.spin_ns = _SPIN_NS
        config.inline_result = _wire.INLINE
        config.start_timeout_ns = seconds(settings.start_timeout)
        self.asked = _policy.configure(config, checked_scaling(settings.scaling), settings.dispatch)
        if settings.recycle_after is not None:
            config.recycle_tasks = settings.recycle_after
        if settings.recycle_rss is not None:
            config.recycle_rss = settings.recycle_rss
        self._keep.append(settings.placement.fill(config))
        try:
            self.setup_fd = _setup_file(settings)
            self._command(settings, config)
        except BaseException:
            self.close()
            raise

    def _command(self, settings: Settings, config: _abi.Config) -> None:
        python = settings.python or sys.executable
        if not python:
            raise ConfigError("no Python interpreter is known for workers: set `python`")
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        words = [python, *flags, "-c", _BOOT, str(self.setup_fd)]
        argv = (ctypes.c_char_p * (len(words) + 1))(*(os.fsencode(word) for word in words), None)
        fds = (ctypes.c_int32 * 1)(self.setup_fd)
        self._keep += [argv, fds]
        config.worker_argv = argv
        config.inherit_fds = fds
        config.inherit_count = 1

    def close(self) -> None:
        """Closes the setup, when the engine is gone."""
        fd, self.setup_fd = self.setup_fd, -1
        if fd >= 0:
            os.close(fd)


def _setup_file(settings: Settings) -> int:
    """The descriptor of an unnamed file with what the zygote must know."""
    initializer = None
    if settings.initializer is not None:
        message = _wire.dump(_wire.CALL, (settings.initializer, settings.initargs, {}))
        if not isinstance(message, bytes):
            message = _wire.CALL + pickle.dumps((settings.initializer, settings.initargs, {}), 5)
        initializer = base64.b64encode(message).decode()
    workers = settings.cpu.most + settings.io.most
    setup = {
        "sys_path": _sys_path(),
        "library": os.fspath(_abi.path),
        "preload": list(settings.preload),
        "initializer": initializer,
        "capture": settings.capture_output,
        "blas_threads": 1 if settings.placement.binds else max(1, available_cpus() // max(1, workers)),
        "memory_limit": settings.memory_limit,
        "first_io_worker": settings.cpu.most,
    }
    fd = os.memfd_create("miniflow-setup", os.MFD_CLOEXEC)
    try:
        data = json.dumps(setup).encode()
        while data:
            data = data[os.write(fd, data) :]
    except BaseException:
        os.close(fd)
        raise
    return fd


def _sys_path() -> list[str]:
    """This process's path, as a worker with the same working directory needs it."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    path = [os.getcwd() if entry == "" else entry for entry in sys.path]
    if package not in path:
        path.append(package)
    return path

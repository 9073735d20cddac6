"""How many workers there are, and which of them gets a task: what may be chosen, what a policy of the
program's own is shown, and what was decided."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Callable, NamedTuple, Optional

from .errors import ConfigError
from .tasks import TaskType

__all__ = ["Scaling", "ScalingDecision", "ScalingPolicy", "ScalingSnapshot"]


class ScalingSnapshot(NamedTuple):
    """The load of one class of workers at one moment: what a scaling policy is shown."""

    #: Which workers.
    task_type: TaskType
    #: Seconds since the engine was started.
    now: float
    #: Fewest and most workers; what a policy answers is brought between them.
    min_workers: int
    max_workers: int
    #: Workers wanted at present.
    workers: int
    #: Workers that take tasks, and those that are being started.
    ready: int
    starting: int
    #: Threads of each worker.
    threads: int
    #: Tasks that no worker has, tasks on workers, and the most that one of them has.
    queued: int
    on_workers: int
    peak: int
    #: Seconds that the task has waited that has waited longest for a worker.
    oldest: float
    #: Average seconds that a task runs; 0 if none has ended yet.
    service: float
    #: Tasks that workers have ended.
    ended: int
    #: The share of the processors and of memory in use, and of the time in which tasks stood still for
    #: lack of memory, 0 to 1; None if it is not known.
    cpu: float | None
    memory: float | None
    memory_pressure: float | None
    #: What the engine does about memory: "ample", "no_growth", "shedding" or "refusing".
    memory_state: str


class ScalingDecision(NamedTuple):
    """One decision about the number of workers of a class, and what it was made from."""

    at: datetime
    task_type: TaskType
    #: "grow", "shrink", "resize" (by hand) or "failure" (of the policy).
    action: str
    #: Workers wanted before, and from then on.
    before: int
    after: int
    reason: str
    #: Workers that took tasks, those that were being started, and threads of each.
    ready: int
    starting: int
    threads: int
    #: Tasks that no worker had, and those on workers.
    queued: int
    on_workers: int
    #: Seconds that the oldest task had waited for a worker, and that tasks ran on average.
    oldest: float
    service: float
    #: The share of the processors and of memory in use, 0 to 1; None if it was not known.
    cpu: float | None
    memory: float | None


#: Answers how many workers a class should have; None leaves it as it is.
ScalingPolicy = Callable[[ScalingSnapshot], Optional[int]]

POLICIES = ("off", "by_load", "compatible", "adaptive")
DISPATCH = ("least_loaded", "round_robin", "power_of_two")


@dataclass(frozen=True)
class Scaling:
    """A scaling policy with thresholds of its own; None is the default, and 1 as a share means no limit. A
    policy that does not have a threshold ignores it. `docs/scaling.md` says more about each."""

    #: "off", "by_load", "compatible", "adaptive", or a callable.
    policy: str | ScalingPolicy = "by_load"
    #: Seconds between two looks at the load (0.1 by default), that a task may wait before the class grows
    #: (0.1), and between two changes (0.2).
    interval: float | None = None
    max_wait: float | None = None
    cooldown: float | None = None
    #: Tasks per thread on average (2.5), and of one worker (4), beyond which the class grows.
    load: float | None = None
    peak: float | None = None
    #: Idle looks in a row before the class shrinks (3).
    idle_looks: int | None = None
    #: The share of the processors in use from which on nothing grows (0.9).
    cpu: float | None = None
    #: The shares of memory in use from which on nothing grows (0.9), idle workers leave (0.95) and
    #: submissions are refused (0.98, also with "off"), and of the time in which tasks stand still for lack
    #: of memory from which on nothing grows (0.1).
    memory: float | None = None
    memory_shed: float | None = None
    memory_refuse: float | None = None
    memory_pressure: float | None = None

    def __post_init__(self) -> None:
        if self.policy not in POLICIES and not callable(self.policy):
            raise ConfigError(f"the scaling's policy is {self.policy!r}: it must be {_KNOWN}")
        for name in ("interval", "max_wait", "cooldown", "load", "peak"):
            self._check(name, 1e6)
        for name in ("cpu", "memory", "memory_shed", "memory_refuse", "memory_pressure"):
            self._check(name, 1)
        looks = self.idle_looks
        if looks is not None and not (type(looks) is int and 1 <= looks < 1 << 32):
            raise ConfigError(f"the scaling's idle_looks is {looks!r}: it must be a whole number from 1 on")

    def _check(self, name: str, most: float) -> None:
        value = getattr(self, name)
        if value is None:
            return
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.001 <= value <= most:
            raise ConfigError(f"the scaling's {name} is {value!r}: it must be from 0.001 to {most:g}")


_KNOWN = f"one of {', '.join(repr(name) for name in POLICIES)}, or a callable"


def checked_scaling(value: object) -> Scaling:
    """ConfigError if it is no scaling policy."""
    if isinstance(value, Scaling):
        return value
    if value not in POLICIES and not callable(value):
        raise ConfigError(f"scaling is {value!r}: it must be {_KNOWN}, or a miniflow.Scaling")
    return Scaling(value)


def checked_dispatch(value: object) -> None:
    """ConfigError if it is no dispatch policy."""
    if callable(value):
        raise ConfigError(
            "dispatch is a callable: a policy of the program's own is asked for every task, under the "
            "engine's lock, for which threads wait that hold the interpreter's, so it cannot be in Python"
        )
    if value not in DISPATCH:
        known = ", ".join(repr(name) for name in DISPATCH)
        raise ConfigError(f"dispatch is {value!r}: it must be one of {known}")


def sticky_number(key: int | str | bytes | None) -> int:
    """The number by which the engine knows a sticky key; 0 for None. Equal keys have one number, in every
    process; of different ones two may have the same, with a chance of 2**-64 for texts."""
    if key is None:
        return 0
    if isinstance(key, int):
        return key & 0xFFFF_FFFF_FFFF_FFFF or 1
    if isinstance(key, str):
        key = key.encode("utf-8", "surrogatepass")
    if not isinstance(key, bytes):
        raise ConfigError(f"sticky_key is {key!r}: it must be an int, a str or bytes")
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") or 1

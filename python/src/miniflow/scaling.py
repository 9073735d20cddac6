"""How many workers there are, and which of them gets a task: what may be chosen, what a policy of the
program's own is shown, and what was decided."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Callable, NamedTuple, Optional, Union

from .errors import ConfigError
from .tasks import TaskType

__all__ = ["ScalingDecision", "ScalingPolicy", "ScalingSnapshot"]


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

SCALING = ("off", "by_load", "compatible", "adaptive")
DISPATCH = ("least_loaded", "round_robin", "power_of_two")


def checked_scaling(value: object) -> None:
    """ConfigError if it is no scaling policy."""
    if value not in SCALING and not callable(value):
        known = ", ".join(repr(name) for name in SCALING)
        raise ConfigError(f"scaling is {value!r}: it must be one of {known}, or a callable")


def checked_dispatch(value: object) -> None:
    """ConfigError if it is no dispatch policy."""
    if callable(value):
        raise ConfigError(
            "dispatch is a callable: a policy of the program's own is asked for every task, under the engine's "
            "lock, by threads that may wait for the interpreter meanwhile, so it cannot be in Python"
        )
    if value not in DISPATCH:
        known = ", ".join(repr(name) for name in DISPATCH)
        raise ConfigError(f"dispatch is {value!r}: it must be one of {known}")


def sticky_number(key: Union[int, str, bytes, None]) -> int:
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

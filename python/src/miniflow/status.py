"""What an engine says about itself, component by component."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from . import _abi
from ._record import worker_name

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ComponentStatus", "HealthStatus"]


class HealthStatus(str, Enum):
    """How a component is. Each is equal to its value, a string."""

    HEALTHY = "healthy"
    #: It works, but something is short: a queue is full, a worker is missing.
    DEGRADED = "degraded"
    #: It does not work.
    UNHEALTHY = "unhealthy"


@dataclass
class ComponentStatus:
    """One component: "input_queue", "output_queue" or "process_pool"."""

    name: str
    health: str = HealthStatus.HEALTHY
    metrics: dict[str, Any] = field(default_factory=dict)

    @property
    def is_healthy(self) -> bool:
        """Whether nothing is wrong with it."""
        return self.health == HealthStatus.HEALTHY

    def to_dict(self) -> dict[str, Any]:
        """The status as a dict of plain values."""
        health = self.health.value if isinstance(self.health, HealthStatus) else self.health
        return {"name": self.name, "health": health, "metrics": dict(self.metrics)}


def of_queue(name: str, size: int, maxsize: int, running: bool, **totals: int) -> ComponentStatus:
    """A queue that holds `size` of `maxsize`."""
    health = HealthStatus.HEALTHY
    if not running:
        health = HealthStatus.UNHEALTHY
    elif size >= maxsize:
        health = HealthStatus.DEGRADED
    metrics = {"size": size, "maxsize": maxsize, "fullness": size / maxsize, **totals}
    return ComponentStatus(name, health, metrics)


def of_pool(rows: Sequence[_abi.WorkerRow], io_base: int, expected: int) -> ComponentStatus:
    """The workers, `expected` of them at least; `io_base` is the number of the first IO-bound one."""
    workers: dict[int, dict[str, dict[str, Any]]] = {_abi.MF_CPU_BOUND: {}, _abi.MF_IO_BOUND: {}}
    ready = 0
    for row in rows:
        if row.state == _abi.MF_WORKER_READY:
            ready += 1
        workers[row.task_class][worker_name(row.slot, io_base)] = {
            "active_tasks": row.running,
            "queue_size": row.queued,
            # Threads take tasks from the worker's queue: there is no second one behind it.
            "thread_pool_queue_size": 0,
            "total_load": row.running + row.queued,
            "pid": row.pid,
        }
    cpu_tasks, io_tasks = workers[_abi.MF_CPU_BOUND], workers[_abi.MF_IO_BOUND]
    cpu_active = sum(worker["active_tasks"] for worker in cpu_tasks.values())
    io_active = sum(worker["active_tasks"] for worker in io_tasks.values())
    health = HealthStatus.HEALTHY if ready >= expected else HealthStatus.DEGRADED
    metrics = {
        "cpu_bound_workers": len(cpu_tasks),
        "io_bound_workers": len(io_tasks),
        "total_workers": len(cpu_tasks) + len(io_tasks),
        "cpu_active_threads": cpu_active,
        "io_active_threads": io_active,
        "total_active_threads": cpu_active + io_active,
        "cpu_worker_tasks": cpu_tasks,
        "io_worker_tasks": io_tasks,
    }
    return ComponentStatus("process_pool", health if ready else HealthStatus.UNHEALTHY, metrics)

"""miniflow: tasks in crash-isolated worker processes, over rings in shared memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .config import EngineConfig
from .engine import Engine
from .errors import (
    ConfigError,
    EngineError,
    ExecutorError,
    QueueError,
    QueueFull,
    TaskCancelled,
    TaskError,
    TaskTimeout,
    WorkerCrashed,
    WorkerError,
)
from .executor import Executor
from .progress import Progress
from .scaling import Scaling, ScalingDecision, ScalingPolicy, ScalingSnapshot
from .status import ComponentStatus, HealthStatus
from .tasks import Result, Task, TaskProgress, TaskStatus, TaskType

if TYPE_CHECKING:
    from .manager import Manager

__all__ = [
    "ComponentStatus",
    "ConfigError",
    "Engine",
    "EngineConfig",
    "EngineError",
    "Executor",
    "ExecutorError",
    "HealthStatus",
    "Manager",
    "Progress",
    "QueueError",
    "QueueFull",
    "Result",
    "Scaling",
    "ScalingDecision",
    "ScalingPolicy",
    "ScalingSnapshot",
    "Task",
    "TaskCancelled",
    "TaskError",
    "TaskProgress",
    "TaskStatus",
    "TaskTimeout",
    "TaskType",
    "WorkerCrashed",
    "WorkerError",
]


def __getattr__(name: str) -> Any:
    """The API of older programs, which others need not load."""
    if name == "Manager":
        from .manager import Manager

        return Manager
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

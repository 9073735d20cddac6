"""miniflow: tasks in crash-isolated worker processes, over rings in shared memory."""

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
from .status import ComponentStatus, HealthStatus
from .tasks import Result, Task, TaskProgress, TaskStatus, TaskType

__all__ = [
    "ComponentStatus",
    "ConfigError",
    "Engine",
    "EngineConfig",
    "EngineError",
    "Executor",
    "ExecutorError",
    "HealthStatus",
    "Progress",
    "QueueError",
    "QueueFull",
    "Result",
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

"""The package that miniflow succeeds: its import paths, for programs that were written for it."""

from miniflow.config import EngineConfig
from miniflow.engine import Engine
from miniflow.errors import ConfigError, EngineError, ExecutorError, QueueError, TaskError, WorkerError
from miniflow.status import ComponentStatus, HealthStatus
from miniflow.tasks import Result, Task, TaskStatus, TaskType

__all__ = [
    "ComponentStatus",
    "ConfigError",
    "Engine",
    "EngineConfig",
    "EngineError",
    "ExecutorError",
    "HealthStatus",
    "QueueError",
    "Result",
    "Task",
    "TaskError",
    "TaskStatus",
    "TaskType",
    "WorkerError",
]

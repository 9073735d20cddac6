"""Enumerations and exceptions."""

from miniflow.errors import ConfigError, EngineError, ExecutorError, QueueError, TaskError, WorkerError
from miniflow.tasks import TaskStatus, TaskType

__all__ = [
    "ConfigError",
    "EngineError",
    "ExecutorError",
    "QueueError",
    "TaskError",
    "TaskStatus",
    "TaskType",
    "WorkerError",
]

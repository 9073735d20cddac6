"""Exceptions."""

from miniflow.errors import ConfigError, EngineError, ExecutorError, QueueError, TaskError, WorkerError

__all__ = ["ConfigError", "EngineError", "ExecutorError", "QueueError", "TaskError", "WorkerError"]

"""Tasks and results."""

from miniflow.tasks import Result, Task

__all__ = ["Result", "Task"]

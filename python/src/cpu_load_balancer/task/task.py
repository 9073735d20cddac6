"""Tasks."""

from miniflow.tasks import Task

__all__ = ["Task"]

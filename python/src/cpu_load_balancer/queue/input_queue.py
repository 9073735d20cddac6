"""The queue of tasks."""

from miniflow.queues import InputQueue

__all__ = ["InputQueue"]

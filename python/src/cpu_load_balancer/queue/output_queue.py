"""The queue of results."""

from miniflow.queues import OutputQueue

__all__ = ["OutputQueue"]

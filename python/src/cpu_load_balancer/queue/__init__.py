"""Queues."""

from miniflow.queues import InputQueue, OutputQueue

__all__ = ["InputQueue", "OutputQueue"]

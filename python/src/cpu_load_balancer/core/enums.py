"""Enumerations."""

from miniflow.tasks import TaskStatus, TaskType

__all__ = ["TaskStatus", "TaskType"]

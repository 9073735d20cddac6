"""Results."""

from miniflow.tasks import Result

__all__ = ["Result"]

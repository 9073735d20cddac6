"""The engine."""

from miniflow.engine import Engine

__all__ = ["Engine"]

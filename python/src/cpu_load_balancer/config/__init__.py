"""The configuration of an engine."""

from miniflow.config import EngineConfig

__all__ = ["EngineConfig"]

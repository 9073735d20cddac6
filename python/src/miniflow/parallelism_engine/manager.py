"""Where :class:`Manager` was before. Nothing but names."""

from ..manager import Manager

__all__ = ["Manager"]

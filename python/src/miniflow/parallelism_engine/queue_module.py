"""Where :class:`BaseQueue` was before. Nothing but names."""

from ..queues import BaseQueue

__all__ = ["BaseQueue"]

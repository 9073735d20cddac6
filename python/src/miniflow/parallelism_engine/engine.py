"""Where :class:`QueueWatcher` was before. Nothing but names."""

from .._watcher import QueueWatcher

__all__ = ["QueueWatcher"]

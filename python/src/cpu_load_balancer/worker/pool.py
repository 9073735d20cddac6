"""Worker processes."""

from miniflow.process_pool import ProcessPool

__all__ = ["ProcessPool"]

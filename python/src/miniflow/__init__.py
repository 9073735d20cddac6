"""miniflow: tasks in crash-isolated worker processes, over rings in shared memory."""

from .errors import WorkerCrashed
from .executor import Executor

__all__ = ["Executor", "WorkerCrashed"]

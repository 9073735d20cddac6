"""``ProcessPool``: an engine whose results go into a queue. For programs that used it by itself."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from .config import EngineConfig
from .engine import Engine
from .errors import ConfigError, EngineError, TaskError
from .status import ComponentStatus
from .tasks import TaskType

if TYPE_CHECKING:
    from .tasks import Task

__all__ = ["ProcessPool"]

_log = logging.getLogger("miniflow")
# How often the thread that moves results looks whether the pool was shut down.
_LOOK = 0.2


class ProcessPool:
    """Runs tasks in workers for CPU-bound and for IO-bound ones, and puts their results, as dicts, into
    `output_queue`: anything whose `put` answers False if it is full."""

    def __init__(
        self,
        output_queue: Any,
        cpu_bound_count: int = 1,
        io_bound_count: int | None = None,
        cpu_task_limit: int = 1,
        io_task_limit: int = 20,
        executor_func: None = None,
    ) -> None:
        if executor_func is not None:
            raise ConfigError("executor_func must be None: workers run scripts by themselves")
        config = EngineConfig(
            cpu_bound_count=cpu_bound_count,
            io_bound_count=io_bound_count,
            cpu_bound_task_limit=cpu_task_limit,
            io_bound_task_limit=io_task_limit,
        )
        self._engine = Engine(config)
        self._output_queue = output_queue
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> bool:
        """Starts the workers, if that was not done."""
        if self._thread is None:
            self._engine.start()
            self._stop.clear()
            self._thread = threading.Thread(target=self._move_results, name="miniflow-results", daemon=True)
            self._thread.start()
        return True

    def submit_task(self, task: Task, task_type: TaskType) -> bool:
        """Submits a task to the workers of a type; False if the pool is not started, or full."""
        task.task_type = task_type
        try:
            self._engine.submit_task(task)
        except TaskError as error:
            if error.code in ("TASK001", "TASK002"):
                return False
            raise
        except EngineError as error:
            if error.code == "ENG002":
                return False
            raise
        return True

    def shutdown(self, timeout: float = 5.0) -> None:
        """Cancels the tasks that no worker has started, gives the others `timeout` seconds to end, and ends
        the workers."""
        thread = self._thread
        if thread is None:
            return
        self._engine.shutdown(timeout)
        self._stop.set()
        thread.join()
        self._thread = None

    def get_status(self) -> ComponentStatus:
        """What the workers do now."""
        found = self._engine.get_component_status("process_pool")
        assert found is not None, "the engine has this component"
        return found

    def _move_results(self) -> None:
        while True:
            stopping = self._stop.is_set()
            for task_id in self._engine.ended_tasks(0.0 if stopping else _LOOK):
                result = self._engine.get_result(task_id, 0.0)
                if result is not None:
                    self._put(result.to_dict())
            if stopping:
                return

    def _put(self, result: dict[str, Any]) -> None:
        while not self._output_queue.put(result):
            if self._stop.wait(0.01):
                _log.error("the output queue has no room for the result of task %s", result["task_id"])
                return

"""``miniflow.Engine``: scripts as tasks, submitted here and run in worker processes."""

from __future__ import annotations

import logging
import os
import re
import threading
import time
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Callable

from . import _abi, _log, _wire, status
from ._admission import Admission, cancel_unstarted
from ._calls import Calls
from ._core import Core
from ._flows import FlowRecord, Flows
from ._record import Ledger, Record, worker_name
from ._settings import ClassSettings, Settings, checked_count
from .config import EngineConfig
from .errors import EngineError, QueueFull, TaskError
from .scaling import ScalingDecision, sticky_number
from .tasks import Result, Task, TaskProgress, TaskStatus, TaskType

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Engine"]

_logger = logging.getLogger("miniflow")
_IO = TaskType.IO_BOUND
_MAX_ATTEMPTS = 65_535
# Tasks that an engine may hold beyond its queues: those of map() and of executors' calls, and ended ones
# that nobody has fetched yet.
_SPARE_TASKS = 65_536
_MOST_TASKS = 1 << 20
_MOST_WORKERS = 1024
# How long a submission waits if the shared memory for parameters is full.
_MEMORY_WAIT = 0.1
# The form in which a label of 16 bytes stands for an id.
_uuid = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}").fullmatch


class Engine(Calls):
    """Runs tasks in worker processes, and keeps their results until somebody takes them.

    All methods may be called by any thread. An engine that is dropped without `shutdown`, or is there
    when the interpreter ends, ends its workers; what they run is lost.
    """

    def __init__(self, config: EngineConfig | None = None) -> None:
        self._config = EngineConfig() if config is None else config
        self._core: Core | None = None
        self._started_once = False
        self._closing = False
        # The number of the first IO-bound worker.
        self._io_base = _most(self._config.cpu_bound_count, self._config.cpu_bound_max)
        # Workers that there are at least.
        self._expected = {TaskType.CPU_BOUND: 0, TaskType.IO_BOUND: 0}
        # Held while the engine starts or shuts down.
        self._change = threading.Lock()
        self._ledger = Ledger()
        self._records = self._ledger.records
        self._refused = 0
        # Held while a result is taken, so that one caller gets it.
        self._lock = threading.Lock()
        # Threads that wait for the result of a task which is not submitted yet.
        self._arrival = threading.Condition()
        self._expecting = 0
        self._look = _looker(weakref.ref(self))
        self._flows: Flows | None = None

    # -- start and end

    def start(self) -> None:
        """Starts the workers, and returns when they are ready.

        Raises :class:`~miniflow.EngineError` ENG001 if the engine is started already, ENG003 if it
        cannot be.
        """
        with self._change:
            if self._core is not None:
                raise EngineError("the engine is started already", "ENG001")
            config = self._config
            config.validate()
            _logger.setLevel(config.log_level)
            try:
                core = Core(_settings(config))
            except EngineError as error:
                raise EngineError(f"the engine cannot start: {error.message}", "ENG003") from error
            self._admission = Admission(core, config.input_queue_size, self._ledger.flying)
            self._io_base = _most(config.cpu_bound_count, config.cpu_bound_max)
            self._expected = {
                TaskType.CPU_BOUND: config.cpu_bound_count,
                TaskType.IO_BOUND: config.io_bound_count,
            }
            self._closing = False
            self._started_once = True
            self._core = core

    def shutdown(self, timeout: float = 5.0) -> None:
        """Takes no more tasks, cancels those that no worker has started, gives the others `timeout`
        seconds to end, and ends the workers.

        Every task has a result then, which can still be taken by `get_result`. Does nothing if the
        engine is not started. An engine that was shut down can be started again.
        """
        with self._change:
            core = self._core
            if core is None:
                return
            self._closing = True
            # If this is interrupted, the engine is still there, for another shutdown.
            if self._flows is not None:
                self._flows.close()
            cancel_unstarted(core, list(self._records.values()))
            core.stop(timeout)
            self._core = None
            core.close()
            with self._arrival:
                self._arrival.notify_all()

    def __enter__(self) -> Engine:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.shutdown()

    @property
    def is_running(self) -> bool:
        """Whether it takes tasks."""
        return self._core is not None and not self._closing

    @property
    def name(self) -> str | None:
        """The name by which others on this machine can watch it; None if it has none, or does not
        run."""
        core = self._core
        return None if core is None else core.name()

    def _running(self) -> Core:
        core = self._core
        if core is None or self._closing:
            state = "was shut down" if self._started_once else "is not started"
            raise EngineError(f"the engine {state}: call start(), or use it in a with statement", "ENG002")
        return core

    # -- tasks

    def submit_task(self, task: Task) -> str:
        """Submits a task and returns its id. Does not wait.

        Raises :class:`~miniflow.TaskError`, and then the task is not submitted: TASK001 if as many tasks
        wait to be started as `input_queue_size` says, TASK002 if as many results wait to be taken as
        `output_queue_size` says, TASK005 if a task with this id is in the engine, TASK000 if the params
        cannot be sent. Raises :class:`~miniflow.EngineError` ENG002 before the start.
        """
        core = self._running()
        task_id = task.id
        record = Record(task, self._ledger)
        admission = self._admission
        with admission.lock:
            self._admit(admission, task_id)
            self._records[task_id] = record
            self._ledger.accepted += 1
        try:
            self._send(core, task, record)
        except BaseException:
            task._look = None
            with admission.lock:
                del self._records[task_id]
                self._ledger.accepted -= 1
            raise
        self._announce()
        return task_id

    def submit_workflow(self, tasks: Iterable[Task]) -> list[str]:
        """Submits tasks that wait for each other, by their `dependencies`, and returns their ids.

        A task is started when all that it depends on have completed, with their results in
        `params["upstream_results"]`, by their ids. If one fails or is cancelled, all that depend on it
        fail, near and far, with an error that names it. The tasks count for `input_queue_size` only
        when nothing but a worker is missing, and a workflow of any width is taken.

        Raises :class:`~miniflow.TaskError` and submits nothing: TASK006 if a task depends on one that is
        not among them, or on itself by way of others; TASK005 if one is in the engine already. Raises
        :class:`~miniflow.EngineError` ENG002 before the start.
        """
        core = self._running()
        flows = self._flows
        if flows is None or flows.core is not core:
            flows = self._flows = Flows(core, self._send_later, self._ledger)
        flow = flows.new(tasks)
        admission = self._admission
        with admission.lock:
            for task_id in flow.records:
                if task_id in self._records:
                    raise TaskError(f"task {task_id} is in the engine already", "TASK005", task_id)
            self._records.update(flow.records)
            self._ledger.accepted += len(flow.records)
            admission.look_again()
        ids = list(flow.records)
        try:
            flows.start(flow)
        except BaseException:
            for record in flow.records.values():
                if record.submitted and not record.settled:
                    core.interrupt(record)
            flows.abandon(flow, _abi.MF_CANCELLED, "the submission of its workflow was interrupted")
            raise
        self._announce()
        return ids

    def _send_later(self, core: Core, task: Task, record: FlowRecord, params: Any) -> None:
        """Hands a task of a workflow to the workers, waiting for room."""
        payload, opts = self._order(core, task, record.path, params)
        task._look = self._look
        core.submit(_wire.SCRIPT, payload, record, opts)

    def _order(
        self, core: Core, task: Task, path: str, params: Any
    ) -> tuple[tuple[Any, ...], _abi.SubmitOpts]:
        """What a worker is told, and the engine."""
        task_id = task.id
        if not path.startswith("/"):
            path = os.path.join(os.getcwd(), path)
        payload: tuple[Any, ...] = (path, params)
        if _uuid(task_id):
            label = bytes.fromhex(task_id.replace("-", ""))
        else:
            label = b""
            payload = (path, params, task_id)
        opts = core.options(
            io=task.task_type is _IO,
            timeout=task.timeout,
            max_attempts=min(task.max_retries + 1, _MAX_ATTEMPTS),
            priority=task.priority,
            sticky_key=0 if task.sticky_key is None else sticky_number(task.sticky_key),
            label=label,
        )
        return payload, opts

    def _send(self, core: Core, task: Task, record: Record) -> None:
        """Hands an admitted task to the workers."""
        task_id = task.id
        payload, opts = self._order(core, task, task.script_path, task.params)
        task._status = TaskStatus.PENDING
        task.retry_count = 0
        task._look = self._look
        try:
            core.submit(_wire.SCRIPT, payload, record, opts, timeout=_MEMORY_WAIT)
        except EngineError as error:
            if self._closing or core is not self._core:
                raise EngineError("the engine was shut down", "ENG002") from error
            code = "TASK001" if isinstance(error, QueueFull) else None
            raise TaskError(f"task {task_id} cannot be submitted: {error.message}", code, task_id) from error

    def _announce(self) -> None:
        """Wakes who waits for the result of a task that was not submitted."""
        if self._expecting:
            with self._arrival:
                self._arrival.notify_all()

    def _admit(self, admission: Admission, task_id: str) -> None:
        """Lets one more task in, or raises TASK001, TASK002 or TASK005."""
        if task_id in self._records:
            why = "is in the engine already: take its result before it is submitted again"
            raise TaskError(f"task {task_id} {why}", "TASK005", task_id)
        size = self._config.output_queue_size
        if len(self._records) >= size:
            while admission.core.drive(0):
                pass
            ended = len(self._ledger.ended)
            if ended >= size:
                self._refused += 1
                why = f"{ended} results wait to be taken, and output_queue_size is {size}"
                raise TaskError(f"task {task_id} is refused: {why}", "TASK002", task_id)
        if not admission.admit():
            self._refused += 1
            why = f"as many tasks wait to be started as input_queue_size says, {admission.size}"
            raise TaskError(f"task {task_id} is refused: {why}", "TASK001", task_id)

    def get_result(self, task_id: str, timeout: float | None = None) -> Result | None:
        """Takes the result of a task, waiting for it `timeout` seconds at most; None: as long as it takes.

        Returns None if it does not come in time. If the task is unknown, or somebody has taken its
        result, another thread may still submit it within the time; None is returned at once if that
        cannot be: without a timeout, without another thread, or after `shutdown`. A result goes to one
        caller only. Raises :class:`~miniflow.EngineError` ENG002 before the start.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        record = self._records.get(task_id) or self._await_submission(task_id, deadline)
        if record is None or not (record.settled or self._await_end(record, deadline)):
            return None
        result = record.result(self._io_base)
        mine = False
        try:
            with self._lock:
                if self._records.get(task_id) is record:  # else somebody was faster
                    mine = True
                    del self._records[task_id], self._ledger.ended[task_id]
            return result if mine else None
        except BaseException:
            # A Ctrl-C in the last moment: the result is not lost, but there for the next caller.
            if mine:
                self._records[task_id] = self._ledger.ended[task_id] = record
            raise

    def _await_end(self, record: Record, deadline: float | None) -> bool:
        core = self._core
        if core is None:
            return record.settled
        record.waiting += 1
        try:
            return core.wait(record, None if deadline is None else max(0.0, deadline - time.monotonic()))
        finally:
            record.waiting -= 1

    def _await_submission(self, task_id: str, deadline: float | None) -> Record | None:
        if not self._started_once:
            self._running()  # raises
        if deadline is None or _is_alone():
            return self._records.get(task_id)
        with self._arrival:
            self._expecting += 1
            try:
                self._arrival.wait_for(
                    lambda: task_id in self._records or self._core is None,
                    max(0.0, deadline - time.monotonic()),
                )
            finally:
                self._expecting -= 1
        return self._records.get(task_id)

    def ended_tasks(self, timeout: float | None = 0.0) -> list[str]:
        """The ids of the tasks whose results can be taken, in the order in which they ended; waits `timeout`
        seconds at most for the first one. Empty if none has ended."""
        ended = self._ledger.ended
        core = self._core
        if core is not None:
            core.drive(0)
            if not ended:
                try:
                    core.wait_until(lambda: bool(ended) or self._core is not core, timeout)
                except EngineError:
                    if self._core is core:
                        raise
        elif not self._started_once:
            self._running()  # raises
        return list(ended)

    def cancel_task(self, task_id: str, kill: bool = False) -> bool:
        """Asks for a task to be cancelled; False if it has ended or is unknown. Its result tells what
        became of it.

        A task that was not started never is. One that runs is told so (`context.cancelled`), and goes on
        if it does not look; with `kill` its worker is killed then, and tasks that ran beside it are
        started again if their `max_retries` allow.
        """
        if not self._started_once:
            self._running()  # raises
        core, record = self._core, self._records.get(task_id)
        if core is None or record is None or record.settled:
            return False
        if isinstance(record, FlowRecord) and record.flows.cancel(record):
            return True
        return core.interrupt(record, kill=kill)

    def task_state(self, task_id: str) -> TaskProgress | None:
        """Where a task is, and how far its script says it has come; None if it is unknown or its result
        was taken."""
        record = self._records.get(task_id)
        if record is None:
            if not self._started_once:
                self._running()  # raises
            return None
        core = self._core
        if core is not None and not record.settled:
            core.drive(0)
        state = None if core is None or record.settled else core.state(record)
        if state is None:
            return TaskProgress(record.task._status, None, 0.0, 0, 0)
        now = TaskStatus.RUNNING if state.running else TaskStatus.PENDING
        worker = None if state.worker is None else worker_name(state.worker, self._io_base)
        return TaskProgress(now, worker, state.elapsed, state.done, state.total)

    def _update(self, task: Task) -> None:
        """Sets the status of a task to what it is now."""
        record = self._records.get(task.id)
        if record is None or record.task is not task:
            task._look = None
            return
        state = self.task_state(task.id)
        if state is not None and not record.settled:
            task._status = state.status

    # -- workers

    def resize(self, task_type: TaskType, workers: int) -> None:
        """Sets how many workers a class has, up to `EngineConfig.cpu_bound_max` or `io_bound_max`. More are
        started; fewer leave when they have finished what they run, those that are idle first. A scaling
        policy goes on from there after 10 s.

        Raises :class:`~miniflow.EngineError` if there cannot be so many, and ENG002 before the start.
        """
        core = self._running()
        kind = TaskType(task_type)
        core.resize(kind is _IO, checked_count("workers", workers, _MOST_WORKERS))
        config = self._config
        count = config.io_bound_count if kind is _IO else config.cpu_bound_count
        self._expected[kind] = min(count, workers)

    def scaling_decisions(self) -> list[ScalingDecision]:
        """The last 1000 decisions about numbers of workers, oldest first. Raises
        :class:`~miniflow.EngineError` ENG002 if the engine does not run."""
        return self._running().scaling_decisions()

    # -- status

    def get_status(self) -> dict[str, Any]:
        """What the engine and its components do now."""
        components = (
            self.get_component_status(name) for name in ("input_queue", "output_queue", "process_pool")
        )
        return {
            "engine": {"is_running": self.is_running},
            "components": {part.name: part.to_dict() for part in components if part is not None},
        }

    def get_component_status(self, name: str) -> status.ComponentStatus | None:
        """What one component does now: "input_queue", "output_queue" or "process_pool"; None for any
        other name."""
        config, ledger = self._config, self._ledger
        rows = self._workers()
        running = rows is not None
        if name == "process_pool":
            return status.of_pool(rows or [], self._io_base, sum(self._expected.values()))
        if name == "input_queue":
            active = sum(row.running for row in rows or [])
            return status.of_queue(
                name,
                max(0, ledger.flying() - active),
                config.input_queue_size,
                running,
                total_put=ledger.accepted,
                total_dropped=self._refused,
            )
        if name == "output_queue":
            ended = len(ledger.ended)
            taken = ledger.accepted - len(ledger.records)
            return status.of_queue(
                name,
                ended,
                config.output_queue_size,
                running,
                total_put=taken + ended,
                total_get=taken,
            )
        return None

    def metrics_text(self) -> str:
        """The engine's counters, gauges and histograms in the text format of Prometheus; empty if it
        does not run."""
        core = self._core
        if core is None:
            return ""
        try:
            return core.metrics_text()
        except EngineError:
            if self._core is core:
                raise
            return ""  # it was shut down under our hands

    def _workers(self) -> list[_abi.WorkerRow] | None:
        """A row for each worker; None if the engine does not run. Settles what has ended."""
        core = self._core
        if core is None:
            return None
        try:
            core.drive(0)
            return core.workers()
        except EngineError:
            if self._core is core:
                raise
            return None  # it was shut down under our hands


def _is_alone() -> bool:
    """Whether no other thread of this process could submit anything."""
    me = threading.current_thread()
    return all(thread is me or thread is _log.reader() for thread in threading.enumerate())


def _looker(engine: weakref.ref[Engine]) -> Callable[[Task], None]:
    """What a task asks for its status: it does not keep the engine alive."""

    def look(task: Task) -> None:
        found = engine()
        if found is not None:
            found._update(task)

    return look


def _most(count: int, most: int | None) -> int:
    """Workers at most, of which there are `count` at the start."""
    return count if most is None else most


def _settings(config: EngineConfig) -> Settings:
    cpu = _most(config.cpu_bound_count, config.cpu_bound_max)
    io = _most(config.io_bound_count, config.io_bound_max)
    threads = cpu * config.cpu_bound_task_limit + io * config.io_bound_task_limit
    return Settings(
        cpu=ClassSettings(
            config.cpu_bound_count, cpu, threads=config.cpu_bound_task_limit, timeout=config.timeout
        ),
        io=ClassSettings(
            config.io_bound_count, io, threads=config.io_bound_task_limit, timeout=config.timeout
        ),
        name=config.name,
        preload=tuple(config.preload),
        initializer=config.initializer,
        initargs=tuple(config.initargs),
        capture_output=config.capture_output,
        python=config.python,
        max_tasks=min(_MOST_TASKS, config.input_queue_size + threads + _SPARE_TASKS),
        max_payload=config.max_payload,
        max_result=config.max_result,
        memory_limit=config.memory_limit,
        recycle_after=config.recycle_after,
        placement=config.placement(),
        start_timeout=config.start_timeout,
        scaling=config.scaling,
        dispatch=config.dispatch,
    )

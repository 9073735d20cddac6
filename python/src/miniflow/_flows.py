"""Runs the workflows of one engine: submits each task when those that it waits for have completed."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Callable

from . import _abi
from ._log import logger
from ._record import Ledger, Record
from .errors import EngineError
from .workflow import Workflow

if TYPE_CHECKING:
    from . import _wire
    from ._core import Core
    from .tasks import Task


class FlowRecord(Record):
    """The record of a task in a workflow."""

    __slots__ = ("flow", "flows", "path", "submitted")

    def __init__(self, task: Task, flow: Flow, flows: Flows) -> None:
        super().__init__(task, flows.ledger)
        self.ident = _abi.TaskId()  # nobody's, until it is submitted
        self.flow = flow
        self.flows = flows
        #: The script, also if the program changes its directory before the task can start.
        self.path = os.path.abspath(task.script_path)
        #: Whether the engine has it; else it waits for others.
        self.submitted = False

    def settle(
        self,
        outcome: int,
        code: int,
        flags: int,
        worker: int,
        attempt: int,
        data: _wire.Readable,
        queued_ns: int,
        run_ns: int,
    ) -> None:
        """Takes the end of the task, and leaves what follows from it to the thread of the workflows."""
        super().settle(outcome, code, flags, worker, attempt, data, queued_ns, run_ns)
        # Again after an interrupt, for all that is known here: the graph takes each end once.
        self.flows.inbox.append(self)

    def end_unrun(self, outcome: int, why: str) -> None:
        """Ends a task that the engine never had."""
        super().settle(outcome, 1, 0, _abi.MF_NO_WORKER, 0, why.encode(), 0, 0)


class Flow:
    """One workflow."""

    __slots__ = ("graph", "records")

    def __init__(self, graph: Workflow) -> None:
        self.graph = graph
        self.records: dict[str, FlowRecord] = {}


class Flows:
    """The workflows of one engine that have not ended.

    A thread of their own, which ends with the last of them, drives the engine and submits what becomes
    ready. No interrupt reaches it, so no step of a workflow is ever left half done.
    """

    def __init__(
        self,
        core: Core,
        send: Callable[[Core, Task, FlowRecord, object], None],
        ledger: Ledger,
    ) -> None:
        self.core = core
        self.ledger = ledger
        # Submits a task with the params given, waiting for room.
        self._send = send
        self.inbox: deque[FlowRecord] = deque()
        self._active: set[Flow] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def new(self, tasks: Iterable[Task]) -> Flow:
        """A workflow with its records, which does not run yet."""
        flow = Flow(Workflow(tasks))
        for task in flow.graph.tasks():
            flow.records[task.id] = FlowRecord(task, flow, self)
        return flow

    def start(self, flow: Flow) -> None:
        """Submits the tasks that wait for nothing; the thread sees to the others."""
        with self._lock:
            self._active.add(flow)
            self.ledger.held += len(flow.records)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="miniflow-workflow", daemon=True)
                self._thread.start()
        for task in flow.graph.ready():
            self._submit(flow, task)

    def abandon(self, flow: Flow, outcome: int, why: str) -> None:
        """Ends all tasks of a workflow that the engine does not have."""
        with self._lock:
            self._active.discard(flow)
            for name in flow.graph.ids():
                record = flow.records[name]
                if not record.submitted:
                    flow.graph.failed(name)
                    self._end(record, outcome, why)

    def cancel(self, record: FlowRecord) -> bool:
        """Cancels a task that waits for others, if it does."""
        with self._lock:
            if record.submitted or record.settled:
                return False
            self._end(record, _abi.MF_CANCELLED, "the task was cancelled")
            self._fail(record)
            return True

    def close(self) -> None:
        """Ends what waits, because the engine takes no more tasks."""
        self._closed = True
        for flow in list(self._active):
            self.abandon(flow, _abi.MF_CANCELLED, "the engine was shut down before the task could start")

    def _run(self) -> None:
        while True:
            try:
                self.core.wait_until(lambda: bool(self.inbox) or not self._active, None)
            except BaseException:
                if self.core.stopped:
                    return
                # A callback's, which this thread was the one to call.
                logger.exception("a callback raised in the thread of the workflows, which goes on")
            while self.inbox:
                record = self.inbox.popleft()
                try:
                    self._advance(record)
                except BaseException as error:
                    with self._lock:
                        self._fail(record, f"has a result that cannot be passed on: {error!r}")
            with self._lock:
                if not self._active and not self.inbox:
                    self._thread = None
                    return

    def _advance(self, record: FlowRecord) -> None:
        """Does what follows from the end of a task."""
        flow = record.flow
        name = record.task.id
        if record.outcome == _abi.MF_COMPLETED:
            data = record.value()  # may raise whatever unpickling it does
            with self._lock:
                freed = flow.graph.completed(name, data)
                if flow.graph.is_over:
                    self._active.discard(flow)
            for task in freed:
                self._submit(flow, task)
        else:
            with self._lock:
                self._fail(record)

    def _submit(self, flow: Flow, task: Task) -> None:
        record = flow.records[task.id]
        with self._lock:
            if self._closed or record.settled:
                return
            record.submitted = True
            self.ledger.held -= 1
        try:
            self._send(self.core, task, record, flow.graph.params(task))
        except BaseException as error:
            if not isinstance(error, Exception) and threading.current_thread() is threading.main_thread():
                raise  # an interrupt of the program's
            why = error.message if isinstance(error, EngineError) else f"{type(error).__name__}: {error}"
            with self._lock:
                record.end_unrun(_abi.MF_FAILED, f"the task could not be submitted: {why}")
                self._fail(record)

    def _fail(self, record: FlowRecord, how: str = "") -> None:
        """Ends all that depends on a task that did not complete. Under the lock."""
        flow, task = record.flow, record.task
        if not how:
            how = "was cancelled" if record.outcome == _abi.MF_CANCELLED else f"failed: {record.why()}"
        why = f"a task that this one depends on, {task.id} ({task.script_path}), {how}"
        for lost in flow.graph.failed(task.id):
            self._end(flow.records[lost.id], _abi.MF_FAILED, why)
        if flow.graph.is_over:
            self._active.discard(flow)

    def _end(self, record: FlowRecord, outcome: int, why: str) -> None:
        """Ends a task that waits for others. Under the lock."""
        self.ledger.held -= 1
        record.end_unrun(outcome, why)

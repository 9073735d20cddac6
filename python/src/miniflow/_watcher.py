"""The workers of a :class:`~miniflow.manager.Manager`, and what it shows of them."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from . import _abi, _outcome, _wire
from ._admission import Admission, cancel_unstarted
from ._core import Core
from ._record import worker_name
from ._settings import ClassSettings, Settings, available_cpus
from .errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Sequence

_log = logging.getLogger("miniflow")

# So many starts has an item whose worker dies.
_ATTEMPTS = 4
_THREADS = 20
# How often the threads of a watcher that stands alone look whether it was shut down.
_LOOK = 0.2


class Ended:
    """The sink of one item: a dict that comes back with what became of it."""

    __slots__ = ("_data", "_how", "_items", "ident", "item", "settled", "taker", "token")

    ident: _abi.TaskId
    token: int

    def __init__(self, item: dict[str, Any], items: deque[Ended]) -> None:
        self.settled = False
        self.item = item
        self._items = items
        #: Who took it last.
        self.taker: object = None

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
        """Takes the end of the task."""
        if self.settled:
            return
        self._how = (outcome, code, flags, worker, attempt)
        # A copy: nobody may come for it soon, and its worker wants the memory back.
        self._data = bytes(data)
        # Whoever sees it settled finds it in the queue, once: an interrupt in between leaves it last.
        if not self._items or self._items[-1] is not self:
            self._items.append(self)
        self.settled = True

    def finish(self) -> dict[str, Any]:
        """The item, with `status` and either `result_data` or `error_message`."""
        outcome, _, flags, _, _ = self._how
        try:
            if outcome == _abi.MF_COMPLETED:
                return succeed(self.item, _outcome.value(self._data)[0])
            if flags & _abi.MF_F_DATA:
                raised = _outcome.raised(self._data)
                return fail(self.item, raised.text, raised.type_name, raised.traceback)
            error = _outcome.failure(*self._how, self._data)
        except Exception as unreadable:  # whatever an object raises that cannot be unpickled here
            error = unreadable
        return fail(self.item, getattr(error, "message", str(error)), type(error).__name__)


def succeed(item: dict[str, Any], value: object) -> dict[str, Any]:
    """Notes in an item what its script returned."""
    item.pop("error_message", None)  # of an earlier run of the same dict
    item["status"] = "success"
    item["result_data"] = value
    return item


def fail(item: dict[str, Any], text: str, kind: str, traceback: str = "") -> dict[str, Any]:
    """Notes in an item why it failed: a dict as it always was, with `error` and now more."""
    item.pop("result_data", None)
    item["status"] = "failed"
    item["error_message"] = {"error": text or kind, "type": kind, "traceback": traceback}
    return item


def order(item: dict[str, Any]) -> dict[str, Any]:
    """What a worker must know of an item."""
    path, context = item.get("script_path"), item.get("context")
    if isinstance(path, str) and path:
        path = os.path.join(os.getcwd(), path)
    if isinstance(context, str):
        try:
            context = json.loads(context)
        except ValueError:
            pass  # it is not JSON, but a string
    return {"script_path": path, "context": {} if context is None else context}


class QueueWatcher:
    """Worker processes that run items, each in several threads.

    By itself, with `start`, it takes items from `input_queue` and puts them into `output_queue` when they
    have ended: two :class:`~miniflow.queues.BaseQueue`. A :class:`~miniflow.manager.Manager` hands items to
    its watcher, and takes them from it, without queues in between.
    """

    def __init__(self, input_queue: Any, output_queue: Any, unix: bool = True) -> None:
        self.input_queue = input_queue
        self.output_queue = output_queue
        #: Not used: there for programs that give it.
        self.unix = unix
        self.started = False
        #: Which of `active_processes` `_get_next_process` answers next, if there are as many.
        self.current_process_index = 0
        self.process_lock = threading.Lock()
        self.ended: deque[Ended] = deque()
        # Held while an item is taken, so that one caller gets it.
        self._taking = threading.Lock()
        self.core: Core | None = None
        self.admission: Admission | None = None
        self._assigned: Sequence[Any] | None = None
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    # -- workers

    def start(self) -> None:
        """Starts the workers, and two threads between them and the queues."""
        self.start_workers(1 << 16)
        self._stop.clear()
        self._threads = [
            threading.Thread(target=target, name=f"miniflow-{target.__name__.strip('_')}", daemon=True)
            for target in (self._feed, self._drain)
        ]
        for thread in self._threads:
            thread.start()

    def start_workers(self, size: int) -> None:
        """Starts the workers. At most `size` items will wait for them."""
        if self.core is not None:
            raise EngineError("the watcher is started already", "ENG001")
        # Two at least: when one dies, another is there.
        workers = max(2, available_cpus())
        core = Core(Settings(io=ClassSettings(workers, threads=_THREADS), max_tasks=2 * size + (1 << 14)))
        self.admission = Admission(core, size, lambda: core.outstanding)
        self._assigned = None
        self.core = core
        self.started = True

    def shutdown(self, timeout: float = 5.0) -> None:
        """Cancels the items that no worker has started, gives the others `timeout` seconds to end, and ends
        the workers. All of them come back."""
        core = self.core
        if core is None:
            return
        self._stop.set()
        cancel_unstarted(core, core.sinks())
        core.stop(timeout)
        self.core = None
        self.started = False
        core.close()
        for thread in self._threads:
            thread.join()
        if self.ended and self._threads:
            _log.warning("%d items have ended that the output queue has no room for", len(self.ended))
        self._threads = []

    def submit(self, item: dict[str, Any], timeout: float | None = None) -> None:
        """Hands an item to the workers; waits while they are full, `timeout` seconds at most."""
        core = self.core
        if core is None:
            raise EngineError("the watcher is not started", "ENG002")
        opts = core.options(io=True, max_attempts=_ATTEMPTS)
        core.submit(_wire.ITEM, order(item), Ended(item, self.ended), opts, timeout=timeout)

    def take(self, timeout: float) -> dict[str, Any] | None:
        """The item that has ended first of those not taken; None if none has in `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            if self.ended:
                item = self._take()
                if item is not None:  # else somebody was faster
                    return item
            core = self.core
            if core is None or not self._wait(core, deadline - time.monotonic()):
                return None

    def _take(self) -> dict[str, Any] | None:
        first = None
        me = object()
        try:
            with self._taking:
                if self.ended:
                    first = self.ended[0]
                    first.taker = me
                    self.ended.popleft()
            return None if first is None else first.finish()
        except BaseException:
            # A Ctrl-C in the last moment: the item is not lost, but there for the next caller.
            with self._taking:
                if first is not None and first.taker is me and first not in self.ended:
                    self.ended.appendleft(first)
            raise

    def _wait(self, core: Core, timeout: float) -> bool:
        """Waits until an item has ended, or the workers have; False if neither came in time."""
        try:
            return core.wait_until(lambda: bool(self.ended) or self.core is not core, max(0.0, timeout))
        except EngineError:
            if self.core is core:
                raise
            return True  # it was shut down under our hands

    def _feed(self) -> None:
        while not self._stop.is_set():
            item = self.input_queue.get_with_timeout(_LOOK)
            if item is None:
                continue
            try:
                self.submit(item)
            except EngineError as error:
                self._end(fail(item, error.message, type(error).__name__))

    def _drain(self) -> None:
        while True:
            stopping = self._stop.is_set()
            item = self.take(_LOOK)
            if item is not None:
                self._end(item)
            elif stopping and self.core is None:
                return

    def _end(self, item: dict[str, Any]) -> None:
        while not self.output_queue.put_with_retry(item):
            if self._stop.is_set():
                _log.error("an item has ended that the output queue has no room for: %r", item)
                return

    # -- what it shows

    @property
    def active_processes(self) -> Sequence[Any]:
        """The worker processes: a dict with `pid`, `worker_id` and `active_threads` for each."""
        if self._assigned is not None:
            return self._assigned
        return [
            {"pid": row.pid, "worker_id": worker_name(row.slot, 0), "active_threads": row.running}
            for row in self._rows()
        ]

    @active_processes.setter
    def active_processes(self, processes: Sequence[Any]) -> None:
        self._assigned = processes

    def _rows(self) -> list[_abi.WorkerRow]:
        core = self.core
        if core is None:
            return []
        rows = core.workers()
        return [row for row in rows if row.pid and row.state == _abi.MF_WORKER_READY]

    def _get_thread_counts_safe(self) -> list[int]:
        """How many threads of each process run an item."""
        return [row.running for row in self._rows()]

    def _get_process_thread_counts(self) -> list[int]:
        return self._get_thread_counts_safe()

    def _get_next_process(self) -> Any:
        """Each process in turn, whatever has become of the list since the last call; None if there is
        none. Items are not dispatched by this: the engine gives each to the least loaded worker."""
        with self.process_lock:
            processes = list(self.active_processes)  # may change under our hands
            if not processes:
                return None
            index = self.current_process_index
            if not 0 <= index < len(processes):
                index = 0
            self.current_process_index = (index + 1) % len(processes)
            return processes[index]

"""``Manager``: dicts in, the same dicts out when their scripts have run."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from typing import Any

from ._watcher import QueueWatcher
from .errors import QueueFull

__all__ = ["Manager"]

_log = logging.getLogger("miniflow")

# Items that may wait to be started, and ended ones that may wait to be taken.
_INPUT_SIZE = 1000
_OUTPUT_SIZE = 10_000
# How long a batch waits for room while no worker takes anything.
_PATIENCE = 10.0


class Manager:
    """Runs items in worker processes, which the first `put_item` starts.

    An item is a dict with a `script_path` and a `context`. Its script defines `module()`, which returns an
    object whose `run(context)` returns JSON text, or `main(params, context)`, whose params are the item's
    context. The same dict comes back with the `status` "success" and `result_data`, or with "failed" and an
    `error_message`, a dict with `error`.

    Nothing is dropped: an item that finds the queue full is refused, which False says, `get_stats()`
    counts and the logger "miniflow" reports. All methods may be called by any thread.
    """

    def __init__(self) -> None:
        self.input_queue = InputView(self)
        self.output_queue = OutputView(self)
        self.watcher = QueueWatcher(self.input_queue, self.output_queue, True)
        self.dropped_items = 0
        # Held while it starts or shuts down.
        self._change = threading.Lock()
        self._begun = threading.Event()

    @property
    def started(self) -> bool:
        """Whether the workers are there."""
        return self.watcher.started

    def start(self) -> None:
        """Starts the workers, if that was not done."""
        with self._change:
            if not self.watcher.started:
                self.watcher.start_workers(_INPUT_SIZE)
                self._begun.set()

    def shutdown(self, timeout: float = 5.0) -> bool:
        """Cancels the items that no worker has started, gives the others `timeout` seconds to end, and ends
        the workers; False if there were none. What has ended can still be taken."""
        with self._change:
            if not self.watcher.started:
                return False
            self.watcher.shutdown(timeout)
            self._begun.clear()
            return True

    # -- items

    def put_item(self, item: dict[str, Any]) -> bool:
        """Puts an item, without waiting; False if the queue is full."""
        _check(item)
        if self._put(item):
            return True
        self._refuse(1)
        return False

    def put_items_bulk(self, items: Iterable[dict[str, Any]]) -> bool:
        """Puts items one after the other, waiting for room as long as the workers get on.

        False if they did not for 10 seconds: then those from some item on are not in. None is if one of
        them is no dict, which raises TypeError.
        """
        items = list(items)
        for item in items:
            _check(item)
        for index, item in enumerate(items):
            deadline = time.monotonic() + _PATIENCE
            while not self._put(item):
                core = self.watcher.core
                if core is None or time.monotonic() > deadline:
                    self._refuse(len(items) - index)
                    return False
                if not core.drive(0.01):
                    time.sleep(0.001)  # another thread drives
        return True

    def _put(self, item: dict[str, Any]) -> bool:
        self.start()
        watcher = self.watcher
        admission = watcher.admission
        assert admission is not None, "there since the start"
        with admission.lock:
            if len(watcher.ended) >= _OUTPUT_SIZE or not admission.admit():
                return False
            try:
                watcher.submit(item, timeout=0.1)
            except QueueFull:  # the memory for contexts
                return False
        return True

    def _refuse(self, count: int) -> None:
        self.dropped_items += count
        _log.warning(
            "manager full: %d items refused, %d so far; %d wait to be started and %d to be taken",
            count,
            self.dropped_items,
            self.input_queue.size(),
            self.output_queue.size(),
        )

    def get_output_item(self) -> dict[str, Any] | None:
        """Takes the item that has ended first, waiting one second for one at most; None if none came."""
        found = self.output_queue.get()
        return self.output_queue.get_with_timeout(1.0) if found is None else found

    def get_output_items_bulk(self, max_items: int = 25, timeout: float = 0.1) -> list[dict[str, Any]]:
        """Takes as many items as have ended, `max_items` at most, waiting `timeout` seconds for the first."""
        items: list[dict[str, Any]] = []
        while len(items) < max_items:
            item = self.watcher.take(0.0 if items else timeout)
            if item is None:
                break
            items.append(item)
        return items


def _check(item: object) -> None:
    if not isinstance(item, dict):
        raise TypeError(f"an item must be a dict with script_path and context, not a {type(item).__name__}")


class InputView:
    """The items of a manager that wait to be started."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def put(self, item: dict[str, Any]) -> bool:
        """:meth:`Manager.put_item`."""
        return self._manager.put_item(item)

    def put_with_retry(self, item: dict[str, Any]) -> bool:
        """Puts an item, waiting for room as :meth:`Manager.put_items_bulk` does."""
        return self._manager.put_items_bulk([item])

    def put_batch(self, items: Iterable[dict[str, Any]]) -> bool:
        """:meth:`Manager.put_items_bulk`."""
        return self._manager.put_items_bulk(items)

    def size(self) -> int:
        """How many there are."""
        watcher = self._manager.watcher
        return watcher.admission.waiting() if watcher.started and watcher.admission is not None else 0

    def is_empty(self) -> bool:
        """Whether there is none."""
        return self.size() == 0

    def get_stats(self) -> dict[str, Any]:
        """How many wait, and how many were refused."""
        size = self.size()
        return {"size": size, "dropped_items": self._manager.dropped_items, "is_empty": size == 0}


class OutputView:
    """The items of a manager that have ended and wait to be taken."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def get(self) -> dict[str, Any] | None:
        """Takes the one that ended first; None if there is none."""
        return self._manager.watcher.take(0.0)

    def get_with_timeout(self, timeout: float = 1.0) -> dict[str, Any] | None:
        """Takes the one that ended first, waiting `timeout` seconds for one at most."""
        deadline = time.monotonic() + timeout
        # Before the first item is put, there is nobody to wait for yet.
        if not self._manager.watcher.ended and not self._manager._begun.wait(timeout):
            return None
        return self._manager.watcher.take(max(0.0, deadline - time.monotonic()))

    def size(self) -> int:
        """How many there are."""
        core = self._manager.watcher.core
        if core is not None:
            core.drive(0)
        return len(self._manager.watcher.ended)

    def is_empty(self) -> bool:
        """Whether there is none."""
        return self.size() == 0

    def get_stats(self) -> dict[str, Any]:
        """How many wait."""
        size = self.size()
        return {"size": size, "dropped_items": 0, "is_empty": size == 0}

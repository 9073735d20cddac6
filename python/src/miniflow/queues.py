"""Bounded queues between threads, which say so when they are full.

No engine needs them: they are there for programs that used those of the packages before this one.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable
from typing import Any

from .errors import ConfigError
from .status import ComponentStatus, of_queue

__all__ = ["BaseQueue", "InputQueue", "OutputQueue"]

_log = logging.getLogger("miniflow")


class BaseQueue:
    """A first-in-first-out queue of at most `maxsize` items, for any number of threads.

    An item that finds no room is not taken, which the caller is told by a False, `dropped_items` counts,
    and the logger "miniflow" reports.
    """

    def __init__(self, maxsize: int = 1000) -> None:
        if maxsize < 1:
            raise ConfigError(f"maxsize is {maxsize}: it must be at least 1")
        self.maxsize = maxsize
        self.dropped_items = 0
        self.total_put = 0
        self.total_get = 0
        self._items: deque[Any] = deque()
        self._lock = threading.Lock()
        self._filled = threading.Condition(self._lock)
        self._emptied = threading.Condition(self._lock)

    def put(self, item: Any) -> bool:
        """Puts an item, without waiting; False if the queue is full."""
        return self._put([item], 0.0)

    def put_with_retry(self, item: Any, max_retries: int = 3, delay: float = 0.1) -> bool:
        """Puts an item, waiting for room `max_retries` times `delay` seconds at most."""
        return self._put([item], max_retries * delay)

    def put_batch(self, items: Iterable[Any], max_retries: int = 3, delay: float = 0.1) -> bool:
        """Puts all of the items or, if there is not room for all of them in time, none."""
        return self._put(list(items), max_retries * delay)

    def _put(self, items: list[Any], timeout: float) -> bool:
        if len(items) > self.maxsize:
            timeout = 0.0  # there never will be
        with self._lock:
            if not self._emptied.wait_for(lambda: len(self._items) + len(items) <= self.maxsize, timeout):
                self.dropped_items += len(items)
                dropped = self.dropped_items
            else:
                self._items.extend(items)
                self.total_put += len(items)
                self._filled.notify(len(items))
                return True
        _log.warning(
            "queue full: no room for %d more of at most %d items, %d refused so far",
            len(items),
            self.maxsize,
            dropped,
        )
        return False

    def get(self) -> Any:
        """Takes the oldest item, without waiting; None if there is none."""
        return self.get_with_timeout(0.0)

    def get_with_timeout(self, timeout: float | None = 1.0) -> Any:
        """Takes the oldest item, waiting `timeout` seconds for one at most; None if none came."""
        with self._lock:
            if not self._filled.wait_for(lambda: self._items, timeout):
                return None
            item = self._items.popleft()
            self.total_get += 1
            # Not one: the room may be for somebody with fewer items than the first who waits.
            self._emptied.notify_all()
            return item

    def size(self) -> int:
        """How many items there are."""
        return len(self._items)

    def is_empty(self) -> bool:
        """Whether there is none."""
        return not self._items

    def is_full(self) -> bool:
        """Whether there is room for none."""
        return len(self._items) >= self.maxsize

    def get_stats(self) -> dict[str, Any]:
        """How full it is, and how many items it had no room for."""
        with self._lock:
            size = len(self._items)
            return {"size": size, "dropped_items": self.dropped_items, "is_empty": size == 0}


class InputQueue(BaseQueue):
    """A queue of tasks, as dicts."""

    # As it was: without a timeout, `get` does not wait.
    def get(self, timeout: float | None = None) -> Any:
        """Takes the oldest item, waiting `timeout` seconds for one at most; None if there is none."""
        return self.get_with_timeout(timeout or 0.0)

    def get_status(self) -> ComponentStatus:
        """How full it is."""
        return of_queue(
            "input_queue",
            self.size(),
            self.maxsize,
            True,
            total_put=self.total_put,
            total_dropped=self.dropped_items,
        )


class OutputQueue(BaseQueue):
    """A queue of results, as dicts."""

    def __init__(self, maxsize: int = 10000) -> None:
        super().__init__(maxsize)

    def get(self, timeout: float | None = None) -> Any:
        """Takes the oldest item, waiting `timeout` seconds for one at most; None if there is none."""
        return self.get_with_timeout(timeout or 0.0)

    def get_status(self) -> ComponentStatus:
        """How full it is."""
        return of_queue(
            "output_queue",
            self.size(),
            self.maxsize,
            True,
            total_put=self.total_put,
            total_get=self.total_get,
        )

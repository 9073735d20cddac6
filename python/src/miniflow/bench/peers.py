"""The pools of the standard library, started before miniflow has threads here, and always ended."""

from __future__ import annotations

import multiprocessing
import multiprocessing.pool
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

from . import work

POOL = "multiprocessing.Pool"
PROCESS_POOL = "ProcessPoolExecutor"


@contextmanager
def pool(workers: int) -> Iterator[multiprocessing.pool.Pool]:
    """A `multiprocessing.Pool` that has run tasks."""
    made = multiprocessing.Pool(workers)
    try:
        made.map(work.same, range(100 * workers), 1)
        yield made
    finally:
        made.terminate()
        made.join()


@contextmanager
def process_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A `ProcessPoolExecutor` that has run tasks."""
    made = ProcessPoolExecutor(workers)
    try:
        list(made.map(work.same, range(100 * workers)))
        yield made
    finally:
        made.shutdown(wait=True, cancel_futures=True)

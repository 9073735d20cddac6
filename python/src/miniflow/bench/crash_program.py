"""``python -m miniflow.bench.crash_program POOL busy|idle TASKS SECONDS``: prints what survives a kill."""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
import os
import signal
import sys
import time
from typing import Any, Callable, Protocol

from ..executor import Executor
from . import work

# Tasks that have ended when the worker is killed.
_BEFORE = 0.2


class Pending(Protocol):
    """A future, or what `Pool.apply_async` returns."""

    def wait(self, timeout: float) -> Any:
        """The task's value; raises what it failed with, and TimeoutError."""


class _Future:
    def __init__(self, future: concurrent.futures.Future[Any]) -> None:
        self._future = future

    def wait(self, timeout: float) -> Any:
        return self._future.result(timeout)


class _Async:
    def __init__(self, result: Any) -> None:
        self._result = result

    def wait(self, timeout: float) -> Any:
        try:
            return self._result.get(timeout)
        except multiprocessing.TimeoutError:
            raise concurrent.futures.TimeoutError from None


Submit = Callable[..., Pending]


def program(submit: Submit, scenario: str, tasks: int, seconds: float) -> tuple[int, int, int, str]:
    """Kills a worker; how many tasks then succeeded, failed, and did not end, and the first error."""
    victim = submit(os.getpid).wait(60)
    pending: list[Pending] = []
    if scenario == "busy":
        pending = [submit(work.brief, item) for item in range(tasks)]
        pending[int(tasks * _BEFORE)].wait(60)
        os.kill(victim, signal.SIGKILL)
    else:
        _until_idle(victim)
        os.kill(victim, signal.SIGKILL)
        _until_dead(victim)
    succeeded = failed = 0
    first = ""
    end = time.monotonic() + seconds
    items = iter(range(tasks))
    try:
        if scenario == "idle":
            pending = [submit(work.brief, item) for item in items]
    except Exception as error:  # a broken pool does not even take them
        first = type(error).__name__
        failed = tasks - len(pending)
    for task in pending:
        try:
            task.wait(max(0.0, end - time.monotonic()))
            succeeded += 1
        except concurrent.futures.TimeoutError:
            pass
        except Exception as error:
            failed += 1
            first = first or f"{type(error).__name__}: {error}".splitlines()[0]
    return succeeded, failed, tasks - succeeded - failed, first


def _until_idle(pid: int) -> None:
    """Waits until the process sleeps, 10 seconds at most."""
    end = time.monotonic() + 10
    calm = 0
    while calm < 20 and time.monotonic() < end:
        calm = calm + 1 if _state(pid) == "S" else 0
        time.sleep(0.005)


def _until_dead(pid: int) -> None:
    """Waits until the process is gone, or dead and not reaped yet, 10 seconds at most."""
    end = time.monotonic() + 10
    while _state(pid) not in ("", "Z", "X") and time.monotonic() < end:
        time.sleep(0.001)


def _state(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def main(argv: list[str]) -> None:
    """Prints a JSON array, and does not wait for a pool that hangs."""
    pool, scenario, tasks, seconds = argv[0], argv[1], int(argv[2]), float(argv[3])
    workers = 2 if scenario == "busy" else 1
    submit: Submit
    if pool == "multiprocessing":
        processes = multiprocessing.Pool(workers)

        def submit(function: Callable[..., object], *args: object) -> Pending:
            return _Async(processes.apply_async(function, args))

    else:
        executor: concurrent.futures.Executor = (
            Executor(workers) if pool == "miniflow" else concurrent.futures.ProcessPoolExecutor(workers)
        )

        def submit(function: Callable[..., object], *args: object) -> Pending:
            return _Future(executor.submit(function, *args))

    print(json.dumps(program(submit, scenario, tasks, seconds)), flush=True)
    # Not sys.exit(): the farewell of a pool that hangs never ends. Whoever started this kills the rest.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])

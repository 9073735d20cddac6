"""What tests need to know about processes: which are there, which have ended, which were left behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

RUN_VARIABLE = "MINIFLOW_TEST_RUN"
"""In the environment of whatever this test run executes: finds those whose parents are gone."""


class Process(NamedTuple):
    """A process as /proc shows it; `started` tells it from a later one with the same number."""

    pid: int
    started: int
    parent: int
    state: str

    def __str__(self) -> str:
        try:
            command = (
                Path(f"/proc/{self.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            )
        except OSError:
            command = ""
        return f"{self.pid} (parent {self.parent}, {self.state}): {command.strip() or '?'}"


def look(pid: int) -> Process | None:
    """The process of that number; None if there is none."""
    try:
        # The name, which is the second field and in parentheses, may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return Process(pid, started=int(fields[19]), parent=int(fields[1]), state=fields[0])


def alive(pid: int) -> bool:
    """Whether the process runs: one that has ended and that nobody has reaped does not."""
    process = look(pid)
    return process is not None and process.state not in "ZX"


def wait_until(condition: Callable[[], object], timeout: float = 30.0, what: str = "the condition") -> None:
    """Looks until the condition holds; fails the test if it does not in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come to hold within {timeout:g} s")
        time.sleep(0.005)


def ours() -> dict[int, Process]:
    """The descendants of this process, and those of this test run that have lost their parents."""
    everything = {process.pid: process for process in map(look, _pids()) if process}
    family = {os.getpid()}
    grown = True
    while grown:
        more = {pid for pid, process in everything.items() if process.parent in family} - family
        family |= more
        grown = bool(more)
    family |= {pid for pid in everything.keys() - family if _is_of_this_run(pid)}
    family.discard(os.getpid())
    return {pid: everything[pid] for pid in family}


def left_behind(before: Iterable[Process]) -> list[Process]:
    """Those of this run that were not there before, and that none of those who were has started since.

    The helpers of multiprocessing, which live as long as the interpreter, do not count.
    """
    known = {(process.pid, process.started) for process in before}
    now = ours()

    def expected(process: Process | None) -> bool:
        while process is not None:
            if (process.pid, process.started) in known or _is_a_helper(process.pid):
                return True
            process = now.get(process.parent)
        return False

    return sorted(process for process in now.values() if not expected(process))


def kill(processes: Iterable[Process]) -> None:
    """Kills them, and reaps those that are children of this process."""
    for process in processes:
        if look(process.pid) == process or alive(process.pid):
            try:
                os.kill(process.pid, signal.SIGKILL)
                os.waitpid(process.pid, 0)
            except (ChildProcessError, ProcessLookupError):
                pass


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _is_of_this_run(pid: int) -> bool:
    token = os.environ.get(RUN_VARIABLE)
    try:
        return bool(token) and f"{RUN_VARIABLE}={token}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def _is_a_helper(pid: int) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"multiprocessing.resource_tracker" in command or b"multiprocessing.forkserver" in command

"""What pools cost that have nothing to do."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from ..executor import Executor
from . import work
from .measure import Plan, spread
from .peers import POOL, pool
from .row import Row, Target

_WORKERS = 4


def idle(plan: Plan) -> list[Row]:
    """Processor time of the host and of all processes under it, in percent of one processor."""
    with Executor(_WORKERS) as executor:
        list(executor.map(work.same, range(1000)))
        ours, ours_are = _share(plan.idle)
    with pool(_WORKERS):
        theirs, theirs_are = _share(plan.idle)
    return [
        Row(
            "idle",
            f"{_WORKERS} idle workers: CPU time of host and children over {plan.idle:g} s",
            "%",
            sides={"miniflow.Executor": spread([ours]), POOL: spread([theirs])},
            target=Target(0.2, at_least=False, of_ratio=False),
            notes=[f"processes: {ours_are} (host, zygote, workers) and {theirs_are} (host, workers)"],
        )
    ]


def _share(seconds: float) -> tuple[float, int]:
    """Percent of one processor that this process and those under it use, and how many these are."""
    # Spinning and the end of the warm-up are over a little later: that is not idleness.
    time.sleep(0.5)
    who = [os.getpid(), *descendants(os.getpid())]
    before = sum(map(cpu_ns, who))
    start = time.monotonic_ns()
    time.sleep(seconds)
    used = sum(map(cpu_ns, who)) - before
    return 100 * used / (time.monotonic_ns() - start), len(who)


def cpu_ns(pid: int) -> int:
    """Processor time of a process's threads that live; 0 if it is gone."""
    total = 0
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                total += int((task / "schedstat").read_text().split()[0])
    return total


def descendants(pid: int) -> list[int]:
    """The processes that `pid` started, and those that they did."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError, ValueError):
                # behind the name, which may contain anything: state, parent
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found: list[int] = []
    todo = [pid]
    while todo:
        young = children.get(todo.pop(), [])
        found += young
        todo += young
    return found

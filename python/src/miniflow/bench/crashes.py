"""A worker is killed: the same program on three pools, each in a process of its own.

A pool that hangs is killed with all that it has started when its time is over; what its program has
said until then counts.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from typing import NamedTuple

from .measure import Plan, spread
from .peers import POOL, PROCESS_POOL
from .row import Row, Target

_IDLE_TASKS = 50
_POOLS = {"miniflow.Executor": "miniflow", PROCESS_POOL: "concurrent", POOL: "multiprocessing"}


class Outcome(NamedTuple):
    """What became of the tasks of one program."""

    succeeded: int
    failed: int
    unresolved: int
    error: str  # the first


def crashes(plan: Plan) -> list[Row]:
    """With tasks queued, and idle."""
    return [
        _row(
            plan,
            "kill_busy",
            f"a worker of 2 is killed with {plan.kills} tasks of 1 ms queued",
            plan.kills,
            # The one task that ran when its worker was killed may fail.
            plan.kills - 1,
        ),
        _row(
            plan,
            "kill_idle",
            f"the only worker is killed idle, then come {_IDLE_TASKS} tasks",
            _IDLE_TASKS,
            _IDLE_TASKS,
        ),
    ]


def _row(plan: Plan, name: str, what: str, tasks: int, least: int) -> Row:
    row = Row(name, what, f"of {tasks}", target=Target(least, of_ratio=False))
    for label, pool in _POOLS.items():
        outcome = _run(pool, name.removeprefix("kill_"), tasks, plan.limit)
        row.sides[label] = spread([outcome.succeeded])
        row.notes.append(f"{label}: {_story(outcome, plan.limit)}")
        if label == next(iter(_POOLS)) and outcome.unresolved:
            row.target = Target(tasks + 1, of_ratio=False)  # a hang is never good enough
    return row


def _story(outcome: Outcome, limit: float) -> str:
    parts = [f"{outcome.succeeded} succeeded"]
    if outcome.failed:
        parts.append(f"{outcome.failed} failed ({outcome.error})")
    if outcome.unresolved:
        parts.append(f"{outcome.unresolved} HUNG (not ended after {limit:g} s)")
    return ", ".join(parts)


def _run(pool: str, scenario: str, tasks: int, limit: float) -> Outcome:
    """Runs the program in a process group of its own, of which nothing is left afterwards."""
    command = [sys.executable, "-m", "miniflow.bench.crash_program", pool, scenario, str(tasks), str(limit)]
    # Not a pipe: its end would come only when the last worker of a pool that hangs is gone.
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            # It limits itself; this is for a pool that does not even start.
            process.wait(limit + 60)
        except subprocess.TimeoutExpired:
            return Outcome(0, 0, tasks, "")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        out.seek(0)
        said = out.read()
    if not said:
        raise RuntimeError(f"{' '.join(command)} ended with code {process.returncode} and said nothing")
    return Outcome(*json.loads(said))

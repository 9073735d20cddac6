"""How soon a worker that was killed is replaced, with a heavy module imported."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time

from ..errors import WorkerCrashed
from ..executor import Executor
from .measure import Plan, interleave
from .row import Row, Target, compare

_HEAVY = "numpy"


def start(plan: Plan) -> list[Row]:
    """From the kill to the end of the first task of the new worker."""
    what = f"a worker is killed; time until a new one that has {_HEAVY} has run a task"
    if importlib.util.find_spec(_HEAVY) is None:
        return [Row("start", what, "ms", skipped=f"{_HEAVY} is not installed")]
    with Executor(1, preload=[_HEAVY], retries=3) as executor:
        executor.submit(os.getpid).result()
        found = interleave(
            plan.rounds,
            {
                f"miniflow, preload=[{_HEAVY!r}]": lambda: _respawn(executor),
                f"fresh interpreter, import {_HEAVY}": _interpreter,
            },
        )
    return [compare("start", what, "ms", found, Target(1 / 10, at_least=False))]


def _respawn(executor: Executor) -> float:
    victim = executor.submit(os.getpid).result()
    start = time.perf_counter()
    os.kill(victim, signal.SIGKILL)
    while True:
        try:
            # The signal may arrive a little after this task has: then its answer is the victim's.
            if executor.submit(os.getpid).result(60) != victim:
                return (time.perf_counter() - start) * 1000
        except WorkerCrashed:
            continue


def _interpreter() -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {_HEAVY}"], check=True, timeout=120)
    return (time.perf_counter() - start) * 1000

"""Script tasks through the Engine: what programs of the package before miniflow did."""

from __future__ import annotations

import itertools
from collections import deque
from functools import partial
from pathlib import Path

from ..config import EngineConfig
from ..engine import Engine
from ..tasks import Task, TaskType
from . import script
from .measure import Plan, interleave, p50, rate
from .peers import POOL, pool
from .row import Row, Target, compare

_PATH = str(Path(__file__).with_name("script.py"))
_WINDOW = 500
_CONFIG = EngineConfig(cpu_bound_count=1, io_bound_count=1)


def round_trip(plan: Plan) -> list[Row]:
    """One script task after the other."""

    def ours() -> None:
        task_id = engine.submit_task(Task.create(_PATH, {"item": 1}, TaskType.CPU_BOUND))
        _check(engine, task_id)

    def ours_io() -> None:
        _check(engine, engine.submit_task(Task.create(_PATH, {"item": 1})))

    def theirs() -> None:
        processes.apply(script.main, ({"item": 1}, None))

    with pool(1) as processes, Engine(_CONFIG) as engine:
        ours()
        ours_io()
        found = interleave(
            plan.rounds,
            {
                "miniflow.Engine, CPU_BOUND": lambda: p50(ours, plan.slice),
                f"{POOL}.apply": lambda: p50(theirs, plan.slice),
                "miniflow.Engine, IO_BOUND": lambda: p50(ours_io, plan.slice),
            },
        )
    return [
        compare(
            "script_round_trip",
            "submit_task and get_result of a script that returns a small dict, one after the other, p50",
            "us",
            found,
            Target(60, at_least=False, of_ratio=False),
            ["the package before miniflow: 10 300 us on a machine of this kind"],
        )
    ]


def throughput(plan: Plan) -> list[Row]:
    """Script tasks with a window of them in flight."""
    items = itertools.repeat({"item": 1})

    def theirs() -> int:
        return sum(1 for _ in processes.imap(_peer, itertools.islice(items, 1000)))

    with pool(1) as processes, Engine(_CONFIG) as engine:
        found = interleave(
            plan.rounds,
            {
                "miniflow.Engine, CPU_BOUND": partial(_flow, engine, TaskType.CPU_BOUND, plan.slice),
                f"{POOL}.imap": lambda: rate(theirs, plan.slice),
                "miniflow.Engine, IO_BOUND": partial(_flow, engine, TaskType.IO_BOUND, plan.slice),
            },
        )
    return [
        compare(
            "script_rate",
            f"submit_task and get_result of the same script, {_WINDOW} in flight, one worker",
            "tasks/s",
            found,
            Target(50_000, of_ratio=False),
            [
                "CPU_BOUND: a worker of one thread; IO_BOUND: one of 20, which share an interpreter lock",
                "the package before miniflow: 800 to 2 100 tasks/s on a machine of this kind",
            ],
        )
    ]


def _flow(engine: Engine, kind: TaskType, seconds: float) -> float:
    """Tasks a second: for each whose result was taken another is submitted."""
    flying: deque[str] = deque()
    for _ in range(_WINDOW):
        flying.append(engine.submit_task(Task.create(_PATH, {"item": 1}, kind)))

    def burst() -> int:
        for _ in range(100):
            _check(engine, flying.popleft())
            flying.append(engine.submit_task(Task.create(_PATH, {"item": 1}, kind)))
        return 100

    measured = rate(burst, seconds)
    while flying:
        _check(engine, flying.popleft())
    return measured


def _check(engine: Engine, task_id: str) -> None:
    result = engine.get_result(task_id)
    if result is None or not result.is_success:
        raise RuntimeError(f"the script failed: {result}")


def _peer(params: dict[str, int]) -> object:
    return script.main(params, None)

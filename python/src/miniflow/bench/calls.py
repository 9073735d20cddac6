"""``Executor`` beside ``ProcessPoolExecutor`` and ``multiprocessing.Pool``: calls that do nothing."""

from __future__ import annotations

import concurrent.futures
import pickle
from collections import deque
from functools import partial

from ..executor import Executor
from . import work
from .measure import Plan, interleave, p50, rate
from .peers import POOL, PROCESS_POOL, pool, process_pool
from .row import Row, Target, compare

_OUTSTANDING = 1000
_ITEMS = 100_000
_CHUNK = 100


def submit(plan: Plan) -> list[Row]:
    """`submit` with 1 000 calls outstanding all the time."""
    return [_submit(plan, workers) for workers in (1, 2)]


def _submit(plan: Plan, workers: int) -> Row:
    with process_pool(workers) as theirs, Executor(workers) as ours:
        list(ours.map(work.same, range(100 * workers)))
        found = interleave(
            plan.rounds,
            {
                "miniflow.Executor": partial(_flow, ours, plan.slice),
                PROCESS_POOL: partial(_flow, theirs, plan.slice),
                "floor: Future + pickle": lambda: rate(_floor, plan.slice),
            },
        )
    return compare(
        f"submit_{workers}",
        f"Executor.submit, no-op, {_OUTSTANDING} outstanding, workers: {workers}",
        "calls/s",
        found,
        Target(12),
        ["floor: a bare Future, the pickle of a call and the unpickling of a result, in one process"],
    )


def _flow(executor: concurrent.futures.Executor, seconds: float) -> float:
    """Calls a second: for each that has ended, in their order, another is submitted."""
    submit = executor.submit
    nothing = work.nothing
    flying = deque(submit(nothing) for _ in range(_OUTSTANDING))

    def burst() -> int:
        for _ in range(100):
            flying.popleft().result()
            flying.append(submit(nothing))
        return 100

    measured = rate(burst, seconds)
    while flying:
        flying.popleft().result()
    return measured


def _floor() -> int:
    """What a call costs the host in any executor that has futures and pickles."""
    reply = pickle.dumps(None, 5)
    for _ in range(100):
        future: concurrent.futures.Future[None] = concurrent.futures.Future()
        pickle.dumps((work.nothing, (), {}), 5)
        future.set_result(pickle.loads(reply))
        future.result()
    return 100


def round_trip(plan: Plan) -> list[Row]:
    """One call after the other."""
    with process_pool(1) as theirs, Executor(1) as ours:
        ours.submit(work.nothing).result()  # starts the worker
        found = interleave(
            plan.rounds,
            {
                "miniflow.Executor": lambda: p50(lambda: ours.submit(work.nothing).result(), plan.slice),
                PROCESS_POOL: lambda: p50(lambda: theirs.submit(work.nothing).result(), plan.slice),
            },
        )
    return [
        compare(
            "round_trip",
            "Executor.submit(...).result(), one call after the other, p50",
            "us",
            found,
            Target(1 / 5, at_least=False),
        )
    ]


def bulk(plan: Plan) -> list[Row]:
    """Calls that travel by the hundred."""
    return [_bulk(plan, workers) for workers in (1, 2)]


def _bulk(plan: Plan, workers: int) -> Row:
    items = range(_ITEMS)

    def our_burst() -> int:
        return _drain(ours.map(work.same, items, chunksize=_CHUNK))

    def their_burst() -> int:
        return _drain(theirs.imap_unordered(work.same, items, chunksize=_CHUNK))

    with pool(workers) as theirs, Executor(workers) as ours:
        our_burst()
        found = interleave(
            plan.rounds,
            {
                "miniflow.Executor.map": lambda: rate(our_burst, plan.slice),
                f"{POOL}.imap_unordered": lambda: rate(their_burst, plan.slice),
            },
        )
    return compare(
        f"map_{workers}",
        f"map(chunksize={_CHUNK}), no-op, workers: {workers}",
        "calls/s",
        found,
        Target(1.5),
        ["miniflow yields the results in their order, the pool as they come"],
    )


def _drain(results: object) -> int:
    count = 0
    for _ in results:  # type: ignore[attr-defined]
        count += 1
    return count

"""How it is measured: slices that take turns, and what their rounds say together."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Callable, NamedTuple


@dataclass(frozen=True)
class Plan:
    """How long and how often to measure."""

    rounds: int = 7
    slice: float = 0.25  # seconds that one side runs in a round
    idle: float = 5.0  # seconds of idleness
    limit: float = 10.0  # seconds after which what has not ended counts as hung
    kills: int = 1000  # tasks queued when a worker is killed


QUICK = Plan(rounds=2, slice=0.02, idle=0.2, limit=2.0, kills=100)


class Spread(NamedTuple):
    """A quantity over the rounds."""

    median: float
    low: float
    high: float


def spread(values: Iterable[float]) -> Spread:
    """Median, least and greatest of the values, of which there must be one."""
    known = list(values)
    return Spread(statistics.median(known), min(known), max(known))


def interleave(rounds: int, sides: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Runs a slice of each side in turn, again and again; what each of them gave."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            found[name].append(run())
    return found


def p50(call: Callable[[], object], seconds: float) -> float:
    """The median time of one call, in microseconds, of all calls in so many seconds."""
    clock = time.perf_counter_ns
    times = []
    now = clock()
    end = now + int(seconds * 1e9)
    while now < end:
        call()
        after = clock()
        times.append(after - now)
        now = after
    return statistics.median(times) / 1000


def rate(burst: Callable[[], int], seconds: float) -> float:
    """Tasks a second: bursts, each of which says how many it did, for so many seconds."""
    start = now = time.perf_counter()
    done = 0
    while now - start < seconds:
        done += burst()
        now = time.perf_counter()
    return done / (now - start)

"""Arrays of 8 MiB there and back."""

from __future__ import annotations

from typing import Any, Callable

from ..executor import Executor
from . import work
from .measure import Plan, interleave, p50
from .peers import POOL, pool
from .row import Row, Target, compare

_BYTES = 8 << 20


def arrays(plan: Plan) -> list[Row]:
    """An array in, an array of the same size out."""
    name, what = "array", "numpy array of 8 MiB in, 8 MiB out"
    try:
        import numpy
    except ImportError:
        return [Row(name, what, "us", skipped="numpy is not installed")]
    array = numpy.arange(_BYTES // 8, dtype=numpy.float64)
    with pool(1) as theirs, Executor(1, preload=["numpy"]) as ours:

        def our(function: Callable[[Any], Any]) -> float:
            return p50(lambda: _last(ours.submit(function, array).result()), plan.slice)

        def their(function: Callable[[Any], Any]) -> float:
            return p50(lambda: _last(theirs.apply(function, (array,))), plan.slice)

        rows = []
        for suffix, function, doing in (
            ("", work.give_back, "a task that returns what it was given"),
            ("_new", work.add_one, "a task that returns a new one (array + 1)"),
        ):
            if function(array)[-1] != _our_last(ours, function, array):
                raise RuntimeError("the array came back with something else in it")
            found = interleave(
                plan.rounds,
                {
                    "miniflow.Executor": lambda function=function: our(function),  # type: ignore[misc]
                    f"{POOL}.apply": lambda function=function: their(function),  # type: ignore[misc]
                },
            )
            rows.append(
                compare(name + suffix, f"{what}, {doing}, p50", "us", found, Target(1 / 5, at_least=False))
            )
    return rows


def _our_last(executor: Executor, function: Callable[[Any], Any], array: Any) -> float:
    """The last element of what `function` makes of the array in a worker."""
    return _last(executor.submit(function, array).result())


def _last(array: Any) -> float:
    """Looks at the result, so that it is there."""
    return float(array[-1])

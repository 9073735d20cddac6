"""What the tests with numpy submit: workers import this module."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np

kept: list[Any] = []


def ones(count: int) -> Any:
    return np.ones(count)


def filled(count: int, value: int) -> Any:
    return np.full(count, value)


def empty(size: int, value: int) -> Any:
    """An array of which only the ends are written."""
    array = np.empty(size // 8, dtype="i8")
    array[0] = array[-1] = value
    return array


def last(array: Any) -> Any:
    return array[-1]


def doubled(array: Any) -> Any:
    return array * 2


def describe(array: Any) -> dict[str, Any]:
    return {
        "writeable": array.flags.writeable,
        "owns": array.flags.owndata,
        "aligned": array.ctypes.data % 64 == 0,
        "sum": float(array.sum()),
    }


def forget() -> None:
    kept.clear()


def keep_part(array: Any) -> None:
    kept.append(array[100:110])


def kept_sums() -> list[int]:
    return [int(part.sum()) for part in kept]


def length(value: Any) -> int:
    return len(memoryview(value))


def as_buffer(size: int) -> pickle.PickleBuffer:
    return pickle.PickleBuffer(b"x" * size)

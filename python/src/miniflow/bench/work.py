"""The functions that are timed: in a module, so that every pool can import them."""

from __future__ import annotations

import time
from typing import Any


def nothing() -> None:
    """A task that costs nothing."""


def same(item: int) -> int:
    """A task of which many travel together."""
    return item


def brief(item: int) -> int:
    """A task of about a millisecond."""
    time.sleep(0.001)
    return item


def add_one(array: Any) -> Any:
    """A new array of the same size as the one that came."""
    return array + 1.0


def give_back(array: Any) -> Any:
    """The array that came."""
    return array

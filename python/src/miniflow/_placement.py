"""Where workers run and how, as Python programs say it, and how that reaches the C ABI."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from dataclasses import dataclass

from . import _abi
from .errors import ConfigError

_SCHEDULERS = {
    None: _abi.MF_SCHEDULER_INHERIT,
    "normal": _abi.MF_SCHEDULER_NORMAL,
    "batch": _abi.MF_SCHEDULER_BATCH,
    "idle": _abi.MF_SCHEDULER_IDLE,
}
_MOST_CPUS = 1 << 16


@dataclass(frozen=True)
class Placement:
    """The same for all workers of an engine. What this machine cannot do is left out by the engine, and
    noted in its status; what no machine can do is refused here."""

    affinity: str | Sequence[int] | None = None
    nice: int = 0
    scheduler: str | None = None
    io_priority: int | str | None = None
    huge_pages: bool = False

    def __post_init__(self) -> None:
        _affinity(self.affinity)
        if not _is_whole(self.nice) or not -20 <= self.nice <= 19:
            raise ConfigError(f"nice is {self.nice!r}: it must be a whole number from -20 to 19")
        if self.scheduler not in tuple(_SCHEDULERS):  # a tuple, because it may be anything
            raise ConfigError(
                f"scheduler is {self.scheduler!r}: it must be 'normal', 'batch', 'idle' or None"
            )
        _io_priority(self.io_priority)
        if not isinstance(self.huge_pages, bool):
            raise ConfigError(f"huge_pages is {self.huge_pages!r}: it must be True or False")

    @property
    def binds(self) -> bool:
        """Whether each worker has only as many processors as it has threads."""
        return self.affinity is not None and _affinity(self.affinity)[0] != _abi.MF_AFFINITY_NODE

    def fill(self, config: _abi.Config) -> object:
        """Sets the fields of a config; the answer is to be kept as long as the config is used."""
        config.affinity, config.affinity_node, cpus = _affinity(self.affinity)
        listed = (ctypes.c_uint32 * len(cpus))(*cpus)
        if cpus:
            config.affinity_cpus = listed
            config.affinity_count = len(cpus)
        for row in config.classes:
            row.nice = self.nice
            row.scheduler = _SCHEDULERS[self.scheduler]
            row.io_priority = _io_priority(self.io_priority)
        if self.huge_pages:
            config.huge_pages = _abi.MF_HUGE_PAGES_ADVISE
        return listed


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_list(value: object) -> bool:
    if not isinstance(value, Sequence) or not 0 < len(value) <= _MOST_CPUS:
        return False
    return all(_is_whole(cpu) and 0 <= cpu < 1 << 32 for cpu in value)


def _affinity(value: str | Sequence[int] | None) -> tuple[int, int, Sequence[int]]:
    """The kind of an affinity, its node, and its processors."""
    if value is None:
        return _abi.MF_AFFINITY_NONE, 0, ()
    if isinstance(value, str):
        if value == "spread":
            return _abi.MF_AFFINITY_SPREAD, 0, ()
        node = re.fullmatch(r"node:([0-9]{1,9})", value)
        if node:
            return _abi.MF_AFFINITY_NODE, int(node[1]), ()
    elif _is_list(value):
        return _abi.MF_AFFINITY_LIST, 0, value
    raise ConfigError(
        f"affinity is {value!r}: it must be 'spread', 'node:N', a sequence of numbers of processors, or None"
    )


def _io_priority(value: int | str | None) -> int:
    if value is None:
        return _abi.MF_IO_INHERIT
    if value == "idle":
        return _abi.MF_IO_IDLE
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 7:
        return _abi.MF_IO_BEST_EFFORT + value
    raise ConfigError(f"io_priority is {value!r}: it must be a whole number from 0 to 7, 'idle' or None")

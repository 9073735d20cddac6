"""What was measured where."""

from __future__ import annotations

import multiprocessing
import os
import platform
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

from .. import _abi
from .._settings import available_cpus


def machine(command: list[str]) -> dict[str, Any]:
    """The machine, its kernel, the interpreter, the moment."""
    return {
        "command": " ".join(command),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "processor": _processor(),
        "processors": available_cpus(),
        "load": os.getloadavg()[0],
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "start_method": multiprocessing.get_start_method(),
        "library": str(_abi.path),
    }


def lines(facts: dict[str, Any]) -> list[str]:
    """The same for people."""
    return [
        f"{facts['command']}, {facts['date']}",
        f"  {facts['processor']}, {facts['processors']} processor(s), load {facts['load']:.2f} before",
        f"  {facts['kernel']}",
        f"  {facts['python']}; the pools of the standard library start by {facts['start_method']}",
        f"  {facts['library']}",
    ]


class Others:
    """What share of the machine other programs use meanwhile: what is left to them is not ours."""

    def __init__(self) -> None:
        self._total, self._busy = _jiffies()
        self._ours = _our_seconds()

    def percent(self) -> float:
        """Of all processor time since this was made. To be asked when what was started here has ended."""
        total, busy = _jiffies()
        ticks = os.sysconf("SC_CLK_TCK")
        theirs = busy - self._busy - (_our_seconds() - self._ours) * ticks
        return max(0.0, 100 * theirs / max(1, total - self._total))


def _jiffies() -> tuple[int, int]:
    """Clock ticks of all processors since the start of the machine: all, and those that were used."""
    with open("/proc/stat", encoding="ascii") as file:
        ticks = [int(word) for word in file.readline().split()[1:9]]
    return sum(ticks), sum(ticks) - ticks[3] - ticks[4]  # idle, and waiting for a disk


def _our_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _processor() -> str:
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()

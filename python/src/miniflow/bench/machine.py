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


def _processor() -> str:
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()

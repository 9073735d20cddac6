"""What the tests of scripts share."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

DEADLINE = 150.0
"""Seconds after which something that has to happen counts as not happening: within what a test has, and
more than a machine's pause."""


def write(path: Path, text: str) -> str:
    """Puts a file in place at once, as a careful editor does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".draft")
    draft.write_text(text)
    draft.replace(path)
    return str(path)


def unpickle_elsewhere(data: bytes, expression: str) -> str:
    """What an expression about the pickled `value` gives in a process that knows nothing of scripts."""
    program = f"import pickle, sys; value = pickle.load(sys.stdin.buffer); print({expression})"
    done = subprocess.run(
        [sys.executable, "-c", program], input=data, stdout=subprocess.PIPE, check=True, timeout=DEADLINE
    )
    return done.stdout.decode().strip()


class Probe(ModuleType):
    """A module that scripts import, by which a test sees what they do, and holds them up."""

    def __init__(self) -> None:
        super().__init__("probe")
        self.loads: list[object] = []
        self.started = threading.Event()
        self.go_on = threading.Event()

    def hold(self) -> None:
        self.started.set()
        assert self.go_on.wait(DEADLINE), "the test did not let the script go on"

    def await_start(self) -> None:
        assert self.started.wait(DEADLINE), "the script did not start"


def install_probe(monkeypatch: pytest.MonkeyPatch) -> Probe:
    probe = Probe()
    monkeypatch.setitem(sys.modules, "probe", probe)
    return probe


class Threads:
    """Runs functions in threads that start at the same moment, and hands back what they returned."""

    def __init__(self, functions: list[Callable[[], Any]]) -> None:
        self._results: list[Any] = [None] * len(functions)
        self._errors: list[BaseException] = []
        self._barrier = threading.Barrier(len(functions))
        self._threads = [
            threading.Thread(target=self._run, args=(number, function), daemon=True)
            for number, function in enumerate(functions)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int, function: Callable[[], Any]) -> None:
        try:
            self._barrier.wait(DEADLINE)
            self._results[number] = function()
        except BaseException as error:
            self._errors.append(error)

    def join(self) -> list[Any]:
        for thread in self._threads:
            thread.join(DEADLINE)
            assert not thread.is_alive(), "a thread hangs"
        if self._errors:
            raise self._errors[0]
        return self._results

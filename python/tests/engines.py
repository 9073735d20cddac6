"""What tests of an engine share: scripts, gates that hold tasks back, and short ways to submit."""

from __future__ import annotations

import os
from pathlib import Path

from processes import wait_until

from miniflow import Engine, Result, Task, TaskStatus, TaskType

SCRIPTS = Path(__file__).parent / "scripts"
ACT = str(SCRIPTS / "act.py")


def act(do: str = "who", *, cpu: bool = False, max_retries: int = 0, timeout: float | None = None, **params):
    """A task that does as it is told."""
    kind = TaskType.CPU_BOUND if cpu else TaskType.IO_BOUND
    return Task.create(ACT, {"do": do, **params}, kind, max_retries=max_retries, timeout=timeout)


def run(engine: Engine, task: Task) -> Result:
    """Submits a task and takes its result."""
    engine.submit_task(task)
    result = engine.get_result(task.id)
    assert result is not None
    return result


def wait_for(task: Task, status: TaskStatus) -> None:
    """Waits until the task has come there."""
    wait_until(lambda: task.status is status, what=f"{task} to be {status.value}")


class Gate:
    """Tasks that wait at it run until it is opened."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "gate"

    def task(self, **options) -> Task:
        return act("gate", gate=str(self.path), **options)

    def hold(self, engine: Engine, **options) -> Task:
        """A task that runs now, and until the gate is opened."""
        task = self.task(**options)
        engine.submit_task(task)
        wait_for(task, TaskStatus.RUNNING)
        return task

    def open(self) -> None:
        self.path.touch()


def note_pid(path: str) -> None:
    """An initializer: notes the process that it runs in."""
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")

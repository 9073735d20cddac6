"""Programs that were written for the packages before this one run unchanged."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import miniflow
import miniflow.manager
import miniflow.process_pool
import miniflow.queues
from miniflow import _watcher

PROGRAMS = Path(__file__).parent / "old_programs"

# Where names were, and what they are now.
NAMES = {
    "cpu_load_balancer": miniflow,
    "cpu_load_balancer.config": miniflow.config,
    "cpu_load_balancer.core": miniflow,
    "cpu_load_balancer.core.enums": miniflow.tasks,
    "cpu_load_balancer.core.exceptions": miniflow.errors,
    "cpu_load_balancer.task": miniflow.tasks,
    "cpu_load_balancer.task.task": miniflow.tasks,
    "cpu_load_balancer.task.result": miniflow.tasks,
    "cpu_load_balancer.queue": miniflow.queues,
    "cpu_load_balancer.queue.input_queue": miniflow.queues,
    "cpu_load_balancer.queue.output_queue": miniflow.queues,
    "cpu_load_balancer.worker": miniflow.process_pool,
    "cpu_load_balancer.worker.pool": miniflow.process_pool,
    "cpu_load_balancer.status": miniflow.status,
    "cpu_load_balancer.engine": miniflow.engine,
    "cpu_load_balancer.engine.engine": miniflow.engine,
    "miniflow.parallelism_engine": miniflow.manager,
    "miniflow.parallelism_engine.manager": miniflow.manager,
    "miniflow.parallelism_engine.engine": _watcher,
    "miniflow.parallelism_engine.queue_module": miniflow.queues,
}

EXPECTED = {
    "cpu_load_balancer": "Engine EngineConfig Task Result TaskType TaskStatus ComponentStatus EngineError",
    "cpu_load_balancer.config": "EngineConfig",
    "cpu_load_balancer.core.enums": "TaskType TaskStatus",
    "cpu_load_balancer.core.exceptions": (
        "EngineError TaskError QueueError ConfigError ExecutorError WorkerError"
    ),
    "cpu_load_balancer.task.task": "Task",
    "cpu_load_balancer.task.result": "Result",
    "cpu_load_balancer.queue.input_queue": "InputQueue",
    "cpu_load_balancer.queue.output_queue": "OutputQueue",
    "cpu_load_balancer.worker.pool": "ProcessPool",
    "cpu_load_balancer.status": "ComponentStatus",
    "cpu_load_balancer.engine": "Engine",
    "miniflow.parallelism_engine": "Manager",
    "miniflow.parallelism_engine.engine": "QueueWatcher",
    "miniflow.parallelism_engine.queue_module": "BaseQueue",
}


@pytest.mark.parametrize("path", NAMES)
def test_an_old_import_path_gives_the_same_things(path):
    module = importlib.import_module(path)
    assert module.__all__
    for name in module.__all__:
        assert getattr(module, name) is getattr(NAMES[path], name)
    assert set(EXPECTED.get(path, "").split()) <= set(module.__all__)


def run(program: str) -> tuple[list[str], str]:
    """What it prints, and what it complains of."""
    done = subprocess.run(
        [sys.executable, str(PROGRAMS / program)], capture_output=True, text=True, timeout=150, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr


def test_a_program_for_cpu_load_balancer_runs_unchanged():
    printed, complaints = run("batch.py")
    assert complaints == ""
    assert printed == [
        "too early: ENG002",
        "failed: no route to host-3",
        "running: True",
        "input_queue: healthy",
        "output_queue: healthy",
        "process_pool: healthy",
        "workers: 2 cpu, 1 io",
        "workers in all: 3",
        "cpu-0: 0 active, 0 queued",
        "cpu-1: 0 active, 0 queued",
        "input_queue: 708 put",
        "done",
    ]


def test_a_program_for_the_parallelism_engine_runs_unchanged():
    printed, complaints = run("scheduler.py")
    assert complaints == ""
    assert printed == [
        "queue: 2 in, 1 refused",
        "index: 0",
        "first: success, {'sum': 5}",
        "node-7: first is not a number",
        "{'size': 0, 'dropped_items': 0, 'is_empty': True}",
        "done",
    ]

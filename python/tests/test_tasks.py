"""Task and Result: names, defaults, and what goes through a dict."""

from __future__ import annotations

import copy
import datetime
import pickle
import subprocess
import sys
import timeit
import uuid
from datetime import timezone
from pathlib import Path

import pytest

from miniflow import Result, Task, TaskStatus, TaskType
from miniflow.errors import TaskTimeout


def test_task_types_and_statuses_have_the_values_of_old():
    assert {t.name: t.value for t in TaskType} == {"CPU_BOUND": "cpu_bound", "IO_BOUND": "io_bound"}
    names = ["PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED"]
    assert {s.name: s.value for s in TaskStatus} == {name: name.lower() for name in names}


def test_a_created_task_has_the_defaults_of_old():
    before = datetime.datetime.now(timezone.utc)
    task = Task.create("script.py")
    assert uuid.UUID(task.id).version == 4
    assert str(uuid.UUID(task.id)) == task.id
    assert before <= task.created_at <= datetime.datetime.now(timezone.utc)
    assert task.created_at.tzinfo is timezone.utc
    assert (task.script_path, task.params, task.task_type) == ("script.py", {}, TaskType.IO_BOUND)
    assert (task.max_retries, task.retry_count, task.dependencies) == (3, 0, [])
    assert task.status is TaskStatus.PENDING
    assert (task.timeout, task.priority) == (None, 0)


def test_a_task_takes_its_arguments_by_position_as_of_old():
    task = Task.create("script.py", {"a": 1}, TaskType.CPU_BOUND, 5, ["x"])
    assert (task.params, task.task_type, task.max_retries, task.dependencies) == (
        {"a": 1},
        TaskType.CPU_BOUND,
        5,
        ["x"],
    )


def test_ids_differ_also_in_a_forked_child():
    program = """
import os
from miniflow import Task
def tell():
    os.write(1, f"{Task.create('script.py').id} ".encode())  # at once: the other process writes too
tell()
child = os.fork()
tell()
if child:
    os.waitpid(child, 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    ids = done.stdout.split()
    assert len(ids) == len(set(ids)) == 3
    assert len({Task.create("script.py").id for _ in range(1000)}) == 1000


def test_a_task_goes_through_a_dict():
    task = Task.create("script.py", {"a": 1}, TaskType.CPU_BOUND, 5, ["x"])
    data = task.to_dict()
    assert data == {
        "task_id": task.id,
        "script_path": "script.py",
        "params": {"a": 1},
        "task_type": "cpu_bound",
        "max_retries": 5,
        "dependencies": ["x"],
    }
    other = Task.from_dict(data)
    assert other.id == task.id
    assert other.to_dict() == data


def test_new_options_go_through_a_dict_if_they_are_set():
    task = Task.create("script.py", timeout=2.5, priority=-1)
    other = Task.from_dict(task.to_dict())
    assert (other.timeout, other.priority) == (2.5, -1)


def test_a_task_from_a_poor_dict_has_defaults():
    task = Task.from_dict({"script_path": "script.py"})
    assert uuid.UUID(task.id)
    assert (task.params, task.task_type, task.max_retries) == ({}, TaskType.IO_BOUND, 3)


def test_a_task_bears_attributes_of_the_program():
    task = Task.create("script.py")
    task.colour = "red"
    assert copy.deepcopy(task).colour == "red"
    assert pickle.loads(pickle.dumps(task)).to_dict() == task.to_dict()
    assert pickle.loads(pickle.dumps(task)).created_at == task.created_at


def test_a_path_object_will_do_for_a_script():
    assert Task.create(Path("some/script.py")).script_path == "some/script.py"


@pytest.mark.parametrize(
    "wrong",
    [
        {"script_path": ""},
        {"max_retries": -1},
        {"timeout": 0},
        {"priority": 4},
        {"task_type": "gpu_bound"},
    ],
    ids=str,
)
def test_a_task_that_cannot_be_is_refused_when_it_is_made(wrong):
    with pytest.raises(ValueError, match=r".+"):
        Task(**{"script_path": "script.py", **wrong})


def test_creating_a_task_costs_next_to_nothing():
    # 2 us on the machine of the measurements; uuid4() alone is 3 there. The bound is for a busy one.
    best = min(timeit.repeat(lambda: Task.create("script.py"), number=2000, repeat=20)) / 2000
    assert best < 20e-6


def test_a_successful_result_has_the_names_of_old():
    started = datetime.datetime.now(timezone.utc)
    result = Result.success("id", {"x": 1}, started)
    assert (result.task_id, result.status, result.data, result.error) == (
        "id",
        TaskStatus.COMPLETED,
        {"x": 1},
        None,
    )
    assert result.is_success
    assert result.error_details is None
    assert result.started_at == started
    assert result.completed_at.tzinfo is timezone.utc
    assert result.duration == pytest.approx((result.completed_at - started).total_seconds())


def test_a_failed_result_has_the_names_of_old():
    result = Result.failed("id", "went wrong")
    assert (result.task_id, result.status, result.data, result.error) == (
        "id",
        TaskStatus.FAILED,
        None,
        "went wrong",
    )
    assert not result.is_success
    assert (result.started_at, result.duration) == (None, None)


def test_a_naive_start_is_a_local_time():
    result = Result.success("id", 1, datetime.datetime.now())
    assert 0 <= result.duration < 60


@pytest.mark.parametrize(
    ("result", "status"),
    [(Result.success("id", [1]), "SUCCESS"), (Result.failed("id", "no"), "FAILED")],
    ids=["success", "failed"],
)
def test_a_result_goes_through_a_dict(result, status):
    data = result.to_dict()
    assert data["status"] == status
    assert datetime.datetime.fromisoformat(data["completed_at"]) == result.completed_at
    assert {"task_id", "data", "error", "error_details", "started_at"} <= data.keys()
    assert Result.from_dict(data).to_dict() == data


def test_new_fields_of_a_result_go_through_a_dict():
    result = Result(
        "id", TaskStatus.FAILED, error="no", stdout="out", worker_id="io-0", attempt=2, run_ms=1.5
    )
    other = Result.from_dict(result.to_dict())
    assert (other.stdout, other.worker_id, other.attempt, other.run_ms) == ("out", "io-0", 2, 1.5)


def test_a_result_can_be_pickled_with_its_exception():
    result = Result("id", TaskStatus.FAILED, error="late", exception=TaskTimeout("late"))
    other = pickle.loads(pickle.dumps(result))
    assert isinstance(other.exception, TaskTimeout)
    assert other.to_dict() == result.to_dict()

"""Tasks that do not complete: each ends as an honest failed Result, and the next task runs."""

from __future__ import annotations

import os
import signal

import pytest
from engines import Gate, act, run, wait_for
from processes import alive, wait_until

from miniflow import (
    Engine,
    EngineConfig,
    TaskCancelled,
    TaskStatus,
    TaskTimeout,
    WorkerCrashed,
)


@pytest.fixture
def engine():
    config = EngineConfig(io_bound_count=1, io_bound_task_limit=1)
    with Engine(config) as engine:
        yield engine
        assert run(engine, act()).is_success, "the next task runs"


def test_what_a_script_raises_is_told_with_type_and_traceback(engine):
    task = act("raise", text="this is why", max_retries=3)
    result = run(engine, task)
    assert (result.status, result.is_success, result.data) == (TaskStatus.FAILED, False, None)
    assert result.error == "this is why"
    assert result.error_details["type"] == "ValueError"
    assert "act.py" in result.error_details["traceback"]
    assert isinstance(result.exception, ValueError)
    assert result.exception.args == ("this is why",)
    assert result.to_dict()["status"] == "FAILED"
    assert (task.status, task.retry_count, result.attempt) == (TaskStatus.FAILED, 0, 1), "not retried"


def test_a_script_that_cannot_be_found_is_told(engine):
    result = run(engine, act())
    task = act()
    task.script_path = "/no/such/script.py"
    result = run(engine, task)
    assert result.status is TaskStatus.FAILED
    assert "/no/such/script.py" in result.error


def test_what_cannot_be_pickled_is_told(engine):
    result = run(engine, act("unpicklable"))
    assert result.status is TaskStatus.FAILED
    assert "pickle" in result.error


def test_endless_recursion_is_told(engine):
    assert run(engine, act("recurse")).error_details["type"] == "RecursionError"


@pytest.mark.parametrize("do", ["kill", "segfault"])
def test_a_worker_that_dies_of_a_signal_is_told_with_its_name(engine, do):
    number = {"kill": signal.SIGKILL, "segfault": signal.SIGSEGV}[do]
    task = act(do)
    result = run(engine, task)
    assert (result.status, task.status) == (TaskStatus.FAILED,) * 2
    assert f"died of {number.name}" in result.error
    assert task.id in result.error
    assert result.error_details["type"] == "WorkerCrashed"
    assert result.error_details["signal_name"] == number.name
    error = result.exception
    assert isinstance(error, WorkerCrashed)
    assert (error.signal, error.exit_code, error.attempt, error.collateral) == (number, None, 1, False)
    assert result.worker_id == "io-0"


def test_a_worker_that_exits_is_told_with_its_code(engine):
    result = run(engine, act("exit", code=7))
    assert "exited with code 7" in result.error
    assert (result.exception.signal, result.exception.exit_code) == (None, 7)


def test_a_task_is_started_again_as_often_as_its_max_retries_say(engine, tmp_path):
    notes = tmp_path / "starts"
    task = act("kill", note=str(notes), max_retries=2)
    result = run(engine, task)
    assert len(set(notes.read_text().split())) == 3, "three processes"
    assert (result.attempt, task.retry_count, result.status) == (3, 2, TaskStatus.FAILED)


def test_the_default_is_three_retries(engine, tmp_path):
    notes = tmp_path / "starts"
    task = act("kill", note=str(notes))
    task.max_retries = type(task).create("x.py").max_retries
    run(engine, task)
    assert len(notes.read_text().split()) == 4


def test_a_task_whose_second_start_goes_well_completes(engine):
    task = act("kill once", max_retries=1)
    result = run(engine, task)
    assert (result.is_success, result.attempt, result.data["attempt"], task.retry_count) == (True, 2, 2, 1)


def test_a_killed_worker_loses_only_the_task_that_it_ran(engine):
    killer = act("kill")
    tasks = [killer, *(act("return", value=n) for n in range(200))]
    for task in tasks:
        engine.submit_task(task)
    results = [engine.get_result(task.id) for task in tasks]
    assert not results[0].is_success
    assert [result.data for result in results[1:]] == list(range(200))


def test_a_task_beyond_its_timeout_is_ended_and_told(engine):
    result = run(engine, act("stubborn", timeout=0.1))
    assert result.status is TaskStatus.FAILED
    assert "deadline" in result.error
    assert result.error_details["type"] == "TaskTimeout"
    assert isinstance(result.exception, TaskTimeout)
    assert isinstance(result.exception, TimeoutError)
    assert result.exception.task_id == result.task_id


def test_the_configured_timeout_holds_for_tasks_that_do_not_say():
    with Engine(EngineConfig(io_bound_count=1, timeout=0.1)) as engine:
        assert isinstance(run(engine, act("stubborn")).exception, TaskTimeout)
        assert isinstance(run(engine, act("stubborn", cpu=True)).exception, TaskTimeout)


def test_a_task_that_waits_is_cancelled_and_never_runs(engine, tmp_path):
    gate = Gate(tmp_path)
    running = gate.hold(engine)
    notes = tmp_path / "starts"
    waiting = act(note=str(notes))
    engine.submit_task(waiting)
    assert engine.cancel_task(waiting.id)
    gate.open()
    result = engine.get_result(waiting.id)
    assert (result.status, waiting.status, result.attempt) == (TaskStatus.CANCELLED, TaskStatus.CANCELLED, 0)
    assert "cancelled" in result.error
    assert isinstance(result.exception, TaskCancelled)
    assert engine.get_result(running.id).is_success
    assert not notes.exists()


def test_a_task_that_runs_is_told_to_stop(engine):
    task = act("obey")
    engine.submit_task(task)
    wait_for(task, TaskStatus.RUNNING)
    assert engine.cancel_task(task.id)
    result = engine.get_result(task.id)
    assert (result.is_success, result.error) == (False, "told to stop")


def test_a_task_that_does_not_listen_is_cancelled_by_force(engine):
    task = act("stubborn", max_retries=3)
    engine.submit_task(task)
    wait_for(task, TaskStatus.RUNNING)
    assert engine.cancel_task(task.id, kill=True)
    result = engine.get_result(task.id)
    assert (result.status, result.attempt) == (TaskStatus.CANCELLED, 1)
    assert "cancelled by force" in result.error
    assert isinstance(result.exception, TaskCancelled)


def test_what_has_ended_cannot_be_cancelled(engine):
    task = act()
    engine.submit_task(task)
    wait_for(task, TaskStatus.COMPLETED)
    assert not engine.cancel_task(task.id)
    assert engine.get_result(task.id).is_success
    assert not engine.cancel_task(task.id)
    assert not engine.cancel_task("unknown")


def test_an_idle_worker_that_is_killed_is_replaced_and_gets_work(engine):
    before = run(engine, act()).data["pid"]
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: not alive(before))
    tasks = [act() for _ in range(50)]
    for task in tasks:
        engine.submit_task(task)
    after = {engine.get_result(task.id).data["pid"] for task in tasks}
    assert len(after) == 1
    assert before not in after

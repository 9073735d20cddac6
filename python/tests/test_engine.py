"""Engine: start and end, submitting, taking results."""

from __future__ import annotations

import dis
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
from engines import ACT, Gate, act, note_pid, run, wait_for
from processes import alive, wait_until

import miniflow
from miniflow import Engine, EngineConfig, EngineError, Task, TaskError, TaskStatus, TaskType

PACKAGE = os.path.dirname(miniflow.__file__)


def small(**settings) -> Engine:
    return Engine(EngineConfig(**{"io_bound_count": 1, "io_bound_task_limit": 4, **settings}))


@pytest.fixture
def gate(tmp_path):
    return Gate(tmp_path)


@pytest.fixture(scope="module")
def engine():
    with small() as engine:
        yield engine


def pids(engine) -> list[int]:
    metrics = engine.get_component_status("process_pool").metrics
    workers = [*metrics["cpu_worker_tasks"].values(), *metrics["io_worker_tasks"].values()]
    return [worker["pid"] for worker in workers]


# -- start and end


def test_an_engine_is_started_once():
    engine = small()
    engine.start()
    try:
        with pytest.raises(EngineError) as caught:
            engine.start()
        assert caught.value.code == "ENG001"
    finally:
        engine.shutdown()


@pytest.mark.parametrize(
    "use",
    [
        lambda engine: engine.submit_task(Task.create(ACT)),
        lambda engine: engine.get_result("some-id"),
        lambda engine: engine.get_result("some-id", timeout=0.1),
        lambda engine: engine.cancel_task("some-id"),
        lambda engine: engine.task_state("some-id"),
        lambda engine: engine.ended_tasks(),
    ],
    ids=["submit_task", "get_result", "get_result with timeout", "cancel_task", "task_state", "ended_tasks"],
)
def test_before_its_start_an_engine_is_of_no_use(use):
    with pytest.raises(EngineError) as caught:
        use(Engine())
    assert caught.value.code == "ENG002"


def test_after_shutdown_an_engine_takes_no_tasks():
    engine = small()
    engine.start()
    engine.shutdown()
    with pytest.raises(EngineError) as caught:
        engine.submit_task(act())
    assert caught.value.code == "ENG002"
    assert engine.get_result("some-id") is None
    assert engine.get_result("some-id", timeout=60) is None


def test_shutdown_may_come_twice_and_without_a_start():
    engine = small()
    engine.shutdown()
    engine.start()
    workers = pids(engine)
    engine.shutdown()
    engine.shutdown()
    assert not any(map(alive, workers))


def test_an_engine_that_was_shut_down_can_be_started_again():
    engine = small()
    for _ in range(2):
        with engine:
            assert run(engine, act()).is_success


def test_shutdown_lets_finish_what_runs_and_cancels_the_rest(gate, monkeypatch):
    engine = small(cpu_bound_count=1)
    with engine:
        running = gate.hold(engine, cpu=True)
        waiting = [act(cpu=True) for _ in range(5)]
        for task in waiting:
            engine.submit_task(task)
        # Opened when all that waits has been cancelled, and what runs is waited for.
        core = engine._core
        monkeypatch.setattr(core, "stop", lambda drain, stop=core.stop: (gate.open(), stop(drain)))
        engine.shutdown(timeout=60)
    assert engine.get_result(running.id).is_success
    for task in waiting:
        result = engine.get_result(task.id)
        assert (result.status, result.attempt, result.started_at) == (TaskStatus.CANCELLED, 0, None)
        assert "cancelled" in result.error


def test_shutdown_ends_what_does_not_end_by_itself():
    engine = small()
    with engine:
        task = act("stubborn")
        engine.submit_task(task)
        wait_for(task, TaskStatus.RUNNING)
        start = time.monotonic()
        engine.shutdown(timeout=0.1)
        assert time.monotonic() - start < 30
    result = engine.get_result(task.id)
    assert (result.status, result.is_success) == (TaskStatus.CANCELLED, False)
    assert "stopped" in result.error


def test_who_waits_for_a_result_gets_one_from_a_shutdown():
    engine = small()
    with engine:
        tasks = [act("stubborn") for _ in range(2)]
        results = []
        threads = []
        for task in tasks:
            engine.submit_task(task)
            wait_for(task, TaskStatus.RUNNING)
            threads.append(threading.Thread(target=lambda t=task: results.append(engine.get_result(t.id))))
            threads[-1].start()
        wait_until(lambda: all(engine._records[task.id].waiting for task in tasks))
        engine.shutdown(timeout=0.1)
        for thread in threads:
            thread.join(30)
    assert [result.status for result in results] == [TaskStatus.CANCELLED] * 2


def test_an_engine_that_is_dropped_leaves_no_process_behind():
    engine = small()
    engine.start()
    task = act("stubborn")
    engine.submit_task(task)
    wait_for(task, TaskStatus.RUNNING)
    workers = pids(engine)
    del engine
    wait_until(lambda: not any(map(alive, workers)))


@pytest.mark.parametrize("work", ["who", "stubborn"])
def test_an_engine_that_is_there_at_exit_neither_hangs_nor_stays(work):
    program = f"""
import miniflow
from miniflow import Engine, EngineConfig, Task, TaskStatus
engine = Engine(EngineConfig(io_bound_count=1))
engine.start()
task = Task.create({ACT!r}, {{"do": {work!r}}})
engine.submit_task(task)
while task.status is TaskStatus.PENDING:
    pass
print("at the end")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "at the end\n", "")


def test_workers_that_cannot_start_fail_the_start():
    engine = small(preload=["no_such_module_anywhere"])
    with pytest.raises(EngineError, match="no_such_module_anywhere") as caught:
        engine.start()
    assert caught.value.code == "ENG003"
    assert not engine.is_running


def test_the_log_level_is_that_of_the_logger_of_miniflow_only():
    root = logging.getLogger()
    before = root.level, list(root.handlers)
    with small(log_level="error"):
        assert logging.getLogger("miniflow").level == logging.ERROR
    with small():
        assert logging.getLogger("miniflow").level == logging.INFO
    assert (root.level, root.handlers) == before


# -- tasks and results


def test_a_task_runs_and_its_result_comes_back(engine):
    task = act()
    assert engine.submit_task(task) == task.id
    result = engine.get_result(task.id, timeout=60)
    assert result.is_success
    assert result.task_id == task.id
    assert result.data["task_id"] == task.id
    assert result.data["worker_id"] == result.worker_id == "io-0"
    assert result.data["attempt"] == result.attempt == 1
    assert task.created_at <= result.started_at <= result.completed_at
    assert result.duration == pytest.approx(result.run_ms / 1000, abs=1e-4)
    assert result.queued_ms >= 0
    assert (result.error, result.error_details, result.exception) == (None, None, None)
    assert task.status is TaskStatus.COMPLETED


@pytest.mark.parametrize(
    "value", [None, 0, "text", b"bytes", [1, {"a": (2, 3)}], {"x"}, float("inf"), 1 << 200], ids=repr
)
def test_any_value_that_can_be_pickled_comes_back(engine, value):
    assert run(engine, act("return", value=value)).data == value


@pytest.mark.parametrize("size", [100, 100_000, 5_000_000])
@pytest.mark.parametrize("late", [False, True], ids=["waited for", "kept"])
def test_a_result_of_any_size_comes_back(engine, size, late):
    task = act("bytes", size=size)
    engine.submit_task(task)
    if late:
        wait_for(task, TaskStatus.COMPLETED)
    assert engine.get_result(task.id).data == bytes(size)


def test_the_type_of_a_task_chooses_its_workers(engine):
    assert run(engine, act(cpu=True)).worker_id == "cpu-0"
    assert run(engine, act(cpu=False)).worker_id == "io-0"


def test_an_id_that_is_no_uuid_travels_too(engine):
    task = Task(ACT, id="job 17/b")
    result = run(engine, task)
    assert (result.task_id, result.data["task_id"]) == ("job 17/b", "job 17/b")


def test_a_relative_path_starts_where_the_submitter_is(engine, monkeypatch):
    monkeypatch.chdir(os.path.dirname(ACT))
    assert run(engine, Task.create("act.py")).is_success


def test_a_result_is_kept_until_it_is_taken_and_then_gone(engine):
    task = act()
    engine.submit_task(task)
    wait_for(task, TaskStatus.COMPLETED)
    for _ in range(3):
        run(engine, act())
    assert engine.get_result(task.id).is_success
    assert engine.get_result(task.id) is None
    assert engine.task_state(task.id) is None


def test_results_can_be_taken_in_any_order(engine):
    tasks = [act("return", value=n) for n in range(50)]
    for task in tasks:
        engine.submit_task(task)
    assert [engine.get_result(task.id).data for task in reversed(tasks)] == list(reversed(range(50)))


def test_a_result_that_does_not_come_in_time_comes_later(engine, gate):
    task = gate.hold(engine)
    start = time.monotonic()
    assert engine.get_result(task.id, timeout=0.05) is None
    assert 0.05 <= time.monotonic() - start < 30
    assert engine.get_result(task.id, timeout=0) is None
    assert engine.get_result(task.id, timeout=-1) is None
    gate.open()
    assert engine.get_result(task.id).is_success


def test_of_an_unknown_task_nothing_comes(engine):
    start = time.monotonic()
    assert engine.get_result("unknown") is None
    assert engine.get_result("unknown", timeout=0) is None
    assert engine.get_result("unknown", timeout=0.05) is None
    assert time.monotonic() - start < 30


def test_without_another_thread_nobody_waits_for_an_unknown_task(engine):
    assert {thread.name for thread in threading.enumerate()} <= {"MainThread", "miniflow-log"}
    start = time.monotonic()
    assert engine.get_result("unknown", timeout=600) is None
    assert time.monotonic() - start < 60


def test_who_waits_for_a_task_before_it_is_submitted_gets_its_result(engine):
    task = act()
    results = []
    thread = threading.Thread(target=lambda: results.append(engine.get_result(task.id, timeout=60)))
    thread.start()
    wait_until(lambda: engine._expecting)
    engine.submit_task(task)
    thread.join(60)
    assert results[0].is_success


def test_a_shutdown_ends_the_wait_for_a_task_that_never_comes():
    results = []
    with small() as engine:
        thread = threading.Thread(target=lambda: results.append(engine.get_result("never", timeout=600)))
        thread.start()
        wait_until(lambda: engine._expecting)
    thread.join(60)
    assert results == [None]


def test_of_many_who_wait_for_one_result_one_gets_it(engine, gate):
    task = gate.hold(engine)
    results = []
    threads = [threading.Thread(target=lambda: results.append(engine.get_result(task.id))) for _ in range(8)]
    for thread in threads:
        thread.start()
    wait_until(lambda: engine._records[task.id].waiting == 8)
    gate.open()
    for thread in threads:
        thread.join(60)
    assert len(results) == 8
    assert [result.is_success for result in results if result is not None] == [True]


def test_many_threads_submit_and_wait_at_once(engine):
    wrong = []

    def work(first):
        for n in range(first, first + 100):
            result = run(engine, act("return", value=n, cpu=n % 2 == 0))
            if result.data != n:
                wrong.append((n, result))

    threads = [threading.Thread(target=work, args=(1000 * n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert wrong == []
    assert not engine._records


def test_a_task_that_is_in_the_engine_cannot_be_submitted_again(engine):
    task = act()
    engine.submit_task(task)
    with pytest.raises(TaskError) as caught:
        engine.submit_task(task)
    assert (caught.value.code, caught.value.task_id) == ("TASK005", task.id)
    assert engine.get_result(task.id).is_success
    assert run(engine, task).is_success


def test_params_that_cannot_be_sent_are_refused_and_nothing_is_left_of_the_task(engine):
    task = act("return", value=threading.Lock())
    with pytest.raises(TaskError) as caught:
        engine.submit_task(task)
    assert caught.value.task_id == task.id
    assert (task.status, engine.task_state(task.id)) == (TaskStatus.PENDING, None)
    task.params = {"do": "who"}
    assert run(engine, task).is_success


def test_params_that_are_too_large_are_refused():
    with small(max_payload=100_000) as engine:
        with pytest.raises(TaskError, match="100000"):
            engine.submit_task(act("return", value=bytes(200_000)))
        assert run(engine, act("return", value=bytes(50_000))).is_success


def test_a_task_that_waits_is_pending_and_one_that_runs_is_running(gate):
    with small() as engine:
        first = gate.hold(engine, cpu=True, done=3, total=10)
        second = act(cpu=True)
        engine.submit_task(second)
        wait_until(lambda: engine.task_state(first.id).total)
        state = engine.task_state(first.id)
        assert (state.status, state.worker_id, state.done, state.total) == (
            TaskStatus.RUNNING,
            "cpu-0",
            3,
            10,
        )
        assert state.elapsed > 0
        assert (second.status, engine.task_state(second.id).status) == (TaskStatus.PENDING,) * 2
        gate.open()
        wait_for(second, TaskStatus.COMPLETED)
        assert engine.task_state(second.id).status is TaskStatus.COMPLETED
        assert engine.ended_tasks() == [first.id, second.id]


def test_output_is_captured_if_it_is_asked_for():
    with small(capture_output=True) as engine:
        result = run(engine, act("print", text="hello"))
    assert (result.stdout, result.stderr) == ("hello\n", "HELLO\n")


def test_the_initializer_runs_in_every_worker(tmp_path):
    notes = tmp_path / "pids"
    with small(initializer=note_pid, initargs=(str(notes),), cpu_bound_count=2) as engine:
        wait_until(lambda: notes.exists() and len(notes.read_text().split()) == 3)
        assert sorted(map(int, notes.read_text().split())) == sorted(pids(engine))


def test_an_interrupt_in_get_result_loses_nothing(engine, gate):
    task = gate.hold(engine)

    def interrupt():
        wait_until(lambda: engine._records[task.id].waiting)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    # Python leaves it alone where it was started with it ignored, as in the background of a shell.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            engine.get_result(task.id)
        thread.join(30)
    finally:
        signal.signal(signal.SIGINT, before)
    gate.open()
    assert engine.get_result(task.id).is_success


def test_interrupts_at_any_moment_of_get_result_lose_and_double_nothing(engine, monkeypatch):
    def within_get_result(frame) -> bool:
        while frame is not None:
            if frame.f_code is Engine.get_result.__code__:
                return True
            frame = frame.f_back
        return False

    def returns(frame) -> bool:
        """Whether it is about to return: before Python 3.11 no function can do anything about that one."""
        code = frame.f_code.co_code
        return sys.version_info < (3, 11) and code[frame.f_lasti + 2] == dis.opmap["RETURN_VALUE"]

    armed = False

    def handler(signum, frame):
        # Anywhere in this package, but not in what runs by the way; and once in each call: nothing can be
        # put right that is interrupted at every step.
        nonlocal armed
        if not (armed and frame.f_code.co_filename.startswith(PACKAGE) and within_get_result(frame)):
            return
        if frame.f_code is not Engine.get_result.__code__ or not returns(frame):
            armed = False
            raise KeyboardInterrupt

    # One that comes up in a finalizer is not raised, but reported.
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)
    tasks = [act("return", value=n) for n in range(300)]
    for task in tasks:
        engine.submit_task(task)
    got = []
    interrupts = 0
    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1e-4, 1.3e-4)
        for task in tasks:
            result = None
            while result is None:
                armed = True
                try:
                    result = engine.get_result(task.id, timeout=60)
                except KeyboardInterrupt:
                    interrupts += 1
            got.append(result.data)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert got == list(range(300))
    assert interrupts
    assert not engine._records


# -- bounds


def test_a_full_input_queue_refuses_and_loses_nothing(gate):
    with small(input_queue_size=3) as engine:
        running = gate.hold(engine, cpu=True)
        waiting = [act(cpu=True) for _ in range(3)]
        for task in waiting:
            engine.submit_task(task)
        extra = act(cpu=True)
        with pytest.raises(TaskError) as caught:
            engine.submit_task(extra)
        assert (caught.value.code, caught.value.task_id) == ("TASK001", extra.id)
        metrics = engine.get_component_status("input_queue").metrics
        assert (metrics["size"], metrics["total_put"], metrics["total_dropped"]) == (3, 4, 1)
        assert engine.task_state(extra.id) is None
        gate.open()
        for task in [running, *waiting]:
            assert engine.get_result(task.id).is_success
        assert run(engine, extra).is_success


def test_a_full_input_queue_has_room_when_a_task_was_started(gate, tmp_path):
    with small(input_queue_size=1) as engine:
        running = gate.hold(engine, cpu=True)
        (tmp_path / "second").mkdir()
        second = Gate(tmp_path / "second")
        next_one = second.task(cpu=True)
        engine.submit_task(next_one)
        with pytest.raises(TaskError):
            engine.submit_task(act(cpu=True))
        gate.open()
        wait_for(next_one, TaskStatus.RUNNING)
        engine.submit_task(act(cpu=True))
        second.open()
        assert engine.get_result(running.id).is_success


def test_threads_that_submit_at_once_fill_the_input_queue_exactly(gate):
    with small(input_queue_size=40) as engine:
        gate.hold(engine, cpu=True)
        codes = []

        def submit():
            for _ in range(20):
                try:
                    engine.submit_task(act(cpu=True))
                    codes.append("accepted")
                except TaskError as error:
                    codes.append(error.code)

        threads = [threading.Thread(target=submit) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert (codes.count("accepted"), codes.count("TASK001")) == (40, 80)
        gate.open()


def test_results_that_nobody_takes_refuse_more_tasks():
    with small(output_queue_size=2) as engine:
        tasks = [act(), act()]
        for task in tasks:
            engine.submit_task(task)
            wait_for(task, TaskStatus.COMPLETED)
        with pytest.raises(TaskError) as caught:
            engine.submit_task(act())
        assert caught.value.code == "TASK002"
        assert engine.get_component_status("output_queue").health == "degraded"
        assert engine.get_result(tasks[0].id).is_success
        assert run(engine, act()).is_success
        assert engine.get_result(tasks[1].id).is_success


def test_pushing_against_a_full_queue_runs_everything_once():
    with small(input_queue_size=5, cpu_bound_count=1) as engine:
        tasks = [act("return", value=n, cpu=n % 2 == 0) for n in range(400)]
        refusals = []
        for task in tasks:
            while engine.task_state(task.id) is None:
                try:
                    engine.submit_task(task)
                except TaskError as error:
                    refusals.append(error.code)
                    engine.ended_tasks(timeout=60)
        assert set(refusals) <= {"TASK001"}
        assert [engine.get_result(task.id).data for task in tasks] == list(range(400))
        metrics = engine.get_component_status("output_queue").metrics
        assert (metrics["size"], metrics["total_put"], metrics["total_get"]) == (0, 400, 400)


def test_an_engine_of_old_is_a_context_manager_over_defaults():
    with Engine() as engine:
        task = Task.create(
            script_path=ACT, params={"do": "return", "value": 42}, task_type=TaskType.CPU_BOUND
        )
        task_id = engine.submit_task(task)
        assert engine.get_result(task_id, timeout=60.0).data == 42


def test_tasks_spread_over_workers_that_have_threads_to_spare(gate):
    config = EngineConfig(cpu_bound_count=1, io_bound_count=2, io_bound_task_limit=20)
    with Engine(config) as engine:
        tasks = [gate.hold(engine) for _ in range(8)]
        gate.open()
        workers = Counter(engine.get_result(task.id).worker_id for task in tasks)
    assert workers == {"io-0": 4, "io-1": 4}

"""The number of workers follows the load, a policy, or the program's word; and which worker gets a task."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from datetime import datetime, timedelta, timezone

import pytest
from engines import act, run
from processes import wait_until

from miniflow import (
    ConfigError,
    Engine,
    EngineConfig,
    EngineError,
    Executor,
    QueueFull,
    Scaling,
    ScalingPolicy,
    ScalingSnapshot,
    Task,
    TaskType,
    _wire,
)
from miniflow._core import Core
from miniflow._future import TaskFuture
from miniflow.scaling import sticky_number


def workers(executor: Executor) -> int:
    assert executor._core is not None
    return executor._core.stats().workers


def sleep_a_little(n: int) -> int:
    time.sleep(0.05)
    return n


def unhindered(policy: str | ScalingPolicy, **thresholds: float) -> Scaling:
    """The policy, also while others use this machine."""
    return Scaling(policy, cpu=1, memory=1, memory_pressure=1, **thresholds)


@pytest.mark.parametrize("policy", ["by_load", "compatible", "adaptive"])
def test_workers_come_with_the_load_and_leave_after_it(policy):
    with Executor(4, scaling=unhindered(policy, idle_looks=1)) as executor:
        executor.submit(int).result()
        assert workers(executor) == 1
        futures = [executor.submit(sleep_a_little, n) for n in range(60)]
        wait_until(lambda: workers(executor) == 4)
        assert [future.result() for future in futures] == list(range(60))
        first = executor.scaling_decisions()[0]
        assert (first.action, first.task_type, first.before) == ("grow", TaskType.CPU_BOUND, 1)
        assert first.after > 1
        assert first.reason
        assert timedelta(0) <= datetime.now(timezone.utc) - first.at < timedelta(minutes=5)
        assert first.queued + first.on_workers > 0
        wait_until(lambda: workers(executor) == 1)
        assert executor.scaling_decisions()[-1].action == "shrink"


def test_a_policy_can_be_named_alone():
    with Executor(2, scaling="adaptive") as executor:
        assert list(executor.map(pow, range(10), [2] * 10)) == [n * n for n in range(10)]


def test_an_executor_has_no_decisions_before_its_first_call_and_after_its_end():
    executor = Executor(2)
    assert executor.scaling_decisions() == []
    executor.resize(1)
    assert [decision.action for decision in executor.scaling_decisions()] == ["resize"]
    executor.shutdown()
    assert executor.scaling_decisions() == []


def test_submissions_wait_while_memory_is_at_its_end():
    # More than a thousandth is in use on every machine.
    with Executor(1, scaling=Scaling("off", memory_refuse=0.001)) as executor:
        executor._start()
        core = executor._core
        assert core is not None
        wait_until(lambda: is_refused(core))


def is_refused(core: Core) -> bool:
    future: TaskFuture[int] = TaskFuture(core)
    try:
        core.submit(_wire.CALL, (int, (), {}), future, core.options(), block=False)
    except QueueFull as error:
        return "memory" in str(error)
    future.result()
    return False


def test_without_a_policy_there_are_as_many_workers_as_were_asked_for():
    with Executor(2) as executor:
        assert list(executor.map(sleep_a_little, range(20))) == list(range(20))
        assert executor.scaling_decisions() == []
        assert workers(executor) == 2


def test_a_policy_of_the_programs_own_is_shown_the_load_and_has_its_way():
    seen: list[ScalingSnapshot] = []

    def policy(snapshot: ScalingSnapshot) -> int | None:
        seen.append(snapshot)
        return 3 if snapshot.queued else None

    with Executor(5, scaling=unhindered(policy)) as executor:
        futures = [executor.submit(sleep_a_little, n) for n in range(100)]
        wait_until(lambda: workers(executor) == 3)
        assert [future.result() for future in futures] == list(range(100))
        assert workers(executor) == 3
        (decision,) = executor.scaling_decisions()
        assert (decision.before, decision.after, decision.action) == (1, 3, "grow")
    first = seen[0]
    assert (first.task_type, first.min_workers, first.max_workers) == (TaskType.CPU_BOUND, 1, 5)
    assert (first.workers, first.ready, first.threads) == (1, 1, 1)
    assert first.queued + first.on_workers > 0
    assert first.memory is None or 0 < first.memory <= 1
    assert first.memory_state in ("ample", "no_growth", "shedding", "refusing")
    assert any(snapshot.service > 0.04 for snapshot in seen)
    assert [snapshot.now for snapshot in seen] == sorted(snapshot.now for snapshot in seen)


@pytest.mark.parametrize("wrong", [ValueError("no"), "three", 2.5], ids=str)
def test_a_policy_that_fails_is_logged_and_kept_among_the_decisions_and_changes_nothing(wrong, caplog):
    def policy(_: ScalingSnapshot) -> int:
        if isinstance(wrong, Exception):
            raise wrong
        return wrong

    with Executor(4, scaling=policy) as executor:
        assert list(executor.map(sleep_a_little, range(20))) == list(range(20))
        wait_until(lambda: bool(executor.scaling_decisions()))
        decision = executor.scaling_decisions()[0]
        assert (decision.action, decision.before, decision.after) == ("failure", 1, 1)
        assert workers(executor) == 1
    assert "the scaling policy failed" in caplog.text


def test_what_a_policy_asks_for_is_brought_inside_the_limits():
    with Executor(2, scaling=unhindered(lambda _: 1 << 80)) as executor:
        futures = [executor.submit(sleep_a_little, n) for n in range(40)]
        wait_until(lambda: workers(executor) == 2)
        assert [future.result() for future in futures] == list(range(40))


def test_a_policy_that_thinks_for_ever_stalls_neither_calls_nor_the_end():
    asked, let_go = threading.Event(), threading.Event()

    def policy(_: ScalingSnapshot) -> None:
        asked.set()
        let_go.wait()

    try:
        executor = Executor(2, scaling=policy)
        while not asked.is_set():
            executor.submit(int).result()
        assert sum(executor.map(pow, range(1000), [1] * 1000)) == 499_500
        start = time.monotonic()
        executor.shutdown()
        assert time.monotonic() - start < 10
    finally:
        let_go.set()


def test_a_policy_may_use_the_engine_that_asks_it():
    answers: list[int] = []

    def policy(_: ScalingSnapshot) -> None:
        answers.append(executor.submit(pow, 2, 5).result(timeout=30))

    with Executor(1, scaling=policy) as executor:
        while not answers:
            executor.submit(sleep_a_little, 0).result()
    assert answers[0] == 32


def test_a_policy_and_many_threads_do_not_wait_for_each_other():
    """The policy's thread waits for the interpreter while others hold it and want the engine's lock."""
    answers = 0

    def policy(snapshot: ScalingSnapshot) -> int:
        nonlocal answers
        sum(range(20_000))  # long enough to lose the interpreter in the middle of it
        answers += 1
        return 1 + answers % 3

    with Executor(3, scaling=unhindered(policy)) as executor:
        executor.submit(int).result()

        def work() -> None:
            end = time.monotonic() + 3
            while time.monotonic() < end:
                assert sum(executor.map(pow, range(100), [1] * 100)) == 4950

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers > 3
        assert len(executor.scaling_decisions()) > 1


@pytest.mark.parametrize("thought", ["while True: pass", "time.sleep(1000)", "threading.Event().wait()"])
def test_a_program_ends_although_its_policy_still_thinks(thought):
    program = f"""
        import threading, time
        from miniflow import Executor

        asked = threading.Event()

        def policy(snapshot):
            asked.set()
            {thought}

        executor = Executor(2, scaling=policy)
        while not asked.is_set():
            executor.submit(int).result()
        print("asked")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], timeout=60, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "asked\n"), done.stderr


def test_an_executor_is_resized_by_hand():
    with Executor(3) as executor:
        executor.resize(1)
        wait_until(lambda: workers(executor) == 1)
        assert list(executor.map(pow, range(10), [2] * 10)) == [n * n for n in range(10)]
        executor.resize(3)
        wait_until(lambda: workers(executor) == 3)
        decisions = executor.scaling_decisions()
        assert [(d.action, d.before, d.after) for d in decisions] == [("resize", 3, 1), ("resize", 1, 3)]
        for wrong in (0, 4, 1.5):
            with pytest.raises(ConfigError, match="workers"):
                executor.resize(wrong)


def test_an_engine_is_resized_by_class_and_says_how_it_is():
    config = EngineConfig(cpu_bound_count=1, io_bound_count=2, cpu_bound_max=3)
    with Engine(config) as engine:
        assert run(engine, act()).worker_id in ("io-0", "io-1")
        engine.resize(TaskType.CPU_BOUND, 3)
        metrics = engine.get_component_status("process_pool").metrics

        def cpu_workers() -> dict:
            nonlocal metrics
            metrics = engine.get_component_status("process_pool").metrics
            return metrics["cpu_worker_tasks"]

        wait_until(lambda: set(cpu_workers()) == {"cpu-0", "cpu-1", "cpu-2"})
        assert set(metrics["io_worker_tasks"]) == {"io-0", "io-1"}
        engine.resize(TaskType.IO_BOUND, 1)
        wait_until(lambda: engine.get_component_status("process_pool").metrics["io_bound_workers"] == 1)
        assert engine.get_component_status("process_pool").is_healthy
        assert run(engine, act()).worker_id.startswith("io-")
        assert [d.task_type for d in engine.scaling_decisions()] == [TaskType.CPU_BOUND, TaskType.IO_BOUND]
        with pytest.raises(EngineError, match="configured maximum"):
            engine.resize(TaskType.IO_BOUND, 3)
    with pytest.raises(EngineError, match="ENG002"):
        engine.resize(TaskType.CPU_BOUND, 1)


def test_calls_and_tasks_with_one_key_run_on_one_worker():
    config = EngineConfig(cpu_bound_count=3, io_bound_count=3)
    with Engine(config) as engine:
        for key in (7, "images", b"\xff", -1):
            pids = {engine.submit(os.getpid, sticky_key=key).result() for _ in range(20)}
            assert len(pids) == 1
        tasks = [Task.create(act().script_path, {"do": "who"}, sticky_key="one") for _ in range(10)]
        for task in tasks:
            engine.submit_task(task)
        assert len({engine.get_result(task.id).worker_id for task in tasks}) == 1
        with pytest.raises(ConfigError, match="sticky_key"):
            engine.submit(int, sticky_key=1.5)


def test_a_tasks_key_survives_its_dict_and_a_key_has_one_number_everywhere():
    task = Task("a.py", sticky_key="x")
    assert Task.from_dict(task.to_dict()).sticky_key == "x"
    assert "sticky_key" not in Task("a.py").to_dict()
    assert sticky_number("x") == sticky_number(b"x") != sticky_number("y")
    assert sticky_number(0) == 1
    assert sticky_number(None) == 0
    assert sticky_number(-1) == (1 << 64) - 1


@pytest.mark.parametrize("dispatch", ["least_loaded", "round_robin", "power_of_two"])
def test_every_dispatch_policy_runs_everything(dispatch):
    with Executor(3, dispatch=dispatch) as executor:
        assert list(executor.map(pow, range(100), [2] * 100)) == [n * n for n in range(100)]


def test_a_dispatch_policy_in_python_is_refused_with_the_reason():
    for make in (lambda: Executor(2, dispatch=min), lambda: EngineConfig(dispatch=min)):
        with pytest.raises(ConfigError, match="under the engine's lock"):
            make()


@pytest.mark.parametrize(
    "wrong",
    [
        {"scaling": "fast"},
        {"scaling": 5},
        {"scaling": ("by_load",)},
        {"dispatch": "random"},
        {"cpu_bound_count": 3, "cpu_bound_max": 2},
        {"io_bound_max": 0},
        {"cpu_bound_max": 600, "io_bound_max": 600},
    ],
    ids=str,
)
def test_bad_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=list(wrong)[-1]):
        EngineConfig(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"policy": "fast"},
        {"interval": 0},
        {"cpu": 1.1},
        {"memory": "much"},
        {"load": True},
        {"idle_looks": 0.5},
    ],
    ids=str,
)
def test_bad_thresholds_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Scaling(**wrong)


def test_thresholds_need_a_policy():
    with Engine(EngineConfig(scaling=Scaling("off", memory_refuse=0.999))):
        pass
    with pytest.raises(EngineError, match="threshold"):
        Engine(EngineConfig(scaling=Scaling("off", cpu=0.5))).start()


def test_the_fewest_workers_of_an_executor_are_not_more_than_the_most():
    for wrong in (0, 3):
        with pytest.raises(ValueError, match="min_workers"):
            Executor(2, min_workers=wrong)

"""The known defects of the system before this one, which it must not have."""

from __future__ import annotations

import logging
import os
import signal
import threading

import pytest
from engines import SCRIPTS, Gate, act, wait_for
from processes import alive, wait_until

from miniflow import Engine, EngineConfig, TaskError, TaskStatus
from miniflow.parallelism_engine import Manager
from miniflow.parallelism_engine.engine import QueueWatcher
from miniflow.parallelism_engine.queue_module import BaseQueue

ITEM = str(SCRIPTS / "item.py")


def test_new_processes_get_work(tmp_path):
    """Once only the first process had threads, however many were added."""
    gate = tmp_path / "gate"
    manager = Manager()
    try:
        manager.put_items_bulk([{"script_path": ITEM, "context": {}} for _ in range(20)])
        old = {process["pid"] for process in manager.watcher.active_processes}
        assert len(old) >= 2
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(map(alive, old)))
        wait_until(lambda: len(manager.watcher.active_processes) == len(old))
        # As many as there are threads: all must run, so all processes must have been given some.
        count = 20 * len(old)
        manager.put_items_bulk([{"script_path": ITEM, "context": {"gate": str(gate)}} for _ in range(count)])
        wait_until(lambda: manager.watcher._get_thread_counts_safe() == [20] * len(old))
        gate.touch()
        pids = set()
        for _ in range(20 + count):
            item = manager.get_output_item()
            assert item["status"] == "success"
            pids.add(item["result_data"]["pid"])
        new = {process["pid"] for process in manager.watcher.active_processes}
        assert new <= pids
        assert not new & old
    finally:
        manager.shutdown(timeout=0.1)


def test_all_processes_get_work(tmp_path):
    gate = Gate(tmp_path)
    with Engine(EngineConfig(cpu_bound_count=3, io_bound_count=3, io_bound_task_limit=2)) as engine:
        held = [gate.task(cpu=n < 3) for n in range(9)]
        for task in held:
            engine.submit_task(task)
        for task in held:
            wait_for(task, TaskStatus.RUNNING)
        metrics = engine.get_component_status("process_pool").metrics
        assert [worker["active_tasks"] for worker in metrics["cpu_worker_tasks"].values()] == [1, 1, 1]
        assert [worker["active_tasks"] for worker in metrics["io_worker_tasks"].values()] == [2, 2, 2]
        gate.open()


def test_the_list_of_processes_may_change_while_it_is_read():
    """Once the list was changed without a lock, and whoever read it got an IndexError."""
    watcher = QueueWatcher(BaseQueue(), BaseQueue(), True)
    processes = [{"name": n} for n in range(8)]
    watcher.active_processes = processes
    stop = threading.Event()
    wrong = []

    def read():
        while not stop.is_set():
            try:
                found = watcher._get_next_process()
                assert found is None or "name" in found
            except Exception as error:
                wrong.append(error)
                return

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for _ in range(3000):
        del processes[-5:]
        watcher.active_processes = []
        watcher.active_processes = processes
        processes.extend({"name": n} for n in range(5))
    stop.set()
    for reader in readers:
        reader.join(30)
    assert wrong == []


@pytest.mark.parametrize("index", [1, 5, 10**6, -1, -7])
def test_an_index_out_of_bounds_starts_again_at_the_first_process(index):
    """Once it was an IndexError, after the list had become shorter."""
    watcher = QueueWatcher(BaseQueue(), BaseQueue(), True)
    watcher.active_processes = [{"name": "only"}]
    watcher.current_process_index = index
    assert watcher._get_next_process() == {"name": "only"}
    assert watcher.current_process_index == 0


def test_each_process_has_its_turn():
    watcher = QueueWatcher(BaseQueue(), BaseQueue(), True)
    watcher.active_processes = ["a", "b", "c"]
    assert [watcher._get_next_process() for _ in range(7)] == ["a", "b", "c", "a", "b", "c", "a"]
    watcher.active_processes = []
    assert watcher._get_next_process() is None


def test_a_full_queue_is_an_error(tmp_path, caplog):
    """Once the item was dropped, and nobody told."""
    queue = BaseQueue(maxsize=1)
    queue.put(1)
    with caplog.at_level(logging.WARNING, "miniflow"):
        assert queue.put(2) is False
    assert queue.get_stats()["dropped_items"] == 1
    assert "full" in caplog.text
    gate = Gate(tmp_path)
    with Engine(EngineConfig(io_bound_count=1, input_queue_size=1)) as engine:
        gate.hold(engine, cpu=True)
        engine.submit_task(act(cpu=True))
        with pytest.raises(TaskError, match="TASK001"):
            engine.submit_task(act(cpu=True))
        gate.open()


def test_a_dead_process_is_not_given_work():
    """Once a dead process stayed in the list, and its items were lost."""
    with Engine(EngineConfig(io_bound_count=2, io_bound_task_limit=1)) as engine:
        workers = engine.get_component_status("process_pool").metrics["io_worker_tasks"]
        victim = workers["io-0"]["pid"]
        tasks = [act() for _ in range(100)]
        for n, task in enumerate(tasks):
            if n == 50:
                os.kill(victim, signal.SIGKILL)
            engine.submit_task(task)
        results = [engine.get_result(task.id, timeout=60) for task in tasks]
        lost = [result for result in results if not result.is_success]
        assert len(lost) <= 1, "the one that it ran, if it ran one"
        assert all("SIGKILL" in result.error for result in lost)

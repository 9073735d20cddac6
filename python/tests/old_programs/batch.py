#!/usr/bin/env python3
"""Counts primes and fetches pages in batches. Written for cpu_load_balancer."""

# ruff: noqa: UP006, UP035 - as it was written

import multiprocessing
import sys
import time
from pathlib import Path
from typing import Dict, List

from cpu_load_balancer import Engine, EngineConfig, Task, TaskStatus, TaskType
from cpu_load_balancer.core.enums import TaskType as SameTaskType
from cpu_load_balancer.core.exceptions import EngineError, TaskError
from cpu_load_balancer.task.result import Result

SCRIPTS = Path(__file__).parent / "scripts"


def submit_all(engine: Engine, tasks: List[Task]) -> List[str]:
    task_ids = []
    for task in tasks:
        while True:
            try:
                task_ids.append(engine.submit_task(task))
                break
            except TaskError as error:
                # The queue is full: try again in a moment.
                if error.code not in ("TASK001", "TASK002"):
                    raise
                time.sleep(0.01)
    return task_ids


def collect(engine: Engine, task_ids: List[str]) -> Dict[str, Result]:
    results = {}
    for task_id in task_ids:
        result = engine.get_result(task_id, timeout=60.0)
        if result is None:
            print(f"no result for {task_id[:8]}")
            sys.exit(1)
        results[task_id] = result
    return results


def show(engine: Engine) -> None:
    status = engine.get_status()
    print(f"running: {status['engine']['is_running']}")
    for name, component in status["components"].items():
        print(f"{name}: {component['health']}")
    pool = status["components"]["process_pool"]["metrics"]
    print(f"workers: {pool['cpu_bound_workers']} cpu, {pool['io_bound_workers']} io")
    print(f"workers in all: {pool['total_workers']}")
    for worker_id, worker in pool["cpu_worker_tasks"].items():
        print(f"{worker_id}: {worker['active_tasks']} active, {worker['queue_size']} queued")
    queue = engine.get_component_status("input_queue")
    print(f"{queue.name}: {queue.metrics['total_put']} put")


def main() -> int:
    config = EngineConfig(
        input_queue_size=500,
        output_queue_size=5000,
        cpu_bound_count=2,
        io_bound_count=1,
        cpu_bound_task_limit=1,
        io_bound_task_limit=10,
        log_level="WARNING",
    )
    engine = Engine(config)

    try:
        engine.submit_task(Task.create(script_path="nothing.py"))
    except EngineError as error:
        print(f"too early: {error.code}")

    engine.start()
    try:
        primes = [
            Task.create(
                script_path=str(SCRIPTS / "prime_count.py"),
                params={"limit": 1000 + n},
                task_type=SameTaskType.CPU_BOUND,
            )
            for n in range(700)
        ]
        pages = [
            Task.create(
                script_path=str(SCRIPTS / "fetch_page.py"),
                params={"host": f"host-{n}", "seconds": 0.01, "broken": n == 3},
                task_type=TaskType.IO_BOUND,
                max_retries=1,
            )
            for n in range(8)
        ]
        task_ids = submit_all(engine, primes + pages)
        assert task_ids == [task.id for task in primes + pages]
        results = collect(engine, task_ids)

        found = [results[task.id] for task in primes]
        assert all(result.is_success for result in found)
        assert all(result.data["task"] == result.task_id for result in found)
        assert found[0].data["primes"] == 168
        assert {result.data["worker"] for result in found} <= {"cpu-0", "cpu-1"}
        assert all(result.duration is not None and result.duration >= 0 for result in found)

        failed = [result for result in results.values() if not result.is_success]
        for result in failed:
            assert result.status == TaskStatus.FAILED
            print(f"failed: {result.error}")
            assert result.to_dict()["status"] == "FAILED"
        assert len(failed) == 1

        assert engine.get_result(task_ids[0], timeout=0.1) is None
        show(engine)
    finally:
        engine.shutdown()
    print("done")
    return 0


if __name__ == "__main__":
    multiprocessing.set_start_method("spawn", force=True)
    sys.exit(main())

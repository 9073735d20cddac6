#!/usr/bin/env python3
"""Schedules steps of a workflow and collects what comes back. Written for MiniFlow's parallelism_engine."""

import json
import sys
import threading
import time
from pathlib import Path

from miniflow.parallelism_engine import Manager
from miniflow.parallelism_engine.engine import QueueWatcher
from miniflow.parallelism_engine.queue_module import BaseQueue

SCRIPT = str(Path(__file__).parent / "scripts" / "add_numbers.py")


class OutputMonitor(threading.Thread):
    """Collects results in batches until there are as many as there should be."""

    def __init__(self, manager, expected, batch_size=20):
        super().__init__(daemon=True)
        self.manager = manager
        self.expected = expected
        self.batch_size = batch_size
        self.results = []

    def run(self):
        while len(self.results) < self.expected:
            for item in self.manager.get_output_items_bulk(max_items=self.batch_size, timeout=0.1):
                if isinstance(item, dict) and item.get("status") in ("success", "failed"):
                    self.results.append(item)


def check_queue():
    queue = BaseQueue(maxsize=2)
    assert queue.put({"test": 1})
    assert queue.put({"test": 2})
    assert not queue.put({"test": 3})
    stats = queue.get_stats()
    print(f"queue: {stats['size']} in, {stats['dropped_items']} refused")


def check_round_robin():
    watcher = QueueWatcher(BaseQueue(), BaseQueue(), True)
    watcher.active_processes = [{"dummy": "process1"}]
    watcher.current_process_index = 5
    assert watcher._get_next_process() == {"dummy": "process1"}
    print(f"index: {watcher.current_process_index}")


def main():
    check_queue()
    check_round_robin()

    manager = Manager()
    first = {"task_id": "first", "script_path": SCRIPT, "context": {"first": 2, "second": 3}}
    assert manager.put_item(first)
    item = None
    deadline = time.time() + 60
    while item is None and time.time() < deadline:
        item = manager.get_output_item()
    print(f"{item['task_id']}: {item['status']}, {item['result_data']}")

    tasks = [
        {
            "task_id": f"task_{n}",
            "execution_id": "e-1",
            "node_id": f"node-{n}",
            "script_path": SCRIPT,
            "context": json.dumps({"first": n, "second": n}) if n != 7 else json.dumps({"first": "seven"}),
        }
        for n in range(100)
    ]
    monitor = OutputMonitor(manager, len(tasks))
    monitor.start()
    assert manager.put_items_bulk(tasks)
    monitor.join(60)

    sums = {
        item["node_id"]: item["result_data"]["sum"] for item in monitor.results if item["status"] == "success"
    }
    assert sums == {f"node-{n}": 2 * n for n in range(100) if n != 7}
    for item in monitor.results:
        if item["status"] == "failed":
            print(f"{item['node_id']}: {item['error_message']['error']}")

    assert len(manager.watcher.active_processes) >= 1
    assert all(count >= 0 for count in manager.watcher._get_thread_counts_safe())
    print(manager.input_queue.get_stats())
    manager.shutdown()
    print("done")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Manager: dicts in, the same dicts out."""

from __future__ import annotations

import json
import logging
import threading
import time

import pytest
from engines import SCRIPTS
from processes import alive, wait_until

from miniflow import _watcher
from miniflow.parallelism_engine import Manager
from miniflow.parallelism_engine.engine import QueueWatcher
from miniflow.parallelism_engine.queue_module import BaseQueue

ITEM = str(SCRIPTS / "item.py")
MAIN = str(SCRIPTS / "item_main.py")


@pytest.fixture
def manager():
    manager = Manager()
    yield manager
    manager.shutdown(timeout=0.1)


def take(manager, count):
    items = []
    deadline = time.monotonic() + 60
    while len(items) < count:
        assert time.monotonic() < deadline, f"{len(items)} of {count} items came back"
        items += manager.get_output_items_bulk()
    return items


def test_an_item_comes_back_with_the_result_of_its_script(manager):
    item = {"script_path": ITEM, "context": {"number": 5}, "node_id": "n"}
    assert manager.put_item(item)
    found = take(manager, 1)[0]
    assert found is item
    assert (found["status"], found["node_id"]) == ("success", "n")
    assert found["result_data"]["number"] == 5
    assert "error_message" not in found


def test_a_context_may_be_json_text(manager):
    manager.put_item({"script_path": ITEM, "context": json.dumps({"number": 6})})
    assert take(manager, 1)[0]["result_data"]["number"] == 6


def test_a_script_of_an_item_may_have_main(manager):
    manager.put_item({"script_path": MAIN, "context": {"number": 21}})
    result = take(manager, 1)[0]["result_data"]
    assert result["doubled"] == 42
    assert result["worker"].startswith("io-")


@pytest.mark.parametrize(
    ("item", "why"),
    [
        ({"script_path": ITEM, "context": {"error": "this is why"}}, "this is why"),
        ({"script_path": ITEM, "context": {"kill": True}}, "died of SIGKILL"),
        ({"script_path": "/no/such/script.py", "context": {}}, "/no/such/script.py"),
        ({"context": {}}, "script_path"),
    ],
    ids=["raises", "kills", "no script", "no path"],
)
def test_an_item_that_fails_comes_back_with_the_reason(manager, item, why):
    assert manager.put_item(item)
    found = take(manager, 1)[0]
    assert found["status"] == "failed"
    assert why in found["error_message"]["error"]
    assert "result_data" not in found


def test_an_item_can_be_put_again(manager):
    item = {"script_path": ITEM, "context": {"error": "x"}}
    manager.put_item(item)
    assert take(manager, 1)[0]["status"] == "failed"
    item["context"] = {"number": 1}
    manager.put_item(item)
    found = take(manager, 1)[0]
    assert (found["status"], "error_message" in found) == ("success", False)


def test_what_is_no_dict_is_refused(manager):
    with pytest.raises(TypeError):
        manager.put_item("script.py")
    with pytest.raises(TypeError):
        manager.put_items_bulk([{"script_path": ITEM, "context": {}}, None])
    assert not manager.started


def test_the_first_put_starts_the_workers(manager):
    assert not manager.started
    assert manager.watcher.active_processes == []
    assert manager.get_output_items_bulk() == []
    assert manager.input_queue.get_stats() == {"size": 0, "dropped_items": 0, "is_empty": True}
    manager.put_item({"script_path": ITEM, "context": {}})
    assert manager.started
    assert manager.get_output_item()["status"] == "success"
    assert manager.get_output_item() is None


def test_a_bulk_of_items_comes_back_in_full_25_at_a_time(manager):
    items = [{"script_path": ITEM, "context": {"number": n}} for n in range(60)]
    assert manager.put_items_bulk(items)
    assert manager.put_items_bulk([])
    wait_until(lambda: manager.output_queue.size() == 60)
    sizes = [len(manager.get_output_items_bulk()) for _ in range(4)]
    assert sizes == [25, 25, 10, 0]
    assert sorted(item["result_data"]["number"] for item in items) == list(range(60))


def test_a_bulk_of_more_items_than_the_queue_holds_is_put_as_workers_get_on(manager):
    items = [{"script_path": ITEM, "context": {"number": n}} for n in range(2500)]
    assert manager.put_items_bulk(items)
    assert len(take(manager, 2500)) == 2500
    assert all(item["status"] == "success" for item in items)


def test_a_full_queue_refuses_items_and_says_so(manager, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("miniflow.manager._INPUT_SIZE", 5)
    monkeypatch.setattr("miniflow.manager._PATIENCE", 0.05)
    item = {"script_path": ITEM, "context": {"gate": str(tmp_path / "gate")}}
    accepted = 0

    def fill():
        nonlocal accepted
        while manager.put_item(dict(item)):
            accepted += 1
        return accepted == sum(manager.watcher._get_thread_counts_safe()) + 5 == 20 * processes + 5

    with caplog.at_level(logging.WARNING, "miniflow"):
        assert manager.put_item(dict(item))
        accepted += 1
        processes = len(manager.watcher.active_processes)
        wait_until(fill)
        refused = manager.input_queue.get_stats()["dropped_items"]
        assert not manager.put_items_bulk([dict(item), dict(item)])
    assert "full" in caplog.text
    stats = manager.input_queue.get_stats()
    assert (stats["size"], stats["is_empty"]) == (5, False)
    assert stats["dropped_items"] == refused + 2
    (tmp_path / "gate").touch()
    assert len(take(manager, accepted)) == accepted


def test_threads_of_all_processes_are_counted(manager, tmp_path):
    assert manager.watcher._get_thread_counts_safe() == []
    items = [{"script_path": ITEM, "context": {"gate": str(tmp_path / "gate")}} for _ in range(7)]
    manager.put_items_bulk(items)
    wait_until(lambda: sum(manager.watcher._get_thread_counts_safe()) == 7)
    counts = manager.watcher._get_thread_counts_safe()
    processes = manager.watcher.active_processes
    assert [process["active_threads"] for process in processes] == counts
    assert all(alive(process["pid"]) for process in processes)
    (tmp_path / "gate").touch()
    take(manager, 7)


def test_shutdown_gives_every_item_back(manager, tmp_path):
    gate = str(tmp_path / "gate")
    items = [{"script_path": ITEM, "context": {"gate": gate}} for _ in range(100)]
    manager.put_items_bulk(items)
    wait_until(lambda: any(manager.watcher._get_thread_counts_safe()))
    pids = [process["pid"] for process in manager.watcher.active_processes]
    assert manager.shutdown(timeout=0.1)
    assert not manager.shutdown()
    assert not any(map(alive, pids))
    assert len(take(manager, 100)) == 100
    assert {item["status"] for item in items} == {"failed"}


def test_a_manager_that_was_shut_down_starts_again_with_the_next_item(manager):
    for _ in range(2):
        manager.put_item({"script_path": ITEM, "context": {}})
        assert take(manager, 1)[0]["status"] == "success"
        manager.shutdown()


def test_threads_put_and_take_at_once(manager):
    def put(first):
        for n in range(first, first + 100):
            assert manager.put_item({"script_path": ITEM, "context": {"number": n}})

    got = []
    lock = threading.Lock()

    def get():
        while True:
            items = manager.get_output_items_bulk(10, timeout=0.5)
            with lock:
                got.extend(item["result_data"]["number"] for item in items)
                if len(got) == 400:
                    return

    threads = [threading.Thread(target=put, args=(1000 * n,)) for n in range(4)]
    threads += [threading.Thread(target=get) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(got) == [1000 * n + m for n in range(4) for m in range(100)]


def test_a_watcher_by_itself_moves_items_between_its_queues():
    inputs, outputs = BaseQueue(), BaseQueue(maxsize=3)
    watcher = QueueWatcher(inputs, outputs, True)
    assert watcher._get_next_process() is None
    watcher.start()
    try:
        inputs.put_batch([{"script_path": ITEM, "context": {"number": n}} for n in range(20)])
        items = [outputs.get_with_timeout(60) for _ in range(20)]
        assert sorted(item["result_data"]["number"] for item in items) == list(range(20))
    finally:
        watcher.shutdown()
    assert watcher.active_processes == []


def test_an_interrupt_while_an_item_is_taken_loses_nothing(manager, monkeypatch):
    manager.put_item({"script_path": ITEM, "context": {"number": 1}})
    wait_until(lambda: manager.output_queue.size() == 1)
    finish = _watcher.Ended.finish

    def interrupted(ended):
        finish(ended)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_watcher.Ended, "finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            manager.get_output_item()
    assert manager.get_output_item()["result_data"]["number"] == 1
    assert manager.output_queue.is_empty()

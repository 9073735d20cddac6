"""The stand-alone queues: bounded, for many threads, and outspoken when they are full."""

from __future__ import annotations

import logging
import threading
import time

import pytest
from processes import wait_until

from miniflow.parallelism_engine.queue_module import BaseQueue
from miniflow.queues import InputQueue, OutputQueue


def test_items_leave_in_the_order_in_which_they_came():
    queue = BaseQueue()
    assert all(queue.put(n) for n in range(5))
    assert queue.put_batch([5, 6])
    assert [queue.get() for _ in range(8)] == [0, 1, 2, 3, 4, 5, 6, None]


def test_a_queue_has_room_for_a_thousand_items_by_default():
    queue = BaseQueue()
    assert all(queue.put(n) for n in range(1000))
    assert not queue.put(1000)


def test_a_full_queue_is_an_error_and_not_a_silent_loss(caplog):
    queue = BaseQueue(maxsize=2)
    assert queue.put({"test": 1})
    assert queue.put({"test": 2})
    with caplog.at_level(logging.WARNING, "miniflow"):
        assert not queue.put({"test": 3})
    assert "full" in caplog.text
    assert queue.get_stats() == {"size": 2, "dropped_items": 1, "is_empty": False}
    assert [queue.get(), queue.get()] == [{"test": 1}, {"test": 2}]


def test_stats_and_sizes_tell_how_full_a_queue_is():
    queue = BaseQueue()
    assert (queue.size(), queue.is_empty()) == (0, True)
    assert queue.get_stats() == {"size": 0, "dropped_items": 0, "is_empty": True}
    queue.put(1)
    assert (queue.size(), queue.is_empty()) == (1, False)


def test_a_batch_is_in_as_a_whole_or_not_at_all():
    queue = BaseQueue(maxsize=4)
    assert queue.put_batch([1, 2, 3])
    assert not queue.put_batch([4, 5], max_retries=1, delay=0.001)
    assert queue.size() == 3
    assert not queue.put_batch(range(5))
    assert queue.get_stats()["dropped_items"] == 7
    assert queue.put_batch([])


def test_putting_with_retry_waits_for_room():
    queue = BaseQueue(maxsize=1)
    queue.put(1)
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(queue.put_with_retry(2, max_retries=300)))
    thread.start()
    wait_until(lambda: queue._emptied._waiters)
    assert queue.get() == 1
    thread.join(30)
    assert outcome == [True]
    assert queue.get() == 2


def test_putting_with_retry_gives_up():
    queue = BaseQueue(maxsize=1)
    queue.put(1)
    assert not queue.put_with_retry(2, max_retries=2, delay=0.001)


def test_getting_with_a_timeout_waits_for_an_item():
    queue = BaseQueue()
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(queue.get_with_timeout(30)))
    thread.start()
    wait_until(lambda: queue._filled._waiters)
    queue.put("item")
    thread.join(30)
    assert outcome == ["item"]
    start = time.monotonic()
    assert queue.get_with_timeout(0.01) is None
    assert time.monotonic() - start >= 0.01


def test_threads_that_put_and_get_at_once_lose_and_double_nothing():
    queue = BaseQueue(maxsize=7)
    got: list[int] = []
    done = threading.Event()

    def produce(first):
        for n in range(first, first + 500):
            assert queue.put_with_retry(n, max_retries=300)

    def consume():
        while not (done.is_set() and queue.is_empty()):
            item = queue.get_with_timeout(0.05)
            if item is not None:
                got.append(item)

    producers = [threading.Thread(target=produce, args=(1000 * n,)) for n in range(3)]
    consumers = [threading.Thread(target=consume) for _ in range(3)]
    for thread in producers + consumers:
        thread.start()
    for thread in producers:
        thread.join(60)
    done.set()
    for thread in consumers:
        thread.join(60)
    assert sorted(got) == [1000 * n + m for n in range(3) for m in range(500)]


@pytest.mark.parametrize("size", [0, -1])
def test_a_queue_without_room_cannot_be(size):
    with pytest.raises(ValueError, match="maxsize"):
        BaseQueue(maxsize=size)


def test_the_queues_of_an_engine_tell_their_status():
    inputs, outputs = InputQueue(maxsize=1), OutputQueue(maxsize=4)
    assert inputs.put({"task_id": "a"})
    assert not inputs.put({"task_id": "b"})
    status = inputs.get_status()
    assert (status.name, status.health) == ("input_queue", "degraded")
    assert status.metrics["size"] == 1
    assert status.metrics["total_put"] == 1
    assert status.metrics["total_dropped"] == 1
    assert inputs.get(timeout=1) == {"task_id": "a"}
    assert inputs.get() is None
    outputs.put({})
    outputs.get()
    assert outputs.get_status().metrics["total_get"] == 1

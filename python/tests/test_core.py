"""The host's end of an engine: Ctrl-C at any moment, many threads, callbacks that wait."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import calls
import processes
import pytest

from miniflow import Executor, _core
from miniflow._core import Core
from miniflow._settings import ClassSettings, Settings

TIMEOUT = 60.0

T = TypeVar("T")

# Sends SIGINT to its parent, at random moments, until its standard input is closed.
_SENDER = """
import os, random, select, signal, sys
chance = random.Random(int(sys.argv[1]))
parent = os.getppid()
print("ready", flush=True)
while not select.select([sys.stdin], [], [], chance.uniform(0.0001, 0.006))[0]:
    os.kill(parent, signal.SIGINT)
"""


@pytest.fixture
def executor() -> Generator[Executor, None, None]:
    with Executor(2) as made:
        made.submit(calls.add, 1).result(TIMEOUT)
        yield made


def core_of(executor: Executor) -> Core:
    assert executor._core is not None
    return executor._core


class Rain:
    """SIGINTs from another process, which interrupt the steps of a test and nothing else of it."""

    def __init__(self, seed: int) -> None:
        self.interrupted = 0
        self._inside = False
        self._seed = seed

    def __enter__(self) -> Rain:
        self._previous = signal.signal(signal.SIGINT, self._handle)
        self._sender = subprocess.Popen(
            [sys.executable, "-c", _SENDER, str(self._seed)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._sender.stdout is not None
        assert self._sender.stdout.readline() == b"ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        self._sender.communicate(timeout=TIMEOUT)
        signal.signal(signal.SIGINT, self._previous)

    def _handle(self, *_: object) -> None:
        if self._inside:
            self._inside = False
            raise KeyboardInterrupt

    def step(self, work: Callable[[], T]) -> T | None:
        """The value of `work`, or None if it was interrupted."""
        try:
            self._inside = True
            value = work()
            self._inside = False
            return value
        except KeyboardInterrupt:
            self.interrupted += 1
            return None


@pytest.mark.parametrize("seed", range(3))
def test_no_result_is_lost_or_told_twice_when_ctrl_c_comes_at_any_moment(
    executor: Executor, seed: int
) -> None:
    chance = random.Random(seed)
    accepted: list[tuple[int, concurrent.futures.Future[int]]] = []
    called: Counter[int] = Counter()
    number = 0
    begun = time.monotonic()
    with Rain(seed) as rain:
        while rain.interrupted < 200 and time.monotonic() - begun < TIMEOUT:
            future = rain.step(partial(executor.submit, calls.square, number))
            if future is not None:
                accepted.append((number, future))
            number += 1
            if accepted and chance.random() < 0.3:
                _, waited = accepted[-1 - int(chance.random() * min(50, len(accepted)))]
                rain.step(partial(waited.result, TIMEOUT))
            if chance.random() < 0.05:
                rain.step(partial(core_of(executor).drive, 0.001))
    assert rain.interrupted >= 200
    for n, mine in accepted:
        assert mine.result(TIMEOUT) == n * n
        mine.add_done_callback(lambda _, n=n: called.update([n]))  # type: ignore[misc]
    assert called == Counter(n for n, _ in accepted)
    # What was submitted while its future got lost has ended too, and nothing stays.
    core = core_of(executor)
    assert core.wait_until(lambda: core.outstanding == 0, TIMEOUT)


def test_other_threads_go_on_when_ctrl_c_comes_at_any_moment(executor: Executor) -> None:
    """An interrupt may come between a claim to lead and what gives it back."""
    stop = threading.Event()
    counts = [0] * 3
    errors: list[BaseException] = []

    def work(index: int) -> None:
        try:
            while not stop.is_set():
                assert executor.submit(calls.add, index).result(TIMEOUT) == index
                counts[index] += 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    begun = time.monotonic()
    with Rain(7) as rain:
        while rain.interrupted < 200 and time.monotonic() - begun < TIMEOUT:
            rain.step(lambda: executor.submit(calls.add, 1).result(TIMEOUT))
    # And now without this thread.
    before = list(counts)
    deadline = time.monotonic() + TIMEOUT
    while not errors and any(now < then + 20 for now, then in zip(counts, before)):
        assert time.monotonic() < deadline
        stop.wait(0.002)
    stop.set()
    for thread in threads:
        thread.join(TIMEOUT)
    assert not errors
    assert rain.interrupted >= 200


def test_a_lead_that_was_not_given_back_is_taken_over(executor: Executor) -> None:
    core = core_of(executor)
    for _ in range(3):
        # As an interrupt leaves it.
        core._lead[0] = (threading.get_ident(),)
        with concurrent.futures.ThreadPoolExecutor(1) as other:
            assert other.submit(lambda: executor.submit(calls.add, 5).result(TIMEOUT)).result(TIMEOUT) == 5
        core._lead[0] = (threading.get_ident(),)
        assert executor.submit(calls.add, 6).result(TIMEOUT) == 6
        core._lead[0] = (threading.get_ident(),)
        future = executor.submit(calls.add, 7)
        assert concurrent.futures.wait([future], TIMEOUT).done
    processes.wait_until(lambda: not core._lead)


def test_a_lead_that_a_callback_holds_is_not_taken_over(executor: Executor) -> None:
    core = core_of(executor)
    inside, release = threading.Event(), threading.Event()
    claims: list[object] = []

    def hold(_: object) -> None:
        claims.append(core._lead.get(0))
        inside.set()
        release.wait(TIMEOUT)
        claims.append(core._lead.get(0))

    executor.submit(calls.add, 1).add_done_callback(hold)
    assert inside.wait(TIMEOUT)
    other = executor.submit(calls.add, 2)
    with pytest.raises(concurrent.futures.TimeoutError):
        other.result(0.5)
    release.set()
    assert other.result(TIMEOUT) == 2
    assert claims[0] is claims[1] is not None


def test_callbacks_that_wait_for_other_calls_nest(executor: Executor) -> None:
    depth = 40
    order: list[int] = []
    done = threading.Event()

    def deeper(level: int) -> None:
        def callback(_: object) -> None:
            if level < depth:
                deeper(level + 1)
                executor.submit(calls.add, level).result(TIMEOUT)
            order.append(level)
            if level == 0:
                done.set()

        future = executor.submit(calls.square, level)
        future.add_done_callback(callback)
        future.result(TIMEOUT)

    deeper(0)
    assert done.wait(TIMEOUT)
    assert sorted(order) == list(range(depth + 1))


def test_callbacks_that_wait_leave_all_others_whole(executor: Executor) -> None:
    """Each callback waits for a call that was submitted after it, many batches later."""
    total = 600
    got: Counter[int] = Counter()
    futures = [executor.submit(calls.square, n) for n in range(total)]
    for n, future in enumerate(futures):

        def callback(_: object, n: int = n) -> None:
            got.update([n])
            if n % 50 == 0:
                assert futures[-1 - n // 50].result(TIMEOUT) == (total - 1 - n // 50) ** 2
                assert executor.submit(calls.add, n).result(TIMEOUT) == n

        future.add_done_callback(callback)
    assert [future.result(TIMEOUT) for future in futures] == [n * n for n in range(total)]
    executor.shutdown()
    assert got == Counter(range(total))


def test_thirty_threads_lead_and_follow(executor: Executor) -> None:
    sums: list[int] = []
    errors: list[BaseException] = []

    def work(index: int) -> None:
        try:
            mine = 0
            for n in range(60):
                future = executor.submit(calls.add, index, n)
                mine += future.result(TIMEOUT)
            sums.append(mine)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert not errors
    assert sorted(sums) == sorted(sum(index + n for n in range(60)) for index in range(30))
    assert not core_of(executor)._lead
    assert not core_of(executor)._followers


def test_more_calls_than_there_is_room_for_are_submitted_by_driving() -> None:
    made = Executor(1)
    made._settings = Settings(cpu=ClassSettings(workers=1), max_tasks=64)
    with made:
        assert sum(made.submit(calls.add, n).result(TIMEOUT) for n in range(3)) == 3
        futures = [made.submit(calls.add, n) for n in range(2000)]
        threads = [
            threading.Thread(target=lambda: futures.extend([made.submit(calls.add, 0) for _ in range(500)]))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
        assert sum(future.result(TIMEOUT) for future in futures) == sum(range(2000))


def test_ctrl_c_interrupts_a_wait_at_once(executor: Executor, tmp_path: Path) -> None:
    release = tmp_path / "release"
    future = executor.submit(calls.wait_for, str(release))
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        future.result(TIMEOUT)
    assert time.monotonic() - begun < 5
    timer.join()
    release.touch()
    assert future.result(TIMEOUT) == str(release)


def test_ctrl_c_interrupts_a_submission_that_waits_for_room() -> None:
    made = Executor(1, timeout=30.0)
    made._settings = Settings(cpu=ClassSettings(workers=1), max_tasks=8)
    with made:
        made.submit(calls.add, 1).result(TIMEOUT)
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        begun = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            deque((made.submit(time.sleep, 0.5) for _ in itertools.count()), 0)
        assert time.monotonic() - begun < 5
        timer.join()
        made.shutdown(cancel_futures=True)


def test_results_that_are_read_in_place_stay_right_when_ctrl_c_comes_at_any_moment(
    executor: Executor,
) -> None:
    """Their memory is given back once, and not before the last view of it is gone."""
    size = 40_000
    kept: list[tuple[int, pickle.PickleBuffer]] = []
    begun = time.monotonic()
    with Rain(5) as rain:
        number = 0
        while rain.interrupted < 200 and time.monotonic() - begun < TIMEOUT:
            number += 1
            future = rain.step(partial(executor.submit, calls.filled, number % 250, size))
            if future is None:
                continue
            value = None
            while value is None:
                value = rain.step(partial(future.result, TIMEOUT))
            kept.append((number % 250, value))
            del kept[:-50]
            for expected, view in kept:
                assert bytes(view) == bytes([expected]) * size
    assert rain.interrupted >= 200


def test_a_loop_does_not_spin_while_another_thread_drives(executor: Executor) -> None:
    looks = 0
    original = _core._readable

    def counted(*args: Any) -> None:
        nonlocal looks
        looks += 1
        original(*args)

    inside, leave = threading.Event(), threading.Event()

    def callback(_: object) -> None:
        inside.set()
        leave.wait(TIMEOUT)

    async def main() -> int:
        loop = asyncio.get_running_loop()
        awaited = loop.run_in_executor(executor, calls.add, 1)  # attaches the loop
        await awaited
        future = executor.submit(calls.add, 1)
        thread = threading.Thread(target=lambda: (future.add_done_callback(callback), future.result(TIMEOUT)))
        thread.start()
        await loop.run_in_executor(None, inside.wait, TIMEOUT)
        others = [executor.submit(calls.add, n) for n in range(5)]
        assert core_of(executor).led_elsewhere
        before = looks
        await asyncio.sleep(0.3)
        spent = looks - before
        leave.set()
        await loop.run_in_executor(None, thread.join)
        assert [other.result(TIMEOUT) for other in others] == list(range(5))
        return spent

    _core._readable = counted
    try:
        assert asyncio.run(main()) <= 0.3 / _core._BUSY_NAP + 10
    finally:
        _core._readable = original


def test_a_lead_changes_hands_while_others_look_whether_it_was_left_behind(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All the time, instead of every now and then."""
    monkeypatch.setattr(_core, "_SLICE", 0.00005)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with concurrent.futures.ThreadPoolExecutor(12) as threads:

            def work(index: int) -> int:
                return sum(executor.submit(calls.add, index, n).result(20) for n in range(1000))

            assert list(threads.map(work, range(12))) == [1000 * index + 499500 for index in range(12)]
    finally:
        sys.setswitchinterval(interval)
    assert not core_of(executor)._lead
    assert core_of(executor).outstanding == 0

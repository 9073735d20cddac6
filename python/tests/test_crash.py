"""Workers die in every way, and only the calls that they ran are lost."""

from __future__ import annotations

import concurrent.futures
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import calls
import processes
import pytest

from miniflow import Executor, TaskTimeout, WorkerCrashed, _abi

TIMEOUT = 60.0
READY = _abi.MF_WORKER_READY


@pytest.fixture
def single() -> Generator[Executor, None, None]:
    with Executor(1) as executor:
        yield executor


def worker_pids(executor: Executor, count: int) -> set[int]:
    """The processes of an idle executor's workers, when all are there."""
    executor.submit(calls.add, 1).result(TIMEOUT)
    assert executor._core is not None
    core = executor._core

    def pids() -> set[int]:
        return {row.pid for row in core.workers() if row.pid and row.state == READY}

    processes.wait_until(lambda: len(pids()) == count)
    return pids()


def zygote_of(worker: int) -> int:
    found = processes.look(worker)
    assert found is not None
    return found.parent


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_worker_with_a_thousand_calls_queued_loses_only_the_one_it_ran(
    tmp_path: Path, workers: int
) -> None:
    with Executor(workers) as executor:
        victim = executor.submit(calls.touch_and_wait_for_ever, str(tmp_path / "runs"))
        victim_pid = executor.submit(calls.pid) if workers > 1 else None
        futures = [executor.submit(calls.square, n) for n in range(1000)]
        processes.wait_until((tmp_path / "runs").exists)
        assert executor._core is not None
        running = [row.pid for row in executor._core.workers() if row.running]
        state = executor._core.state(victim)
        assert state is not None
        assert state.running
        pids = {row.slot: row.pid for row in executor._core.workers()}
        assert state.worker is not None
        assert pids[state.worker] in running
        os.kill(pids[state.worker], signal.SIGKILL)
        error = victim.exception(TIMEOUT)
        assert isinstance(error, WorkerCrashed)
        assert error.signal == signal.SIGKILL
        assert error.exit_code is None
        assert "SIGKILL" in str(error)
        assert not error.collateral
        lost = [future for future in futures if future.exception(TIMEOUT) is not None]
        assert len(lost) <= workers - 1
        assert [future.result() for future in futures if future not in lost] == [
            n * n for n, future in enumerate(futures) if future not in lost
        ]
        assert victim_pid is None or victim_pid.result(TIMEOUT) != pids[state.worker]


def test_a_call_is_tried_again_if_it_has_retries(tmp_path: Path) -> None:
    with Executor(1, retries=1) as executor:
        first = executor.submit(calls.kill_me_once, str(tmp_path / "first"), 7)
        futures = [executor.submit(calls.square, n) for n in range(100)]
        assert first.result(TIMEOUT) == 7
        assert [future.result(TIMEOUT) for future in futures] == [n * n for n in range(100)]
        error = executor.submit(calls.kill_me, signal.SIGKILL).exception(TIMEOUT)
        assert isinstance(error, WorkerCrashed)
        assert error.attempt == 2


def test_the_death_of_an_idle_worker_costs_nothing() -> None:
    with Executor(2) as executor:
        for pid in worker_pids(executor, 2):
            os.kill(pid, signal.SIGKILL)
        futures = [executor.submit(calls.square, n) for n in range(50)]
        assert [future.result(TIMEOUT) for future in futures] == [n * n for n in range(50)]


@pytest.mark.parametrize(
    ("function", "arguments", "by_signal", "exit_code"),
    [
        (calls.exit_at_once, (3,), None, 3),
        (calls.exit_at_once, (0,), None, 0),
        (calls.kill_me, (signal.SIGUSR2,), signal.SIGUSR2, None),
        (os.abort, (), signal.SIGABRT, None),
        (calls.write_to_null, (), signal.SIGSEGV, None),
        (calls.overflow_the_stack, (), signal.SIGSEGV, None),
    ],
)
def test_a_call_that_ends_its_process_fails_saying_how_and_the_next_one_runs(
    single: Executor,
    function: object,
    arguments: tuple[object, ...],
    by_signal: int | None,
    exit_code: int | None,
) -> None:
    error = single.submit(function, *arguments).exception(TIMEOUT)  # type: ignore[arg-type]
    assert isinstance(error, WorkerCrashed), error
    assert (error.signal, error.exit_code) == (by_signal, exit_code)
    expected = f"exited with code {exit_code}" if by_signal is None else signal.Signals(by_signal).name
    assert expected in str(error)
    assert single.submit(calls.add, 1).result(TIMEOUT) == 1


def test_memory_beyond_the_limit_is_a_memory_error_and_the_worker_goes_on() -> None:
    with Executor(1, memory_limit=256 << 20) as executor:
        worker = executor.submit(calls.pid).result(TIMEOUT)
        assert executor.submit(calls.allocate, 32 << 20).result(TIMEOUT) == 32 << 20
        assert isinstance(executor.submit(calls.allocate, 1 << 30).exception(TIMEOUT), MemoryError)
        assert executor.submit(calls.pid).result(TIMEOUT) == worker


def test_a_call_that_runs_too_long_is_killed_and_the_next_one_runs(tmp_path: Path) -> None:
    with Executor(1, timeout=0.3) as executor:
        executor.submit(calls.add, 1).result(TIMEOUT)
        stuck = executor.submit(calls.touch_and_wait_for_ever, str(tmp_path / "runs"))
        behind = [executor.submit(calls.square, n) for n in range(20)]
        error = stuck.exception(TIMEOUT)
        assert isinstance(error, TaskTimeout)
        assert isinstance(error, TimeoutError)
        assert [future.result(TIMEOUT) for future in behind] == [n * n for n in range(20)]


def test_workers_go_on_without_their_zygote_and_are_still_replaced() -> None:
    with Executor(2) as executor:
        for _ in range(3):
            pids = worker_pids(executor, 2)
            zygote = zygote_of(min(pids))
            os.kill(zygote, signal.SIGKILL)
            processes.wait_until(lambda: not processes.alive(zygote))  # noqa: B023, it ends here
            futures = [executor.submit(calls.square, n) for n in range(200)]
            assert [future.result(TIMEOUT) for future in futures] == [n * n for n in range(200)]
            for pid in worker_pids(executor, 2):
                os.kill(pid, signal.SIGKILL)
            futures = [executor.submit(calls.square, n) for n in range(200)]
            assert [future.result(TIMEOUT) for future in futures] == [n * n for n in range(200)]


@pytest.mark.parametrize("seed", range(4))
def test_whatever_dies_each_future_ends_once_with_the_right_value(seed: int) -> None:
    chance = random.Random(seed)
    ends: Counter[int] = Counter()
    count = 3000
    with Executor(3) as executor:
        executor.submit(calls.add, 1).result(TIMEOUT)
        stop = threading.Event()

        def kill() -> None:
            assert executor._core is not None
            while not stop.wait(chance.uniform(0.005, 0.05)):
                # Not those that only start: an engine whose workers all die then says so and gives up.
                pids = [row.pid for row in executor._core.workers() if row.pid and row.state == READY]
                victims = pids if chance.random() < 0.3 else pids[:1]
                for pid in victims:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            futures = []
            for n in range(count):
                future = executor.submit(calls.chaos, seed, n)
                future.add_done_callback(lambda _, n=n: ends.update([n]))  # type: ignore[misc]
                futures.append(future)
            done = concurrent.futures.wait(futures, TIMEOUT).done
        finally:
            stop.set()
            killer.join()
        assert len(done) == count
        for n, future in enumerate(futures):
            error = future.exception(0)
            assert isinstance(error, WorkerCrashed) if error else future.result(0) == n * n
    assert ends == Counter(range(count))


def test_an_interrupt_sent_to_a_worker_disturbs_no_task() -> None:
    with Executor(1) as executor:
        worker = executor.submit(os.getpid).result(TIMEOUT)
        for _ in range(20):
            future = executor.submit(sum, range(100_000))
            os.kill(worker, signal.SIGINT)
            assert future.result(TIMEOUT) == 4_999_950_000
        assert executor.submit(os.getpid).result(TIMEOUT) == worker

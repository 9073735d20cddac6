"""Executor behaves as CPython's own executors do."""

from __future__ import annotations

import concurrent.futures
import gc
import itertools
import logging
import operator
import os
import threading
import time
import weakref
from collections.abc import Generator, Iterator
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION, CancelledError
from functools import partial
from pathlib import Path
from typing import Any

import calls
import processes
import pytest

from miniflow import Executor, TaskError, WorkerError

TIMEOUT = 60.0

Future = concurrent.futures.Future


@pytest.fixture(scope="module")
def shared() -> Generator[Executor, None, None]:
    with Executor(2) as executor:
        assert executor.submit(calls.add, 1, 1).result(TIMEOUT) == 2
        yield executor


@pytest.fixture
def single() -> Generator[Executor, None, None]:
    with Executor(1) as executor:
        yield executor


class Gate:
    """A call that runs until it is let go."""

    def __init__(self, executor: Executor, directory: Path) -> None:
        self._started = directory / f"started-{id(self)}"
        self._release = directory / f"release-{id(self)}"
        self.future = executor.submit(calls.touch_and_wait_for, str(self._started), str(self._release))
        processes.wait_until(self._started.exists)

    def open(self) -> None:
        self._release.touch()

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *_: object) -> None:
        self.open()
        self.future.exception(TIMEOUT)


# -- one call


def test_a_call_returns_its_value_and_takes_keywords(shared: Executor) -> None:
    assert shared.submit(calls.add, 2, b=3).result(TIMEOUT) == 5


def test_a_call_may_have_arguments_named_like_those_of_submit(shared: Executor) -> None:
    assert shared.submit(dict, fn=1, self=2).result(TIMEOUT) == {"fn": 1, "self": 2}


def test_calls_run_in_other_processes_at_the_same_time(shared: Executor, tmp_path: Path) -> None:
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    pids = [shared.submit(calls.touch_and_wait_for, *paths) for paths in ((a, b), (b, a))]
    found = {future.result(TIMEOUT) for future in pids}
    assert len(found) == 2
    assert os.getpid() not in found


def test_an_exception_comes_back_as_itself_with_the_remote_frames_as_its_cause(shared: Executor) -> None:
    future = shared.submit(calls.divide_ten_by, 0)
    error = future.exception(TIMEOUT)
    assert isinstance(error, ZeroDivisionError)
    text = str(error.__cause__)
    assert "calls.py" in text
    assert "in divide_ten_by" in text
    assert "return a / b" in text
    with pytest.raises(ZeroDivisionError) as raised:
        future.result(TIMEOUT)
    assert raised.value is error


def test_the_remote_text_shows_what_an_exception_was_raised_from(shared: Executor) -> None:
    error = shared.submit(calls.raise_chained).exception(TIMEOUT)
    assert isinstance(error, ValueError)
    text = str(error.__cause__)
    assert "ZeroDivisionError" in text
    assert "direct cause of the following exception" in text


def test_a_call_that_does_not_fit_the_function_fails_in_its_future(shared: Executor) -> None:
    assert isinstance(shared.submit(calls.add).exception(TIMEOUT), TypeError)
    assert isinstance(shared.submit(3).exception(TIMEOUT), TypeError)  # type: ignore[arg-type]


def test_result_and_exception_time_out_and_the_result_is_there_later(
    single: Executor, tmp_path: Path
) -> None:
    with Gate(single, tmp_path) as gate:
        with pytest.raises(concurrent.futures.TimeoutError):
            gate.future.result(timeout=0.02)
        with pytest.raises(concurrent.futures.TimeoutError):
            gate.future.exception(timeout=0)
        assert not gate.future.done()
    assert isinstance(gate.future.result(TIMEOUT), int)
    assert gate.future.exception(0) is None


def test_a_future_says_where_its_call_is(single: Executor, tmp_path: Path) -> None:
    with Gate(single, tmp_path) as gate:
        waiting = single.submit(calls.add, 1)
        assert gate.future.running()
        assert not gate.future.done()
        assert not waiting.running()
        assert not waiting.done()
        assert "pending" in repr(waiting)
    assert waiting.result(TIMEOUT) == 1
    assert not gate.future.running()
    assert gate.future.done()
    assert "finished returned int" in repr(waiting)


def test_done_becomes_true_without_anybody_waiting(shared: Executor) -> None:
    future = shared.submit(calls.add, 1)
    processes.wait_until(future.done)
    assert future.result(0) == 1


# -- cancelling


def test_a_call_that_no_worker_has_is_cancelled_and_never_runs(single: Executor, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    with Gate(single, tmp_path) as gate:
        behind = [single.submit(calls.touch, str(ran)) for _ in range(20)]
        last = behind[-1]
        assert last.cancel()
        assert last.cancelled()
        assert last.done()
        assert not last.running()
        assert last.cancel()
        assert "cancelled" in repr(last)
        with pytest.raises(CancelledError):
            last.result(0)
        with pytest.raises(CancelledError):
            last.exception(0)
        cancelled = sum(future.cancel() for future in behind)
        assert not gate.future.cancel()
        assert not gate.future.cancelled()
    single.shutdown()
    assert ran.exists() == (cancelled < len(behind))


def test_a_call_that_runs_or_has_ended_cannot_be_cancelled(single: Executor, tmp_path: Path) -> None:
    with Gate(single, tmp_path) as gate:
        assert not gate.future.cancel()
    gate.future.result(TIMEOUT)
    assert not gate.future.cancel()
    assert not gate.future.cancelled()


def test_a_thread_that_waits_learns_of_the_cancellation(single: Executor, tmp_path: Path) -> None:
    with Gate(single, tmp_path):
        future = [single.submit(calls.add, 1) for _ in range(10)][-1]
        found: list[BaseException] = []

        def wait() -> None:
            try:
                future.result(TIMEOUT)
            except BaseException as error:
                found.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        assert future.cancel()
        thread.join(TIMEOUT)
        assert [type(error) for error in found] == [CancelledError]


# -- callbacks


def test_a_callback_is_called_once_with_its_future(shared: Executor) -> None:
    called = threading.Event()
    got: list[Future[int]] = []

    def callback(future: Future[int]) -> None:
        got.append(future)
        called.set()

    future = shared.submit(calls.add, 3)
    future.add_done_callback(callback)
    assert called.wait(TIMEOUT)
    assert future.result(TIMEOUT) == 3
    assert got == [future]


def test_a_callback_added_after_the_end_is_called_at_once(shared: Executor) -> None:
    future = shared.submit(calls.add, 3)
    future.result(TIMEOUT)
    got: list[Future[int]] = []
    future.add_done_callback(got.append)
    assert got == [future]


def test_callbacks_are_called_in_their_order_and_one_that_raises_stops_no_other(
    shared: Executor, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    order: list[int] = []
    all_called = threading.Event()

    def bad(_: Future[Any]) -> None:
        order.append(1)
        raise ValueError("a callback that raises")

    def last(_: Future[Any]) -> None:
        order.append(2)
        all_called.set()

    with caplog.at_level(logging.ERROR, "concurrent.futures"), Gate(shared, tmp_path) as gate:
        gate.future.add_done_callback(lambda _: order.append(0))
        gate.future.add_done_callback(bad)
        gate.future.add_done_callback(last)
        gate.open()
        assert all_called.wait(TIMEOUT)
    assert order == [0, 1, 2]
    assert "a callback that raises" in caplog.text
    gate.future.add_done_callback(bad)
    assert order == [0, 1, 2, 1]


def test_callbacks_hear_of_exceptions_and_of_cancellation(single: Executor, tmp_path: Path) -> None:
    states: list[tuple[str, bool]] = []
    with Gate(single, tmp_path):
        failing = single.submit(calls.divide, 1, 0)
        doomed = [single.submit(calls.add, 1) for _ in range(10)][-1]
        doomed.add_done_callback(lambda future: states.append(("doomed", future.cancelled())))
        failing.add_done_callback(lambda future: states.append(("failing", future.exception() is not None)))
        assert doomed.cancel()
        assert states == [("doomed", True)]
    concurrent.futures.wait([failing], TIMEOUT)
    assert states == [("doomed", True), ("failing", True)]


def test_a_callback_may_submit_and_wait(shared: Executor) -> None:
    found: list[int] = []
    done = threading.Event()

    def again(future: Future[int]) -> None:
        value = future.result()
        if value < 5:
            shared.submit(calls.add, value, 1).add_done_callback(again)
            found.append(shared.submit(calls.square, value).result(TIMEOUT))
        else:
            done.set()

    shared.submit(calls.add, 0).add_done_callback(again)
    assert done.wait(TIMEOUT)
    processes.wait_until(lambda: len(found) == 5)
    assert sorted(found) == [0, 1, 4, 9, 16]


def test_a_callback_may_wait_for_a_thread_that_waits_for_the_same_future(
    shared: Executor, tmp_path: Path
) -> None:
    with Gate(shared, tmp_path) as gate:
        waiter = threading.Thread(target=gate.future.result, args=(TIMEOUT,))
        waiter.start()
        joined: list[bool] = []
        done = threading.Event()

        def join(_: Future[Any]) -> None:
            if threading.current_thread() is not waiter:
                waiter.join(TIMEOUT)
                joined.append(not waiter.is_alive())
            done.set()

        gate.future.add_done_callback(join)
        gate.open()
        assert done.wait(TIMEOUT)
        assert joined in ([], [True])
        waiter.join(TIMEOUT)


def test_callbacks_added_by_many_threads_while_the_call_ends_are_each_called_once(shared: Executor) -> None:
    for _ in range(50):
        future = shared.submit(calls.add, 1)
        counts = [0] * 8
        barrier = threading.Barrier(9)

        def add(
            index: int,
            barrier: threading.Barrier = barrier,
            future: Future[int] = future,
            counts: list[int] = counts,
        ) -> None:
            def called(_: Future[int]) -> None:
                counts[index] += 1

            barrier.wait(TIMEOUT)
            future.add_done_callback(called)

        threads = [threading.Thread(target=add, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        barrier.wait(TIMEOUT)
        assert future.result(TIMEOUT) == 1
        for thread in threads:
            thread.join(TIMEOUT)
        processes.wait_until(lambda: sum(counts) >= 8)  # noqa: B023, it ends here
        assert counts == [1] * 8


# -- wait and as_completed


def test_wait_first_completed(shared: Executor, tmp_path: Path) -> None:
    with Gate(shared, tmp_path) as gate:
        quick = shared.submit(calls.add, 1)
        both: list[Future[Any]] = [gate.future, quick]
        done, not_done = concurrent.futures.wait(both, TIMEOUT, FIRST_COMPLETED)
        assert done == {quick}
        assert not_done == {gate.future}


def test_wait_first_exception(shared: Executor, tmp_path: Path) -> None:
    with Gate(shared, tmp_path) as gate:
        failing = shared.submit(calls.divide, 1, 0)
        both: list[Future[Any]] = [gate.future, failing]
        done, not_done = concurrent.futures.wait(both, TIMEOUT, FIRST_EXCEPTION)
        assert done == {failing}
        assert not_done == {gate.future}
        # One that has failed already ends the wait at once.
        done, _ = concurrent.futures.wait(both, TIMEOUT, FIRST_EXCEPTION)
        assert done == {failing}


def test_wait_all_completed_and_with_a_timeout(shared: Executor, tmp_path: Path) -> None:
    futures = [shared.submit(calls.square, n) for n in range(300)]
    done, not_done = concurrent.futures.wait(futures, TIMEOUT, ALL_COMPLETED)
    assert (len(done), len(not_done)) == (300, 0)
    assert sorted(future.result() for future in done) == [n * n for n in range(300)]
    with Gate(shared, tmp_path) as gate:
        done, not_done = concurrent.futures.wait([gate.future, futures[0]], 0.02)
        assert done == {futures[0]}
        assert not_done == {gate.future}


def test_wait_counts_right_while_futures_end(shared: Executor) -> None:
    """The end of a call and the arrival of somebody who waits for it, at the same moment."""
    for _ in range(200):
        futures = [shared.submit(calls.add, n) for n in range(4)]
        racer = threading.Thread(target=futures[-1].result)
        racer.start()
        done, not_done = concurrent.futures.wait(futures, TIMEOUT)
        racer.join(TIMEOUT)
        assert len(done) == 4
        assert not not_done


def test_wait_and_as_completed_take_futures_of_several_executors(shared: Executor) -> None:
    with Executor(1) as other, concurrent.futures.ThreadPoolExecutor(1) as threads:
        pools: list[concurrent.futures.Executor] = [shared, other, threads]
        futures = [pool.submit(calls.add, n) for n, pool in enumerate(pools)]
        assert {future.result() for future in concurrent.futures.as_completed(futures, TIMEOUT)} == {0, 1, 2}
        assert len(concurrent.futures.wait(futures, 0).done) == 3


def test_as_completed_yields_each_once_also_if_it_is_given_twice_or_has_ended(shared: Executor) -> None:
    futures = [shared.submit(calls.square, n) for n in range(50)]
    futures[0].result(TIMEOUT)
    seen = list(concurrent.futures.as_completed(futures + futures[:7], TIMEOUT))
    assert len(seen) == 50
    assert set(seen) == set(futures)
    assert set(concurrent.futures.as_completed(futures, 0)) == set(futures)


def test_as_completed_yields_what_has_ended_before_it_times_out(shared: Executor, tmp_path: Path) -> None:
    with Gate(shared, tmp_path) as gate:
        quick = shared.submit(calls.add, 1)
        quick.result(TIMEOUT)
        seen: list[Any] = []
        with pytest.raises(concurrent.futures.TimeoutError):
            seen.extend(concurrent.futures.as_completed([gate.future, quick], 0.02))
        following = concurrent.futures.as_completed([gate.future, quick], 0.02)
        assert next(following) is quick
        with pytest.raises(concurrent.futures.TimeoutError):
            next(following)


def test_as_completed_holds_no_future_that_it_has_yielded(shared: Executor) -> None:
    futures = [shared.submit(calls.big, 100) for _ in range(20)]
    seen = 0
    for future in concurrent.futures.as_completed(futures, TIMEOUT):
        seen += 1
        futures.pop(next(n for n, mine in enumerate(futures) if mine is future))
        reference = weakref.ref(future)
        del future
        processes.wait_until(partial(_is_gone, reference))
    assert seen == 20


def _is_gone(reference: weakref.ref[Any]) -> bool:
    return reference() is None


# -- map


def test_map_yields_in_order_whatever_the_chunksize(shared: Executor) -> None:
    expected = [n * n for n in range(100)]
    for chunksize in (1, 3, 100, 1000):
        assert list(shared.map(calls.square, range(100), chunksize=chunksize)) == expected


def test_map_stops_at_the_shortest_iterable(shared: Executor) -> None:
    assert list(shared.map(operator.add, range(10), [5, 6, 7], chunksize=2)) == [5, 7, 9]
    assert list(shared.map(operator.add, itertools.count(), (1,))) == [1]
    assert list(shared.map(calls.square, [])) == []
    assert list(shared.map(calls.square)) == []


def test_map_yields_what_came_before_an_exception(shared: Executor) -> None:
    values = shared.map(calls.divide_ten_by, [5, 2, 0, 1])
    assert next(values) == 2
    assert next(values) == 5
    with pytest.raises(ZeroDivisionError):
        next(values)
    with pytest.raises(StopIteration):
        next(values)


def test_map_loses_no_value_when_the_function_raises_stop_iteration(shared: Executor) -> None:
    for chunksize in (1, 10):
        with pytest.raises(RuntimeError, match="StopIteration"):
            list(shared.map(calls.stop_at, range(6), chunksize=chunksize))


def test_map_times_out_as_a_whole(single: Executor, tmp_path: Path) -> None:
    release = tmp_path / "release"
    single.submit(calls.add, 1).result(TIMEOUT)
    values = single.map(calls.wait_for, [str(tmp_path), str(release)], timeout=2)
    assert next(values) == str(tmp_path)
    with pytest.raises(concurrent.futures.TimeoutError):
        next(values)
    release.touch()


def test_map_refuses_sizes_that_make_no_sense(shared: Executor) -> None:
    with pytest.raises(ValueError, match="chunksize must be >= 1"):
        shared.map(calls.square, [1], chunksize=0)
    with pytest.raises(ValueError, match="buffersize"):
        shared.map(calls.square, [1], buffersize=0)


def test_map_with_a_buffersize_reads_an_endless_iterable_only_so_far(shared: Executor) -> None:
    read = 0

    def numbers() -> Iterator[int]:
        nonlocal read
        for number in itertools.count():
            read += 1
            yield number

    values = shared.map(calls.square, numbers(), buffersize=5)
    assert read == 5
    for expected in range(50):
        assert next(values) == expected * expected
        assert read <= expected + 6
    values.close()  # type: ignore[attr-defined]


def test_map_with_a_buffersize_yields_everything(shared: Executor) -> None:
    expected = [n * n for n in range(101)]
    for chunksize in (1, 4):
        found = list(shared.map(calls.square, range(101), buffersize=3, chunksize=chunksize))
        assert found == expected
    assert list(Executor(1).map(calls.square, range(101), buffersize=3)) == expected


def test_closing_the_generator_of_map_cancels_what_was_not_started(single: Executor, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    with Gate(single, tmp_path):
        values = single.map(calls.touch, [str(ran)] * 100)
        values.close()  # type: ignore[attr-defined]
        # A generator that was not started has nothing to close; one that was cancels.
        started = single.map(calls.touch, [str(ran)] * 100, timeout=0)
        with pytest.raises(concurrent.futures.TimeoutError):
            next(started)
    assert single.submit(calls.add, 1).result(TIMEOUT) == 1


def test_an_exception_in_the_iterable_comes_out_of_map(shared: Executor) -> None:
    def numbers() -> Iterator[int]:
        yield 1
        raise LookupError("no more numbers")

    with pytest.raises(LookupError, match="no more numbers"):
        shared.map(calls.square, numbers())
    assert shared.submit(calls.add, 1).result(TIMEOUT) == 1


def test_map_keeps_nothing_of_what_it_has_yielded(shared: Executor) -> None:
    for chunksize in (1, 3):
        for value in shared.map(calls.make_plain, range(9), chunksize=chunksize):
            reference = weakref.ref(value)
            del value
            assert reference() is None


# -- what cannot travel


def test_arguments_that_cannot_be_pickled_fail_their_future_only(shared: Executor) -> None:
    future = shared.submit(calls.identity, threading.Lock())
    error = future.exception(TIMEOUT)
    assert isinstance(error, TaskError)
    assert "cannot be pickled" in str(error)
    assert "lock" in str(error)
    with pytest.raises(TaskError, match="cannot be pickled"):
        list(shared.map(calls.identity, [1, threading.Lock()]))
    assert shared.submit(calls.add, 1).result(TIMEOUT) == 1


def test_a_result_that_cannot_be_pickled_fails_its_future_and_the_worker_goes_on(single: Executor) -> None:
    worker = single.submit(calls.pid).result(TIMEOUT)
    error = single.submit(calls.make_lock).exception(TIMEOUT)
    assert isinstance(error, TaskError)
    assert "cannot be pickled" in str(error)
    assert single.submit(calls.pid).result(TIMEOUT) == worker


def test_arguments_that_cannot_be_unpickled_fail_their_future(single: Executor) -> None:
    worker = single.submit(calls.pid).result(TIMEOUT)
    error = single.submit(calls.identity, calls.FailsAtHome()).exception(TIMEOUT)
    assert isinstance(error, LookupError)
    assert single.submit(calls.pid).result(TIMEOUT) == worker


def test_a_result_that_cannot_be_unpickled_fails_its_future(single: Executor) -> None:
    with pytest.raises(LookupError, match="does not live here"):
        single.submit(calls.make_fails_at_home).result(TIMEOUT)
    assert single.submit(calls.add, 1).result(TIMEOUT) == 1


def test_a_result_that_raises_system_exit_in_unpickling_stands_in_nobodys_way(single: Executor) -> None:
    poisoned = single.submit(calls.make_exits_when_unpickled)
    good = single.submit(calls.add, 1)
    with pytest.raises(TaskError, match="cannot be unpickled: SystemExit"):
        poisoned.result(TIMEOUT)
    assert good.result(TIMEOUT) == 1


def test_exceptions_that_cannot_travel_come_back_as_task_errors_that_name_them(single: Executor) -> None:
    for function, name, text in (
        (calls.raise_two_arguments, "TwoArguments", "two of them"),
        (calls.raise_unpicklable, "UnpicklableError", "it holds a lock"),
    ):
        error = single.submit(function).exception(TIMEOUT)
        assert isinstance(error, TaskError)
        assert name in str(error)
        assert text in str(error)
        assert function.__name__ in str(error.__cause__)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, BaseException])
def test_exceptions_that_end_programs_end_only_their_call(single: Executor, kind: Any) -> None:
    worker = single.submit(calls.pid).result(TIMEOUT)
    error = single.submit(calls.raise_of_type, kind, 3).exception(TIMEOUT)
    assert error is not None
    assert type(error) is kind
    assert error.args == (3,)
    assert single.submit(calls.pid).result(TIMEOUT) == worker


def test_recursion_without_end_is_a_recursion_error(single: Executor) -> None:
    worker = single.submit(calls.pid).result(TIMEOUT)
    assert isinstance(single.submit(calls.recurse, 1_000_000).exception(TIMEOUT), RecursionError)
    assert isinstance(single.submit(calls.nested, 100_000).exception(TIMEOUT), Exception)
    assert isinstance(single.submit(len, calls.nested(100_000)).exception(TIMEOUT), Exception)
    assert single.submit(calls.pid).result(TIMEOUT) == worker


# -- shutdown


def test_nothing_can_be_submitted_after_shutdown(tmp_path: Path) -> None:
    unused = Executor(1)
    unused.shutdown()
    used = Executor(1)
    future = used.submit(calls.add, 1)
    used.shutdown()
    used.shutdown()
    used.shutdown(wait=False)
    for executor in (unused, used):
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            executor.submit(calls.add, 1)
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            executor.map(calls.square, [1])
    assert future.result(0) == 1


def test_shutdown_waits_for_what_was_submitted() -> None:
    with Executor(2) as executor:
        futures = [executor.submit(calls.square, n) for n in range(500)]
    assert all(future.done() for future in futures)
    assert [future.result(0) for future in futures] == [n * n for n in range(500)]


def test_shutdown_without_wait_returns_at_once_and_the_calls_still_end(tmp_path: Path) -> None:
    executor = Executor(1)
    with Gate(executor, tmp_path) as gate:
        behind = [executor.submit(calls.square, n) for n in range(50)]
        executor.shutdown(wait=False)
        assert not gate.future.done()
        with pytest.raises(RuntimeError):
            executor.submit(calls.add, 1)
    assert [future.result(TIMEOUT) for future in behind] == [n * n for n in range(50)]
    executor.shutdown()
    processes.wait_until(lambda: not _threads_of_ours())


def test_shutdown_can_cancel_what_was_not_started(tmp_path: Path) -> None:
    executor = Executor(1)
    with Gate(executor, tmp_path) as gate:
        behind = [executor.submit(calls.add, n) for n in range(100)]
        executor.shutdown(wait=False, cancel_futures=True)
    executor.shutdown()
    assert gate.future.result(0) > 0
    cancelled = [future.cancelled() for future in behind]
    assert cancelled[-1]
    assert sum(cancelled) >= 90
    assert all(future.done() for future in behind)


def test_shutdown_by_a_callback_is_possible() -> None:
    executor = Executor(1)
    done = threading.Event()

    def stop(_: Future[int]) -> None:
        executor.shutdown(wait=True)
        done.set()

    executor.submit(calls.add, 1).add_done_callback(stop)
    assert done.wait(TIMEOUT)
    with pytest.raises(RuntimeError):
        executor.submit(calls.add, 1)


def test_two_threads_may_shut_down_at_once_while_others_submit() -> None:
    executor = Executor(2)
    accepted: list[Future[int]] = []
    errors: list[BaseException] = []
    begun = threading.Barrier(5)

    def submit() -> None:
        begun.wait(TIMEOUT)
        try:
            while True:
                accepted.append(executor.submit(calls.add, 1))
        except RuntimeError:
            pass
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=submit) for _ in range(3)]
    for thread in threads:
        thread.start()
    executor.submit(calls.add, 1).result(TIMEOUT)

    def stop() -> None:
        begun.wait(TIMEOUT)
        processes.wait_until(lambda: len(accepted) > 100)
        executor.shutdown()

    stoppers = [threading.Thread(target=stop) for _ in range(2)]
    for thread in stoppers:
        thread.start()
    for thread in threads + stoppers:
        thread.join(TIMEOUT)
    assert not errors
    for future in accepted:
        assert future.done()
        assert future.exception(0) is None or isinstance(future.exception(0), Exception)


# -- many threads


def test_sixteen_threads_submit_and_wait_for_each_others_futures(shared: Executor) -> None:
    count, each = 16, 60
    futures: list[list[Future[int]]] = [[] for _ in range(count)]
    sums = [0] * count
    submitted = threading.Barrier(count)
    errors: list[BaseException] = []

    def work(mine: int) -> None:
        try:
            for n in range(each):
                futures[mine].append(shared.submit(calls.add, mine * each, n))
                if n % 7 == 0:
                    futures[mine][-1].result(TIMEOUT)
            submitted.wait(TIMEOUT)
            for offset in range(count):
                sums[mine] += sum(future.result(TIMEOUT) for future in futures[(mine + offset) % count])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert not errors
    assert sums == [sum(range(count * each))] * count


# -- settings


def test_the_initializer_runs_in_each_worker_before_its_first_call() -> None:
    with Executor(2, initializer=calls.set_kept, initargs=("ready",)) as executor:
        futures = [executor.submit(calls.get_kept) for _ in range(50)]
        assert {future.result(TIMEOUT) for future in futures} == {"ready"}


def test_an_initializer_that_fails_fails_all_calls_with_its_reason() -> None:
    with Executor(2, initializer=calls.fail_to_initialize) as executor:
        for future in [executor.submit(calls.add, n) for n in range(20)]:
            error = future.exception(TIMEOUT)
            assert isinstance(error, WorkerError)
            assert "the initializer says no" in str(error)
            assert "fail_to_initialize" in str(error.__cause__)


def test_an_initializer_that_cannot_be_pickled_fails_the_first_call() -> None:
    with (
        Executor(1, initializer=calls.identity, initargs=(threading.Lock(),)) as executor,
        pytest.raises(TaskError, match="cannot be pickled"),
    ):
        executor.submit(calls.add, 1).result(TIMEOUT)


def test_a_worker_is_replaced_after_as_many_calls_as_it_may_run() -> None:
    with Executor(1, max_tasks_per_child=3) as executor:
        pids = [executor.submit(calls.pid).result(TIMEOUT) for _ in range(9)]
    assert len(set(pids)) >= 3
    assert max(pids.count(pid) for pid in set(pids)) <= 3


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"max_workers": 0}, ValueError),
        ({"max_workers": -1}, ValueError),
        ({"initializer": 3}, TypeError),
        ({"max_tasks_per_child": 0}, ValueError),
        ({"max_tasks_per_child": "3"}, TypeError),
        ({"retries": -1}, ValueError),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Executor(**settings)


# -- leaving nothing behind


def _threads_of_ours() -> list[threading.Thread]:
    """Those of executors; the one that reads the library's log belongs to the process."""
    names = ("miniflow-watch", "miniflow-drain")
    return [thread for thread in threading.enumerate() if thread.name in names]


def _descriptors() -> dict[str, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            pass  # that of the listing
    return found


def _settled(before: dict[str, str], threads: int) -> bool:
    return set(_descriptors().items()) <= set(before.items()) and threading.active_count() <= threads


def _native_threads() -> int:
    return len(os.listdir("/proc/self/task"))


@pytest.mark.parametrize("pending", [False, True])
def test_an_executor_that_is_forgotten_leaves_no_process_thread_or_descriptor(pending: bool) -> None:
    Executor(1).submit(calls.add, 1).result(TIMEOUT)
    gc.collect()
    processes.wait_until(lambda: not _threads_of_ours())
    before, family, threads, native = (
        _descriptors(),
        set(processes.ours()),
        threading.active_count(),
        _native_threads(),
    )
    executor = Executor(2)
    futures = [executor.submit(calls.square, n) for n in range(200)]
    if not pending:
        for future in futures:
            future.result(TIMEOUT)
    reference = weakref.ref(executor)
    del executor
    gc.collect()
    assert reference() is None
    assert [future.result(TIMEOUT) for future in futures] == [n * n for n in range(200)]
    processes.wait_until(lambda: _settled(before, threads), what=f"{before}")
    processes.wait_until(lambda: set(processes.ours()) <= family)
    processes.wait_until(lambda: _native_threads() <= native)


def test_a_hundred_callbacks_leave_no_thread_behind() -> None:
    threads = threading.active_count()
    called: list[int] = []
    with Executor(1) as executor:
        for n in range(100):
            executor.submit(calls.add, n).add_done_callback(lambda future: called.append(future.result()))
    assert sorted(called) == list(range(100))
    processes.wait_until(lambda: threading.active_count() <= threads)


def test_a_result_is_released_with_its_future(single: Executor) -> None:
    held = single.submit(calls.big, 1 << 20)
    value = held.result(TIMEOUT)
    reference = weakref.ref(held)
    assert len(value) == 1 << 20
    del held
    assert reference() is None


def test_looking_at_a_future_starts_no_thread(single: Executor, tmp_path: Path) -> None:
    threads = threading.active_count()
    with Gate(single, tmp_path) as gate:
        repr(gate.future)
        gate.future.done()
        gate.future.running()
        gate.future.cancelled()
        with pytest.raises(concurrent.futures.TimeoutError):
            gate.future.result(0)
        assert threading.active_count() == threads


def test_a_timeout_is_kept_while_others_drive(single: Executor, tmp_path: Path) -> None:
    with Gate(single, tmp_path) as gate:
        leader = threading.Thread(target=gate.future.result, args=(TIMEOUT,))
        leader.start()
        begun = time.monotonic()
        with pytest.raises(concurrent.futures.TimeoutError):
            gate.future.result(0.2)
        assert 0.2 <= time.monotonic() - begun < 5
        gate.open()
        leader.join(TIMEOUT)

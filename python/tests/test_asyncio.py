"""Executor and Engine in asyncio: awaited through the engine's descriptor, without a thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import calls
import processes
import pytest

from miniflow import Engine, EngineConfig, Executor, TaskTimeout, WorkerCrashed, _aio, _wire
from miniflow._core import Core
from miniflow._settings import ClassSettings, Settings

TIMEOUT = 60.0


@pytest.fixture(scope="module")
def executor() -> Generator[Executor, None, None]:
    with Executor(2) as made:
        made.submit(calls.add, 1).result(TIMEOUT)
        yield made


@pytest.fixture(scope="module")
def engine() -> Generator[Engine, None, None]:
    with Engine(EngineConfig(cpu_bound_count=2, io_bound_count=1)) as made:
        yield made


def watching() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "miniflow-watch"]


async def call(executor: Executor, function: Any, *args: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(executor, function, *args)


async def limited(awaitable: Any) -> Any:
    return await asyncio.wait_for(awaitable, TIMEOUT)


def test_run_in_executor_returns_values_and_raises_exceptions(executor: Executor) -> None:
    async def main() -> None:
        assert await limited(call(executor, calls.square, 7)) == 49
        with pytest.raises(ZeroDivisionError):
            await limited(call(executor, calls.divide, 1, 0))
        with pytest.raises(WorkerCrashed):
            await limited(call(executor, calls.exit_at_once, 1))
        assert await limited(call(executor, calls.square, 8)) == 64

    asyncio.run(main())


def test_a_thousand_calls_are_gathered_in_order_and_no_thread_is_started(executor: Executor) -> None:
    async def main() -> None:
        threads = threading.active_count()
        tasks = [asyncio.ensure_future(call(executor, calls.square, n)) for n in range(1000)]
        for n in range(0, 1000, 100):
            await limited(tasks[n])
            assert threading.active_count() == threads
        assert await limited(asyncio.gather(*tasks)) == [n * n for n in range(1000)]
        assert threading.active_count() == threads

    processes.wait_until(lambda: not watching())
    asyncio.run(main())


def test_futures_can_be_wrapped_whoever_submitted_them(executor: Executor) -> None:
    before = executor.submit(calls.square, 3)
    ended = executor.submit(calls.square, 4)
    ended.result(TIMEOUT)

    async def main() -> list[int]:
        inside = executor.submit(calls.square, 5)
        return list(await limited(asyncio.gather(*map(asyncio.wrap_future, (before, ended, inside)))))

    assert asyncio.run(main()) == [9, 16, 25]


def test_several_loops_in_threads_share_an_executor(executor: Executor) -> None:
    found: dict[int, list[int]] = {}

    async def main(offset: int) -> None:
        tasks = [call(executor, calls.add, offset, n) for n in range(200)]
        found[offset] = list(await limited(asyncio.gather(*tasks)))

    threads = [threading.Thread(target=lambda n=n: asyncio.run(main(n))) for n in range(4)]
    for thread in threads:
        thread.start()
    total = sum(executor.submit(calls.add, n).result(TIMEOUT) for n in range(200))
    for thread in threads:
        thread.join(TIMEOUT)
    assert total == sum(range(200))
    assert found == {offset: [offset + n for n in range(200)] for offset in range(4)}


def test_loops_one_after_the_other_share_an_executor(executor: Executor) -> None:
    for n in range(10):
        assert asyncio.run(limited_call(executor, n)) == n * n


async def limited_call(executor: Executor, number: int) -> int:
    return int(await limited(call(executor, calls.square, number)))


def test_executors_one_after_the_other_share_a_loop() -> None:
    """The descriptor of the second one has the number of the first one's."""

    async def main() -> None:
        for n in range(5):
            with Executor(1) as mine:
                assert await limited_call(mine, n) == n * n

    asyncio.run(main())
    loop = asyncio.new_event_loop()
    try:
        for n in range(5):
            mine = Executor(1)
            assert loop.run_until_complete(limited_call(mine, n)) == n * n
            stopper = threading.Thread(target=mine.shutdown)
            stopper.start()
            stopper.join(TIMEOUT)
    finally:
        loop.close()


def test_an_executor_is_shut_down_by_another_thread_while_its_loop_runs() -> None:
    async def main() -> int:
        mine = Executor(1)
        value = await limited_call(mine, 6)
        await limited(asyncio.get_running_loop().run_in_executor(None, mine.shutdown))
        with Executor(1) as other:
            return value + await limited_call(other, 1)

    assert asyncio.run(main()) == 37


def test_cancelling_what_awaits_cancels_a_call_that_no_worker_has(tmp_path: Path) -> None:
    async def main() -> None:
        with Executor(1) as mine:
            started, release, ran = (str(tmp_path / name) for name in ("started", "release", "ran"))
            first = asyncio.ensure_future(call(mine, calls.touch_and_wait_for, started, release))
            while not os.path.exists(started):
                await asyncio.sleep(0.002)
            futures = [mine.submit(calls.touch, ran) for _ in range(20)]
            waiting = asyncio.wrap_future(futures[-1])
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await asyncio.sleep(0)
            assert futures[-1].cancelled()
            for future in futures:
                future.cancel()
            calls.touch(release)
            assert await limited(first) > 0

    asyncio.run(main())


def test_wait_for_times_out_and_the_call_ends_all_the_same(executor: Executor, tmp_path: Path) -> None:
    release = tmp_path / "release"

    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(call(executor, calls.wait_for, str(release)), 0.05)
        release.touch()
        assert await limited(call(executor, calls.square, 2)) == 4

    asyncio.run(main())


def test_waiting_for_futures_in_a_thread_that_runs_a_loop_does_not_hang(executor: Executor) -> None:
    """As in a notebook, whose cells run inside of a loop."""

    async def main() -> None:
        futures = [executor.submit(calls.square, n) for n in range(50)]
        assert len(concurrent.futures.wait(futures, TIMEOUT).done) == 50
        futures = [executor.submit(calls.square, n) for n in range(50)]
        seen = sum(future.result() for future in concurrent.futures.as_completed(futures, TIMEOUT))
        assert seen == sum(n * n for n in range(50))
        assert executor.submit(calls.square, 3).result(TIMEOUT) == 9
        assert list(executor.map(calls.square, range(5))) == [0, 1, 4, 9, 16]

    asyncio.run(main())


def test_a_future_with_a_callback_of_a_closed_loop_can_still_be_waited_for(
    executor: Executor, tmp_path: Path
) -> None:
    release = tmp_path / "release"
    called: list[object] = []

    async def main() -> concurrent.futures.Future[str]:
        future = executor.submit(calls.wait_for, str(release))
        future.add_done_callback(called.append)
        return future

    future = asyncio.run(main())
    release.touch()
    assert concurrent.futures.wait([future], TIMEOUT).done == {future}
    processes.wait_until(lambda: called == [future])


def test_run_awaits_a_function(engine: Engine) -> None:
    async def main() -> None:
        threads = threading.active_count()
        assert await limited(engine.run(calls.add, 1, b=2)) == 3
        with pytest.raises(ZeroDivisionError):
            await limited(engine.run(calls.divide, 1, 0))
        with pytest.raises(RuntimeError, match="StopIteration"):
            await limited(engine.run(calls.stop_at, 3))
        found = await limited(asyncio.gather(*(engine.run(calls.square, n) for n in range(1000))))
        assert found == [n * n for n in range(1000)]
        assert threading.active_count() == threads

    asyncio.run(main())


def test_run_awaits_a_script(engine: Engine, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("def main(params, context):\n    return params['n'] + 1\n")
    assert asyncio.run(limited(engine.run(script, {"n": 4}))) == 5


def test_run_has_a_timeout_that_ends_the_call(engine: Engine, tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(TaskTimeout):
            await limited(engine.run(calls.touch_and_wait_for_ever, str(tmp_path / "runs"), timeout=0.2))
        assert await limited(engine.run(calls.square, 3)) == 9

    asyncio.run(main())


def test_a_coroutine_that_is_cancelled_cancels_its_task(engine: Engine, tmp_path: Path) -> None:
    async def main() -> None:
        release = str(tmp_path / "release")
        started = [str(tmp_path / f"started-{n}") for n in range(2)]
        busy = [
            asyncio.ensure_future(engine.run(calls.touch_and_wait_for, path, release)) for path in started
        ]
        while not all(map(os.path.exists, started)):
            await asyncio.sleep(0.002)
        ran = str(tmp_path / "ran")
        waiting = [asyncio.ensure_future(engine.run(calls.touch, ran)) for _ in range(50)]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        ended = await limited(asyncio.gather(*waiting, return_exceptions=True))
        assert all(isinstance(end, asyncio.CancelledError) for end in ended)
        calls.touch(release)
        await limited(asyncio.gather(*busy))
        assert await limited(engine.run(calls.square, 3)) == 9

    asyncio.run(main())


def test_more_calls_than_there_is_room_for_wait_in_their_coroutines() -> None:
    core = Core(Settings(cpu=ClassSettings(workers=1), max_tasks=16))

    async def main() -> list[int]:
        opts = core.options()
        runs = (_aio.run(core, _wire.CALL, (calls.square, (n,), {}), opts) for n in range(1000))
        return list(await limited(asyncio.gather(*runs)))

    try:
        assert asyncio.run(main()) == [n * n for n in range(1000)]
    finally:
        core.close()

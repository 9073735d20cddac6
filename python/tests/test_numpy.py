"""Arrays and other pickle-5 buffers travel through shared memory."""

from __future__ import annotations

import gc
import pickle
import weakref
from collections.abc import Generator
from typing import Any

import arrays
import calls
import processes
import pytest

from miniflow import EngineError, Executor, TaskError, WorkerError
from miniflow._core import Core
from miniflow._settings import ClassSettings, Settings

np = pytest.importorskip("numpy")

TIMEOUT = 60.0
MIB = 1 << 20


@pytest.fixture(scope="module")
def executor() -> Generator[Executor, None, None]:
    with Executor(1, preload=["numpy"]) as made:
        made.submit(calls.add, 1).result(TIMEOUT)
        yield made


def result_bytes(executor: Executor) -> int:
    """What the results take that have not been given back."""
    assert executor._core is not None
    return executor._core.stats().payload_bytes


DTYPES = ["bool", "i1", "u1", "i2", "u4", "i8", "f2", "f4", "f8", "c8", "c16", "S7", "U5", "M8[ns]", ">i4"]
RECORD = np.dtype([("a", "i4"), ("b", "f8"), ("c", "S3")])


@pytest.mark.parametrize("dtype", [*DTYPES, RECORD], ids=str)
@pytest.mark.parametrize("shape", [(0,), (1,), (7, 3), (300, 200), (40, 0, 3), ()])
def test_an_array_comes_back_as_it_went(executor: Executor, dtype: Any, shape: tuple[int, ...]) -> None:
    kind = np.dtype(dtype)
    size = int(np.prod(shape))
    array = np.random.default_rng(1).integers(0, 2, size * kind.itemsize, dtype="u1")
    array = np.frombuffer(array.tobytes(), kind, count=size).reshape(shape) if size else np.zeros(shape, kind)
    back = executor.submit(calls.identity, array).result(TIMEOUT)
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_keeps_its_order(executor: Executor, order: Any) -> None:
    array = np.asarray(np.arange(200 * 300.0).reshape(200, 300), order=order)
    back = executor.submit(calls.identity, array).result(TIMEOUT)
    assert back.flags.c_contiguous == array.flags.c_contiguous
    assert np.array_equal(back, array)


@pytest.mark.parametrize(
    "part", [np.s_[::2], np.s_[:, ::3], np.s_[::-1], np.s_[5:9, 7:90], np.s_[..., None], np.s_[:, 4]]
)
def test_parts_of_arrays_that_are_not_contiguous_arrive_whole(executor: Executor, part: Any) -> None:
    array = np.arange(500 * 300, dtype="f4").reshape(500, 300)[part]
    assert np.array_equal(executor.submit(calls.identity, array).result(TIMEOUT), array)


def test_arrays_of_objects_travel(executor: Executor) -> None:
    array = np.array([{"a": 1}, None, "text"], dtype=object)
    assert executor.submit(calls.identity, array).result(TIMEOUT).tolist() == array.tolist()


def test_a_large_array_arrives_as_a_read_only_view_that_is_not_copied(executor: Executor) -> None:
    told = executor.submit(arrays.describe, np.ones(MIB)).result(TIMEOUT)
    assert told == {"writeable": False, "owns": False, "aligned": True, "sum": float(MIB)}
    back = executor.submit(arrays.ones, MIB).result(TIMEOUT)
    assert not back.flags.writeable
    assert not back.flags.owndata
    assert back.ctypes.data % 64 == 0
    with pytest.raises(ValueError, match="read-only"):
        back[0] = 2
    copy = back.copy()
    copy[0] = 2
    assert back[0] == 1


def test_a_view_keeps_its_content_while_it_lives_and_gives_it_back_afterwards(executor: Executor) -> None:
    kept = executor.submit(arrays.filled, MIB, 7).result(TIMEOUT)
    part = kept[1000:2000]
    reference = weakref.ref(kept)
    del kept
    for n in range(100):
        assert executor.submit(arrays.filled, MIB, n).result(TIMEOUT)[0] == n
    assert (part == 7).all()
    del part
    gc.collect()
    assert reference() is None


def test_a_view_outlives_its_executor() -> None:
    with Executor(1) as executor:
        array = executor.submit(arrays.filled, MIB, 5).result(TIMEOUT)
    del executor
    gc.collect()
    assert (array == 5).all()


def test_memory_of_results_is_given_back(executor: Executor) -> None:
    """2000 results of 8 MiB each: far more than there is room for at once."""
    for n in range(2000):
        array = executor.submit(arrays.empty, 8 * MIB, n).result(TIMEOUT)
        assert array[0] == n
        assert array[-1] == n


def test_memory_of_arguments_is_given_back(executor: Executor) -> None:
    array = np.zeros(8 * MIB, dtype="u1")
    for n in range(1000):
        array[-1] = n % 256
        assert executor.submit(arrays.last, array).result(TIMEOUT) == n % 256
    processes.wait_until(lambda: result_bytes(executor) == 0)


def test_an_argument_that_a_call_keeps_stays_as_it_was(executor: Executor) -> None:
    array = np.random.default_rng(3).random(MIB)
    executor.submit(calls.set_kept, array).result(TIMEOUT)
    other = np.zeros(MIB)
    for n in range(1000):
        other[:] = n
        assert executor.submit(arrays.last, other).result(TIMEOUT) == n
    assert np.array_equal(executor.submit(calls.get_kept).result(TIMEOUT), array)
    executor.submit(calls.set_kept, None).result(TIMEOUT)


def test_parts_of_arguments_kept_by_many_calls_stay_as_they_were(executor: Executor) -> None:
    executor.submit(arrays.forget).result(TIMEOUT)
    for n in range(100):
        executor.submit(arrays.keep_part, np.full(MIB // 8, n)).result(TIMEOUT)
    assert executor.submit(arrays.kept_sums).result(TIMEOUT) == [n * 10 for n in range(100)]
    executor.submit(arrays.forget).result(TIMEOUT)


def test_mixed_values_arrive_whole(executor: Executor) -> None:
    value = {
        "array": np.arange(100_000),
        "small": np.arange(3),
        "text": "x" * 1000,
        "bytes": bytes(range(256)) * 1000,
        "list": [np.ones(50_000), {"deep": np.zeros((300, 300))}],
        "twice": [],
    }
    value["twice"] = [value["array"], value["array"]]
    back = executor.submit(calls.identity, value).result(TIMEOUT)
    assert np.array_equal(back["array"], value["array"])
    assert np.array_equal(back["small"], value["small"])
    assert back["text"] == value["text"]
    assert back["bytes"] == value["bytes"]
    assert np.array_equal(back["list"][0], value["list"][0])
    assert np.array_equal(back["list"][1]["deep"], value["list"][1]["deep"])
    assert back["twice"][0] is back["twice"][1]


@pytest.mark.parametrize("size", [0, 1, 100, 32 << 10, (32 << 10) + 1, MIB])
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_bytes_of_every_size_come_back(executor: Executor, kind: Any, size: int) -> None:
    value = kind(bytes(range(256)) * (size // 256 + 1))[:size]
    back = executor.submit(calls.identity, value).result(TIMEOUT)
    assert back == value


def test_a_pickle_buffer_travels_out_of_band(executor: Executor) -> None:
    data = bytearray(b"abc" * 50_000)
    assert executor.submit(arrays.length, pickle.PickleBuffer(data)).result(TIMEOUT) == len(data)
    back = executor.submit(arrays.as_buffer, len(data)).result(TIMEOUT)
    assert bytes(memoryview(back)) == b"x" * len(data)


def test_map_takes_arrays_and_yields_arrays(executor: Executor) -> None:
    inputs = [np.full(100_000, n) for n in range(30)]
    for chunksize in (1, 7):
        found = list(executor.map(arrays.doubled, inputs, chunksize=chunksize))
        assert [int(array[0]) for array in found] == [2 * n for n in range(30)]


def test_results_that_are_held_do_not_stop_the_others(executor: Executor) -> None:
    held = [executor.submit(arrays.filled, MIB, n).result(TIMEOUT) for n in range(100)]
    futures = [executor.submit(arrays.filled, MIB, n) for n in range(100)]
    assert [int(future.result(TIMEOUT)[5]) for future in futures] == list(range(100))
    assert [int(array[-1]) for array in held] == list(range(100))


@pytest.fixture
def small() -> Generator[Executor, None, None]:
    """An executor with little room."""
    made = Executor(1)
    made._settings = Settings(
        cpu=ClassSettings(workers=1),
        max_payload=MIB,
        max_result=MIB,
        payload_arena=64 * MIB,
        result_arena=64 * MIB,
    )
    with made:
        yield made


def test_an_argument_larger_than_may_be_fails_its_future(small: Executor) -> None:
    for value in (np.zeros(2 * MIB, dtype="u1"), b"x" * (2 * MIB)):
        error = small.submit(len, value).exception(TIMEOUT)
        assert isinstance(error, TaskError)
        assert "cannot be sent to a worker" in str(error)
    assert small.submit(len, b"x" * (MIB // 2)).result(TIMEOUT) == MIB // 2


def test_a_result_larger_than_may_be_fails_its_future_and_the_worker_goes_on(small: Executor) -> None:
    worker = small.submit(calls.pid).result(TIMEOUT)
    for function in (arrays.ones, calls.text):
        error = small.submit(function, 2 * MIB).exception(TIMEOUT)
        assert isinstance(error, WorkerError)
        assert "cannot be returned" in str(error)
    assert small.submit(calls.pid).result(TIMEOUT) == worker


def test_arguments_wait_for_room_in_shared_memory(small: Executor) -> None:
    array = np.zeros(MIB // 2, dtype="u1")
    futures = [small.submit(arrays.last, array) for _ in range(1000)]
    assert sum(future.result(TIMEOUT) for future in futures) == 0


def test_results_that_fill_their_memory_wait_until_some_are_given_back(small: Executor) -> None:
    futures = [small.submit(arrays.filled, MIB // 16, n) for n in range(400)]
    total = 0
    while futures:
        future = futures.pop(0)
        total += int(future.result(TIMEOUT)[0])
        del future
    assert total == sum(range(400))


def test_a_core_that_cannot_start_says_why() -> None:
    with pytest.raises(EngineError, match="no_such_module"):
        Core(Settings(cpu=ClassSettings(workers=1), preload=["no_such_module"]))

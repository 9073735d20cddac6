"""Where workers run and how: every thread of theirs, as the kernel says it."""

from __future__ import annotations

import ctypes
import os
import platform
from typing import NamedTuple

import calls
import pytest
from engines import act, run
from processes import alive, wait_until

from miniflow import ConfigError, Engine, EngineConfig, Executor

TIMEOUT = 60.0
CPUS = sorted(os.sched_getaffinity(0))
IOPRIO_GET = {"x86_64": 252, "aarch64": 31}.get(platform.machine())


class Place(NamedTuple):
    cpus: frozenset[int]
    nice: int
    policy: int


def place(pid: int) -> Place:
    """The one place that all threads of a process have."""
    places = {
        Place(
            frozenset(os.sched_getaffinity(thread)),
            os.getpriority(os.PRIO_PROCESS, thread),
            os.sched_getscheduler(thread),
        )
        for thread in map(int, os.listdir(f"/proc/{pid}/task"))
    }
    assert len(places) == 1, places
    return places.pop()


def io_priority(pid: int) -> int:
    if IOPRIO_GET is None:
        pytest.skip("the number of ioprio_get is not known here")
    return ctypes.CDLL(None).syscall(IOPRIO_GET, 1, pid)


HERE = place(os.getpid())


def test_an_executors_worker_runs_where_and_as_it_should():
    with Executor(1, affinity=CPUS[-1:], nice=3, scheduler="batch", io_priority=6) as executor:
        pid = executor.submit(calls.pid).result(TIMEOUT)
        expected = Place(frozenset(CPUS[-1:]), min(19, HERE.nice + 3), os.SCHED_BATCH)
        assert place(pid) == expected
        assert io_priority(pid) == 2 << 13 | 6
        # So does its replacement; and this process is as it was.
        os.kill(pid, 9)
        wait_until(lambda: not alive(pid))
        another = executor.submit(calls.pid).result(TIMEOUT)
        assert another != pid
        assert place(another) == expected
    assert place(os.getpid()) == HERE


def test_by_default_workers_are_as_their_host():
    with Executor(1) as executor:
        assert place(executor.submit(calls.pid).result(TIMEOUT)) == HERE


def test_a_worker_that_is_bound_has_no_more_numerical_threads_than_processors(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with Executor(1, affinity=CPUS[:1]) as executor:
        assert executor.submit(os.getenv, "OMP_NUM_THREADS").result(TIMEOUT) == "1"


def test_spread_workers_are_on_processors_of_their_own(tmp_path):
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    with Executor(2, affinity="spread") as executor:
        both = [executor.submit(calls.touch_and_wait_for, *paths) for paths in ((a, b), (b, a))]
        places = [place(future.result(TIMEOUT)).cpus for future in both]
    assert [len(cpus) for cpus in places] == [1, 1]
    assert len(places[0] | places[1]) == min(2, len(CPUS))


@pytest.mark.parametrize(
    ("affinity", "expected"),
    [
        ("node:0", CPUS),
        ("node:4000", CPUS),
        ([1_000_000], CPUS),
        ((CPUS[0], 1_000_000), CPUS[:1]),
    ],
    ids=["a node", "no such node", "no such processor", "one such processor"],
)
def test_what_the_machine_does_not_have_is_done_without(affinity, expected):
    with Executor(1, affinity=affinity, huge_pages=True) as executor:
        cpus = place(executor.submit(calls.pid).result(TIMEOUT)).cpus
        assert cpus <= set(expected)
        assert affinity == "node:0" or cpus == set(expected)  # there may be other nodes
        assert executor.submit(calls.identity, b"x" * 5_000_000).result(TIMEOUT) == b"x" * 5_000_000


def test_an_engines_workers_of_both_classes_are_placed():
    config = EngineConfig(
        io_bound_count=1,
        io_bound_task_limit=1,
        affinity=[CPUS[0], CPUS[-1]],
        nice=2,
        scheduler="normal",
        io_priority="idle",
    )
    with Engine(config) as engine:
        for cpu, expected in ((True, CPUS[0]), (False, CPUS[-1])):
            pid = run(engine, act("who", cpu=cpu)).data["pid"]
            assert place(pid) == Place(frozenset([expected]), min(19, HERE.nice + 2), os.SCHED_OTHER)
            assert io_priority(pid) == 3 << 13


@pytest.mark.parametrize(
    "wrong",
    [
        {"affinity": "everywhere"},
        {"affinity": "node:"},
        {"affinity": "node:-1"},
        {"affinity": []},
        {"affinity": [-1]},
        {"affinity": [1.0]},
        {"affinity": [True]},
        {"affinity": 3},
        {"affinity": [1 << 32]},
        {"nice": 20},
        {"nice": -21},
        {"nice": 1.0},
        {"scheduler": "fifo"},
        {"scheduler": 1},
        {"scheduler": ["idle"]},
        {"io_priority": 8},
        {"io_priority": -1},
        {"io_priority": "realtime"},
        {"io_priority": True},
        {"huge_pages": 1},
    ],
    ids=str,
)
def test_a_place_that_cannot_be_is_an_error_that_names_the_setting(wrong):
    name = next(iter(wrong))
    with pytest.raises(ConfigError, match=name):
        EngineConfig(**wrong)
    with pytest.raises(ConfigError, match=name):
        Executor(1, **wrong)


def test_a_place_that_was_changed_to_nonsense_is_refused_at_the_start():
    config = EngineConfig()
    config.nice = 100
    with pytest.raises(ConfigError, match="nice"):
        Engine(config).start()

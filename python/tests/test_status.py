"""What an engine says about itself has the shape of old."""

from __future__ import annotations

import json

import pytest
from engines import Gate, act, run

from miniflow import ComponentStatus, Engine, EngineConfig, HealthStatus


@pytest.fixture
def engine():
    config = EngineConfig(
        cpu_bound_count=2, io_bound_count=1, io_bound_task_limit=3, input_queue_size=7, output_queue_size=9
    )
    with Engine(config) as engine:
        yield engine


def test_the_status_of_an_engine_at_rest_is_complete(engine):
    status = engine.get_status()
    json.dumps(status)
    assert status["engine"] == {"is_running": True}
    components = status["components"]
    assert list(components) == ["input_queue", "output_queue", "process_pool"]
    for name, component in components.items():
        assert (component["name"], component["health"]) == (name, "healthy")
    assert components["input_queue"]["metrics"] == {
        "size": 0,
        "maxsize": 7,
        "fullness": 0.0,
        "total_put": 0,
        "total_dropped": 0,
    }
    assert components["output_queue"]["metrics"] == {
        "size": 0,
        "maxsize": 9,
        "fullness": 0.0,
        "total_put": 0,
        "total_get": 0,
    }
    pool = components["process_pool"]["metrics"]
    assert (pool["cpu_bound_workers"], pool["io_bound_workers"], pool["total_workers"]) == (2, 1, 3)
    assert (pool["cpu_active_threads"], pool["io_active_threads"], pool["total_active_threads"]) == (0, 0, 0)
    assert list(pool["cpu_worker_tasks"]) == ["cpu-0", "cpu-1"]
    assert list(pool["io_worker_tasks"]) == ["io-0"]
    worker = pool["io_worker_tasks"]["io-0"]
    assert {"active_tasks", "queue_size", "thread_pool_queue_size", "total_load"} <= worker.keys()


def test_the_status_of_a_busy_engine_tells_what_runs_and_what_waits(engine, tmp_path):
    gate = Gate(tmp_path)
    for _ in range(3):
        gate.hold(engine)
    for _ in range(2):
        engine.submit_task(gate.task())
    pool = engine.get_component_status("process_pool").metrics
    worker = pool["io_worker_tasks"]["io-0"]
    assert (pool["cpu_active_threads"], pool["io_active_threads"]) == (0, 3)
    assert worker["active_tasks"] == 3
    assert worker["total_load"] == 3 + worker["queue_size"] <= 5
    queue = engine.get_component_status("input_queue").metrics
    assert (queue["size"], queue["total_put"]) == (2, 5)
    gate.open()
    while len(engine.ended_tasks(60)) < 5:
        pass
    results = engine.get_component_status("output_queue").metrics
    assert (results["size"], results["total_put"], results["total_get"]) == (5, 5, 0)
    for task_id in engine.ended_tasks():
        assert engine.get_result(task_id).is_success
    results = engine.get_component_status("output_queue").metrics
    assert (results["size"], results["total_put"], results["total_get"]) == (0, 5, 5)


def test_a_component_that_there_is_not_has_no_status(engine):
    assert engine.get_component_status("coffee_machine") is None


@pytest.mark.parametrize("name", ["input_queue", "output_queue", "process_pool"])
def test_a_component_status_has_name_health_and_metrics(engine, name):
    status = engine.get_component_status(name)
    assert isinstance(status, ComponentStatus)
    assert status.name == name
    assert status.health == HealthStatus.HEALTHY == "healthy"
    assert status.is_healthy
    assert status.to_dict() == {"name": name, "health": "healthy", "metrics": status.metrics}


def test_an_engine_that_does_not_run_says_so_in_the_same_shape():
    engine = Engine(EngineConfig(io_bound_count=1))
    before = engine.get_status()
    with engine:
        assert run(engine, act()).is_success
    after = engine.get_status()
    for status in (before, after):
        assert status["engine"] == {"is_running": False}
        assert [part["health"] for part in status["components"].values()] == ["unhealthy"] * 3
        assert status["components"]["process_pool"]["metrics"]["total_workers"] == 0
    assert after["components"]["output_queue"]["metrics"]["total_get"] == 1

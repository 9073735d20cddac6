"""The text for Prometheus."""

from __future__ import annotations

import re

from engines import act, run

from miniflow import Engine, EngineConfig, Executor, _core


def value(text: str, name: str, **labels: str) -> float:
    """The value of the only series with these labels, others being as they may."""
    found = [
        float(number)
        for these, number in re.findall(rf"^{name}{{(.*)}} (\S+)$", text, re.MULTILINE)
        if all(f'{label}="{expected}"' in these.split(",") for label, expected in labels.items())
    ]
    assert len(found) == 1, (name, labels, found)
    return found[0]


def test_an_engine_tells_its_tasks_workers_and_times():
    with Engine(EngineConfig(cpu_bound_count=1, io_bound_count=2)) as engine:
        assert run(engine, act()).is_success
        text = engine.metrics_text()
        assert text.startswith("# HELP miniflow_")
        assert text.endswith("\n")
        assert value(text, "miniflow_tasks_submitted_total") == 1
        assert value(text, "miniflow_tasks_ended_total", outcome="completed") == 1
        assert value(text, "miniflow_workers", **{"class": "io"}, state="ready") == 2
        assert value(text, "miniflow_task_run_duration_seconds_count", **{"class": "io"}) == 1


def test_an_engine_that_does_not_run_has_no_metrics():
    engine = Engine(EngineConfig(cpu_bound_count=1))
    assert engine.metrics_text() == ""
    with engine:
        assert engine.metrics_text() != ""
    assert engine.metrics_text() == ""


def test_an_executor_has_metrics_from_its_first_call_to_its_end():
    executor = Executor(max_workers=1)
    assert executor.metrics_text() == ""
    with executor:
        assert list(executor.map(abs, [-1, -2])) == [1, 2]
        assert value(executor.metrics_text(), "miniflow_tasks_ended_total", outcome="completed") == 2
    assert executor.metrics_text() == ""


def test_a_text_longer_than_expected_comes_whole(monkeypatch):
    monkeypatch.setattr(_core, "_TEXT", 100)
    with Engine(EngineConfig(cpu_bound_count=1)) as engine:
        text = engine.metrics_text()
    assert len(text) > 1000
    assert text.endswith("\n")

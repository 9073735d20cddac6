"""EngineConfig: defaults, and values that cannot be."""

from __future__ import annotations

import os

import pytest

from miniflow import ConfigError, Engine, EngineConfig


def test_the_defaults_are_those_of_old():
    config = EngineConfig()
    assert config.input_queue_size == 1000
    assert config.output_queue_size == 10000
    assert config.cpu_bound_count == 1
    assert config.io_bound_count == max(1, os.cpu_count() - 1)
    assert config.cpu_bound_task_limit == 1
    assert config.io_bound_task_limit == 20
    assert config.log_level == "INFO"
    assert config.queue_poll_timeout == 1.0


def test_the_settings_of_old_can_be_given_by_position():
    config = EngineConfig(1, 2, 3, 4, 5, 6, "debug", 0.5)
    assert list(config.to_dict().values())[:8] == [1, 2, 3, 4, 5, 6, "DEBUG", 0.5]


@pytest.mark.parametrize(
    "wrong",
    [
        {"input_queue_size": 0},
        {"output_queue_size": 0},
        {"cpu_bound_count": 0},
        {"io_bound_count": -1},
        {"cpu_bound_task_limit": 0},
        {"io_bound_task_limit": 257},
        {"cpu_bound_count": 1.5},
        {"cpu_bound_count": True},
        {"cpu_bound_count": 600, "io_bound_count": 600},
        {"input_queue_size": 1 << 40},
        {"log_level": "LOUD"},
        {"queue_poll_timeout": 0},
        {"timeout": -1},
        {"start_timeout": None},
        {"preload": "numpy"},
        {"initializer": 5},
        {"memory_limit": 0},
        {"recycle_after": 0},
        {"max_payload": 0},
        {"max_result": 1 << 40},
    ],
    ids=str,
)
def test_a_value_that_cannot_be_is_a_value_error_that_names_the_setting(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))) as caught:
        EngineConfig(**wrong)
    assert isinstance(caught.value, ConfigError)


def test_new_settings_are_by_keyword_only():
    with pytest.raises(TypeError):
        EngineConfig(1, 2, 3, 4, 5, 6, "INFO", 1.0, 30.0)


def test_a_setting_that_was_changed_to_nonsense_is_refused_at_the_start():
    config = EngineConfig()
    config.cpu_bound_count = 0
    with pytest.raises(ValueError, match="cpu_bound_count"):
        Engine(config).start()


def test_an_engine_has_the_name_it_is_given_or_one_of_its_own_or_none():
    chosen = f"test-python-{os.getpid()}"
    cases = {chosen: chosen, None: f"-{os.getpid()}", "": None}
    for name, expected in cases.items():
        engine = Engine(EngineConfig(cpu_bound_count=1, io_bound_count=1, name=name))
        assert engine.name is None
        with engine:
            if name is None:
                assert expected in (engine.name or "")
            else:
                assert engine.name == expected
        assert engine.name is None

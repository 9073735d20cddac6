"""``python -m miniflow.bench``: that it measures everything and says what it found, not how fast that is."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from miniflow.bench.__main__ import BENCHES
from miniflow.bench.measure import Spread, interleave, rate, spread
from miniflow.bench.row import Row, Target, compare


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "miniflow.bench", *words],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )


@pytest.mark.parametrize("name", BENCHES)
def test_a_benchmark_gives_rows_with_figures_and_verdicts(name: str) -> None:
    done = run("--quick", "--json", "--only", name)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["failures"] == []
    assert 0 <= report["machine"]["others_percent"] <= 100
    assert report["rows"]
    for row in report["rows"]:
        if row["skipped"]:
            assert row["verdict"] == "skipped"
            continue
        assert row["verdict"] in ("ok", "missed")
        assert len(row["sides"]) >= 2, "there is something to compare with"
        for side in row["sides"].values():
            assert 0 <= side["low"] <= side["median"] <= side["high"]


def test_no_task_of_the_executor_hangs_or_is_lost_with_a_killed_worker() -> None:
    report = json.loads(run("--quick", "--json", "--only", "kill").stdout)
    busy, idle = report["rows"]
    assert busy["verdict"] == idle["verdict"] == "ok", report


def test_the_text_names_the_machine_the_rows_and_a_summary() -> None:
    done = run("--quick", "--only", "round_trip")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("python -m miniflow.bench --quick --only round_trip, 20")
    assert any(line.startswith("round_trip: ") for line in lines)
    assert lines[-1] in ("1 ok", "0 ok, 1 missed (round_trip)")


@pytest.mark.parametrize("words", [("--only", "nonsense"), ("--rounds", "4"), ("--rounds", "x")])
def test_wrong_arguments_are_refused(words: tuple[str, str]) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert words[0] in done.stderr


def test_the_sides_of_a_comparison_take_turns() -> None:
    order: list[str] = []

    def side(name: str) -> float:
        order.append(name)
        return float(len(order))

    found = interleave(3, {"a": lambda: side("a"), "b": lambda: side("b")})
    assert order == ["a", "b"] * 3
    assert found == {"a": [1, 3, 5], "b": [2, 4, 6]}


def test_the_ratio_is_the_median_of_the_rounds_ratios_and_not_that_of_the_medians() -> None:
    row = compare("x", "x", "us", {"ours": [1.0, 10.0, 30.0], "theirs": [10.0, 1.0, 2.0]}, Target(10))
    assert row.ratios["theirs"] == Spread(10.0, 0.1, 15.0)
    assert row.sides["ours"] == Spread(10.0, 1.0, 30.0)
    assert row.verdict == "ok"


def test_a_figure_on_the_wrong_side_of_its_target_is_a_miss() -> None:
    ours = {"ours": spread([5.0])}
    assert Row("x", "x", "us", ours, target=Target(4, at_least=False, of_ratio=False)).verdict == "missed"
    assert Row("x", "x", "us", ours, target=Target(6, at_least=False, of_ratio=False)).verdict == "ok"
    assert Row("x", "x", "us", ours, target=Target(6, of_ratio=False)).verdict == "missed"
    assert Row("x", "x", "us", ours, target=Target(6), skipped="no reason").verdict == "skipped"


def test_a_rate_counts_what_its_bursts_say() -> None:
    bursts: list[int] = []

    def burst() -> int:
        bursts.append(7)
        return 7

    measured = rate(burst, 0.01)
    assert 0 < measured <= sum(bursts) / 0.01

"""The examples, as their readers run them: each checks its own result."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "python"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))


def run(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    if name == "numpy_images":
        pytest.importorskip("numpy")
    if name not in ("submit_get_status", "workflow", "manager"):
        pytest.importorskip("cloudpickle")  # their functions are in the main module
    return subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_there_are_as_many_examples_as_the_documentation_says() -> None:
    assert NAMES == [
        "asyncio_service",
        "batch_progress",
        "executor_swap",
        "manager",
        "numpy_images",
        "submit_get_status",
        "workflow",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_an_example_ends_well_and_says_so(name: str) -> None:
    done = run(name)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "ok", done.stdout


def test_the_progress_of_a_batch_is_shown_on_stderr() -> None:
    done = run("batch_progress", str(EXAMPLES))
    assert f"hashing: {len(NAMES)}/{len(NAMES)}, 100 %, 0 failed" in done.stderr, done.stderr


def test_the_program_with_one_line_changed_back_runs_on_the_standard_library() -> None:
    done = run("executor_swap", "--standard")
    assert done.returncode == 0, done.stderr
    assert "the longest way to 1 from below 2001: 181 steps" in done.stdout


def test_no_example_is_longer_than_a_page_or_two() -> None:
    for name in NAMES:
        assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) <= 90, name

"""What a script is told of its task."""

from __future__ import annotations

from typing import Any

import pytest

from miniflow._worker.context import Context


def test_a_context_made_by_hand_is_never_cancelled_and_nobody_hears_of_its_progress() -> None:
    context = Context("id")
    context.progress(1, 2)
    assert (context.task_id, context.worker_id, context.attempt, context.cancelled) == (
        "id",
        "io-0",
        1,
        False,
    )


def test_cancelled_asks_each_time() -> None:
    answers = [False, True]
    context = Context("id", cancelled=lambda: answers.pop(0))
    assert [context.cancelled, context.cancelled] == [False, True]


def test_progress_without_a_total_reports_zero_as_the_total() -> None:
    reports: list[tuple[int, int]] = []
    context = Context("id", progress=lambda done, total: reports.append((done, total)))
    context.progress(3)
    context.progress(3, 10)
    assert reports == [(3, 0), (3, 10)]


@pytest.mark.parametrize(("done", "total"), [(-1, 2), (1, -2), (1 << 64, None), (0, 1 << 64)])
def test_progress_that_is_out_of_range_is_refused(done: int, total: int | None) -> None:
    with pytest.raises(ValueError, match="whole numbers from 0"):
        Context("id").progress(done, total)


def test_progress_in_fractions_is_refused() -> None:
    half: Any = 0.5
    with pytest.raises(TypeError):
        Context("id").progress(half, 1)


def test_a_context_says_what_it_is_of() -> None:
    assert repr(Context("id", "cpu-2", 3)) == "Context(task_id='id', worker_id='cpu-2', attempt=3)"

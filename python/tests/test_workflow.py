"""The graph of a workflow: what is refused, what becomes ready when, and at what cost."""

from __future__ import annotations

import itertools
import time

import pytest

from miniflow.errors import TaskError
from miniflow.tasks import Task
from miniflow.workflow import Workflow


def task(*dependencies: Task, params: object = None) -> Task:
    return Task.create("step.py", params, dependencies=[d.id for d in dependencies])


def test_tasks_become_ready_when_all_that_they_wait_for_has_completed():
    a, b = task(), task()
    c = task(a, b, params={"own": 1})
    workflow = Workflow([c, a, b])
    assert workflow.ready() == [a, b]
    assert workflow.completed(a.id, "A") == []
    assert workflow.completed(b.id, "B") == [c]
    assert workflow.params(c) == {"own": 1, "upstream_results": {a.id: "A", b.id: "B"}}
    assert workflow.completed(c.id, None) == []
    assert workflow.ids() == []


def test_params_of_the_submitter_are_left_as_they_are():
    a = task()
    b = task(a, params={"own": 1})
    workflow = Workflow([a, b])
    workflow.completed(a.id, 5)
    assert workflow.params(b)["upstream_results"] == {a.id: 5}
    assert b.params == {"own": 1}


def test_a_dependency_named_twice_counts_once():
    a = task()
    b = Task.create("step.py", dependencies=[a.id, a.id])
    workflow = Workflow([a, b])
    assert workflow.completed(a.id, 1) == [b]


def test_a_completion_that_is_told_twice_frees_nothing_twice():
    a = task()
    b = task(a)
    workflow = Workflow([a, b])
    assert workflow.completed(a.id, 1) == [b]
    assert workflow.completed(a.id, 1) == []


def test_a_failed_task_takes_all_its_dependents_along_and_nothing_else():
    a, other = task(), task()
    b = task(a)
    c = task(b, other)
    d = task(other)
    workflow = Workflow([a, b, c, d, other])
    assert workflow.failed(a.id) == [b, c]
    assert workflow.completed(other.id, 0) == [d]
    assert workflow.failed(a.id) == []


def test_a_cycle_is_refused_with_the_names_of_its_tasks():
    outside = task()
    first = task(outside)
    second = task(first)
    third = task(second)
    behind = task(third)
    first.dependencies = [outside.id, third.id]
    with pytest.raises(TaskError, match="cycle") as caught:
        Workflow([outside, first, second, third, behind])
    text = str(caught.value)
    assert caught.value.code == "TASK006"
    assert all(one.id in text for one in (first, second, third))
    assert outside.id not in text
    assert behind.id not in text
    # From each task to one that waits for it.
    ring = text.split("cycle: ")[1].split(" -> ")
    assert ring[0] == ring[-1]
    ids = [label.split(" ")[0] for label in ring]
    edges = {(first.id, second.id), (second.id, third.id), (third.id, first.id)}
    assert set(itertools.pairwise(ids) if hasattr(itertools, "pairwise") else zip(ids, ids[1:])) == edges


def test_a_task_that_waits_for_itself_is_a_cycle():
    a = task()
    a.dependencies = [a.id]
    with pytest.raises(TaskError, match=f"{a.id}.* -> {a.id}"):
        Workflow([a])


def test_an_unknown_dependency_is_refused_with_both_names():
    stranger = task()
    a = task(stranger)
    with pytest.raises(TaskError, match=stranger.id) as caught:
        Workflow([a])
    assert caught.value.task_id == a.id


def test_two_tasks_of_one_id_are_refused():
    a = task()
    with pytest.raises(TaskError, match="two tasks"):
        Workflow([a, a])


def test_params_that_have_no_room_for_results_are_refused_before_anything_runs():
    a = task()
    b = task(a, params=[1])
    with pytest.raises(TaskError, match="list"):
        Workflow([a, b])


@pytest.mark.parametrize("shape", ["chain", "star", "layers"])
def test_the_cost_is_proportional_to_the_edges(shape: str):
    def run(size: int) -> float:
        tasks = [task() for _ in range(size)]
        for at, one in enumerate(tasks[1:], 1):
            if shape == "chain":
                one.dependencies = [tasks[at - 1].id]
            elif shape == "star":
                one.dependencies = [tasks[0].id]
            elif at >= 10:
                layer = at - at % 10
                one.dependencies = [tasks[before].id for before in range(layer - 10, layer)]
        began = time.perf_counter()
        workflow = Workflow(tasks)
        ready = workflow.ready()
        ended = 0
        while ready:
            one = ready.pop()
            workflow.params(one)
            ready += workflow.completed(one.id, at)
            ended += 1
        assert ended == size
        return time.perf_counter() - began

    # Eight times the tasks in about eight times the time; quadratic would be 64 times.
    small = min(run(2_000) for _ in range(3))
    large = min(run(16_000) for _ in range(3))
    assert large < 24 * small

"""Workflows in a running engine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from miniflow import Engine, EngineConfig, Result, Task, TaskError, TaskStatus

STEP = """
import os, signal

def main(params, context):
    up = params.get("upstream_results", {})
    if params.get("fail"):
        raise ValueError("broken step")
    if params.get("die"):
        os.kill(os.getpid(), signal.SIGKILL)
    return params.get("add", 0) + sum(up.values())
"""


@pytest.fixture(scope="module")
def step(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("workflow") / "step.py"
    path.write_text(STEP)
    return str(path)


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine(EngineConfig(cpu_bound_count=1, io_bound_count=1, io_bound_task_limit=2)) as engine:
        yield engine


def take(engine: Engine, task_id: str) -> Result:
    result = engine.get_result(task_id, timeout=60)
    assert result is not None
    return result


def test_results_flow_downstream(engine: Engine, step: str):
    left, right = Task.create(step, {"add": 1}), Task.create(step, {"add": 2})
    both = Task.create(step, {"add": 10}, dependencies=[left.id, right.id])
    last = Task.create(step, {"add": 100}, dependencies=[both.id, left.id])
    ids = engine.submit_workflow([last, both, left, right])
    assert ids == [last.id, both.id, left.id, right.id]
    assert [take(engine, one).data for one in ids] == [114, 13, 1, 2]


def test_a_failed_task_fails_all_its_dependents_with_the_cause_and_no_others(engine: Engine, step: str):
    bad, good = Task.create(step, {"fail": True}), Task.create(step, {"add": 1})
    child = Task.create(step, dependencies=[bad.id, good.id])
    grandchild = Task.create(step, dependencies=[child.id])
    other = Task.create(step, {"add": 1}, dependencies=[good.id])
    engine.submit_workflow([bad, good, child, grandchild, other])
    for lost in (child, grandchild):
        result = take(engine, lost.id)
        assert result.status is TaskStatus.FAILED
        assert bad.id in str(result.error)
        assert "broken step" in str(result.error)
        assert result.attempt == 0
    assert take(engine, other.id).data == 2
    assert "broken step" in str(take(engine, bad.id).error)


def test_a_killed_task_fails_its_dependents_naming_the_signal(engine: Engine, step: str):
    bad = Task.create(step, {"die": True}, max_retries=0)
    child = Task.create(step, dependencies=[bad.id])
    engine.submit_workflow([bad, child])
    assert "SIGKILL" in str(take(engine, child.id).error)


def test_a_cycle_is_refused_at_once_and_nothing_runs(engine: Engine, step: str):
    free = Task.create(step)
    one = Task.create(step, dependencies=[free.id])
    two = Task.create(step, dependencies=[one.id])
    one.dependencies.append(two.id)
    with pytest.raises(TaskError, match="cycle") as caught:
        engine.submit_workflow([free, one, two])
    assert caught.value.code == "TASK006"
    assert engine.get_status()["components"]["input_queue"]["metrics"]["total_put"] == 0


def test_an_unknown_dependency_is_refused_at_once(engine: Engine, step: str):
    lost = Task.create(step)
    with pytest.raises(TaskError, match=lost.id):
        engine.submit_workflow([Task.create(step, dependencies=[lost.id])])


def test_cancelling_a_waiting_task_cancels_it_and_fails_its_dependents(
    engine: Engine, tmp_path: Path, step: str
):
    gate = tmp_path / "gate"
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import os, time\n"
        "def main(params, context):\n"
        "    while not os.path.exists(params['gate']):\n"
        "        time.sleep(0.002)\n"
        "    return 1\n"
    )
    first = Task.create(str(slow), {"gate": str(gate)})
    second = Task.create(step, dependencies=[first.id])
    third = Task.create(step, dependencies=[second.id])
    engine.submit_workflow([first, second, third])
    assert engine.cancel_task(second.id)
    assert take(engine, second.id).status is TaskStatus.CANCELLED
    assert "cancelled" in str(take(engine, third.id).error)
    gate.touch()
    assert take(engine, first.id).data == 1


def test_a_shut_down_engine_has_a_result_for_every_task(tmp_path: Path, step: str):
    slow = tmp_path / "slow.py"
    slow.write_text("import time\ndef main(params, context):\n    time.sleep(600)\n")
    engine = Engine(EngineConfig(cpu_bound_count=1, io_bound_count=1))
    engine.start()
    first = Task.create(str(slow))
    rest = [Task.create(step, dependencies=[first.id]) for _ in range(10)]
    ids = engine.submit_workflow([first, *rest])
    engine.shutdown(timeout=0.1)
    results = [take(engine, one) for one in ids]
    assert all(result.status is not TaskStatus.COMPLETED for result in results)


def test_thousands_of_tasks_in_any_shape_are_taken_and_run_once(engine: Engine, step: str):
    source = Task.create(step, {"add": 1})
    wide = [Task.create(step, {"add": 1}, dependencies=[source.id]) for _ in range(3000)]
    sink = Task.create(step, dependencies=[one.id for one in wide])
    chain = [sink]
    for _ in range(1000):
        chain.append(Task.create(step, {"add": 1}, dependencies=[chain[-1].id]))
    ids = engine.submit_workflow([source, *wide, *chain])
    assert take(engine, chain[-1].id).data == 2 * 3000 + 1000
    for one in ids[:-1]:
        assert take(engine, one).is_success
    # The input queue is not narrowed by what waited for other tasks.
    assert take(engine, engine.submit_task(Task.create(step, {"add": 7}))).data == 7


def test_a_workflow_goes_on_while_nobody_waits_for_it(engine: Engine, tmp_path: Path):
    mark = tmp_path / "mark"
    script = tmp_path / "touch.py"
    script.write_text("def main(params, context):\n    open(params['mark'], 'a').write('x')\n")
    chain = [Task.create(str(script), {"mark": str(mark)})]
    for _ in range(20):
        chain.append(Task.create(str(script), {"mark": str(mark)}, dependencies=[chain[-1].id]))
    engine.submit_workflow(chain)
    written = threading.Event()

    def look() -> None:
        while not (mark.exists() and mark.stat().st_size == 21):
            if written.wait(0.005):
                return
        written.set()

    looker = threading.Thread(target=look)
    looker.start()
    try:
        assert written.wait(60)
    finally:
        written.set()
        looker.join()


def test_an_id_that_is_in_the_engine_already_is_refused(engine: Engine, step: str):
    task = Task.create(step)
    engine.submit_workflow([task])
    with pytest.raises(TaskError) as caught:
        engine.submit_workflow([Task.create(step), task])
    assert caught.value.code == "TASK005"


@pytest.mark.parametrize("spoil", ["params", "timeout"])
def test_a_task_that_cannot_be_submitted_any_more_fails_and_other_workflows_go_on(
    engine: Engine, step: str, spoil: str
):
    first = Task.create(step, {"add": 1})
    second = Task.create(step, dependencies=[first.id])
    third = Task.create(step, dependencies=[second.id])
    if spoil == "timeout":
        second.timeout = float("nan")
    engine.submit_workflow([first, second, third])
    if spoil == "params":
        second.params = [1]
    results = [take(engine, one.id) for one in (first, second, third)]
    assert [result.is_success for result in results][::2] == [True, results[1].is_success]
    assert results[1].is_success or "could not be submitted" in str(results[1].error)
    more = engine.submit_workflow([Task.create(step, {"add": 5})])
    assert take(engine, more[0]).data == 5


def test_scripts_are_where_they_were_when_their_workflow_was_submitted(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    gate = tmp_path / "gate"
    (tmp_path / "wait.py").write_text(
        "import os, time\n"
        "def main(params, context):\n"
        "    while not os.path.exists(params['gate']):\n"
        "        time.sleep(0.002)\n"
        "    return 1\n"
    )
    monkeypatch.chdir(tmp_path)
    first = Task.create("wait.py", {"gate": str(gate)})
    second = Task.create("wait.py", {"gate": str(gate)}, dependencies=[first.id])
    engine.submit_workflow([first, second])
    monkeypatch.chdir("/")
    gate.touch()
    assert take(engine, second.id).data == 1

"""Workflows: tasks that wait for the results of other tasks, as a directed acyclic graph.

Only the graph and its bookkeeping, each step in time proportional to the edges that it touches; the
engine does the running.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .errors import TaskError
from .tasks import Task

_BAD_GRAPH = "TASK006"
# Names in a message about many tasks.
_SHOWN = 8


class Workflow:
    """The tasks of one workflow that have not ended, and what each still waits for.

    Raises :class:`TaskError` (TASK006), which names the tasks, if there are two of one id, a
    dependency that is not among them, or a cycle. A task without dependencies may have params of any
    kind; one with some must have a dict (or None), for ``upstream_results`` is put into it.
    """

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._tasks: dict[str, Task] = {}
        for task in tasks:
            if task.id in self._tasks:
                raise TaskError(f"two tasks of the workflow have the id {task.id}", _BAD_GRAPH, task.id)
            self._tasks[task.id] = task
        self._missing: dict[str, int] = {}
        self._dependents: dict[str, list[str]] = {name: [] for name in self._tasks}
        self._results: dict[str, dict[str, Any]] = {}
        for name, task in self._tasks.items():
            self._connect(name, task)
        self._refuse_cycles()

    def _connect(self, name: str, task: Task) -> None:
        wanted = dict.fromkeys(task.dependencies)  # each once, in their order
        unknown = [dependency for dependency in wanted if dependency not in self._tasks]
        if unknown:
            raise TaskError(
                f"task {_label(task)} depends on {_list(unknown)}, which the workflow does not have",
                _BAD_GRAPH,
                name,
            )
        if wanted and not (task.params is None or isinstance(task.params, dict)):
            raise TaskError(
                f"task {_label(task)} has dependencies, and params of the type "
                f"{type(task.params).__name__}: upstream_results needs a dict",
                _BAD_GRAPH,
                name,
            )
        self._missing[name] = len(wanted)
        for dependency in wanted:
            self._dependents[dependency].append(name)

    def _refuse_cycles(self) -> None:
        """Kahn's algorithm: what cannot be removed, leaf by leaf, is in a cycle or behind one."""
        missing = dict(self._missing)
        free = [name for name, count in missing.items() if count == 0]
        while free:
            name = free.pop()
            del missing[name]
            for dependent in self._dependents[name]:
                missing[dependent] -= 1
                if missing[dependent] == 0:
                    free.append(dependent)
        if missing:
            cycle = self._cycle(missing)
            path = " -> ".join(_label(self._tasks[name]) for name in [*cycle, cycle[0]])
            raise TaskError(f"the workflow has a cycle: {path}", _BAD_GRAPH, cycle[0])

    def _cycle(self, among: dict[str, int]) -> list[str]:
        """One cycle, each task followed by one that waits for it. Everything in `among` waits for
        something in `among`, so walking from one to what it waits for comes back somewhere."""
        seen: dict[str, int] = {}
        walk: list[str] = []
        name = next(iter(among))
        while name not in seen:
            seen[name] = len(walk)
            walk.append(name)
            name = next(d for d in self._tasks[name].dependencies if d in among)
        return walk[seen[name] :][::-1]

    @property
    def is_over(self) -> bool:
        """Whether all tasks have ended."""
        return not self._tasks

    def tasks(self) -> list[Task]:
        """The tasks that have not ended, in the order in which they were given."""
        return list(self._tasks.values())

    def ids(self) -> list[str]:
        """The ids of the tasks that have not ended, in the order in which they were given."""
        return list(self._tasks)

    def ready(self) -> list[Task]:
        """The tasks that wait for nothing, at the start."""
        return [self._tasks[name] for name, count in self._missing.items() if count == 0]

    def params(self, task: Task) -> Any:
        """The params that a ready task is to be run with."""
        results = self._results.pop(task.id, None)
        if results is None:
            return task.params
        return {**(task.params or {}), "upstream_results": results}

    def completed(self, name: str, data: Any) -> list[Task]:
        """Takes the result of a task, and tells which others are ready because of it."""
        if self._tasks.pop(name, None) is None:
            return []
        freed = []
        for dependent in self._dependents.pop(name):
            if dependent not in self._tasks:
                continue  # failed with another dependency
            self._results.setdefault(dependent, {})[name] = data
            self._missing[dependent] -= 1
            if self._missing[dependent] == 0:
                freed.append(self._tasks[dependent])
        return freed

    def failed(self, name: str) -> list[Task]:
        """Takes the failure of a task, and tells which others cannot run because of it: all that
        depend on it, near and far, nearest first."""
        if self._tasks.pop(name, None) is None:
            return []
        lost: list[Task] = []
        layer = [name]
        while layer:
            following = []
            for gone in layer:
                for dependent in self._dependents.pop(gone):
                    task = self._tasks.pop(dependent, None)
                    if task is not None:
                        self._results.pop(dependent, None)
                        lost.append(task)
                        following.append(dependent)
            layer = following
        return lost


def _label(task: Task) -> str:
    return f"{task.id} ({task.script_path})"


def _list(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"

"""A workflow: split a text, count the words of its parts side by side, add up the counts.

    split -> count 0 -\
          -> count 1 --> merge
          -> count 2 -/

Each script finds what those before it returned in params["upstream_results"], by task id.
"""

import collections
import re
import sys
from pathlib import Path

from miniflow import Engine, EngineConfig, Task, TaskError, TaskType

HERE = Path(__file__).resolve().parent
PARTS = 3


def task(script: str, params: dict[str, object], *after: Task) -> Task:
    path = str(HERE / "scripts" / script)
    return Task.create(path, params, TaskType.CPU_BOUND, dependencies=[one.id for one in after])


def main() -> None:
    text = sys.argv[1] if len(sys.argv) > 1 else collections.__file__
    split = task("split_text.py", {"file": text, "parts": PARTS})
    counts = [task("count_part.py", {"part": part}, split) for part in range(PARTS)]
    merge = task("merge_counts.py", {}, *counts)

    with Engine(EngineConfig(cpu_bound_count=2)) as engine:
        ids = engine.submit_workflow([merge, split, *counts])  # in any order
        result = engine.get_result(merge.id, timeout=30)
        assert result is not None
        assert result.is_success, result.error
        words = collections.Counter(result.data)
        print(f"{len(ids)} tasks; the most frequent words of {text}: {words.most_common(3)}")
        with open(text, encoding="utf-8", errors="replace") as file:
            assert words == collections.Counter(re.findall(r"[a-z]+", file.read().lower()))

        # A task that fails fails those that wait for it, and they say why.
        broken = task("split_text.py", {"file": "/nowhere/at/all", "parts": PARTS})
        waiting = task("count_part.py", {"part": 0}, broken)
        engine.submit_workflow([broken, waiting])
        result = engine.get_result(waiting.id, timeout=30)
        assert result is not None
        assert not result.is_success
        print(f"failed as it should: {result.error}")
        assert broken.id in result.error

        # A cycle is refused before anything runs.
        first, second = task("count_part.py", {}), task("count_part.py", {})
        first.dependencies, second.dependencies = [second.id], [first.id]
        try:
            engine.submit_workflow([first, second])
        except TaskError as error:
            print(f"refused as it should be: {error}")
        else:
            raise AssertionError("a cycle was accepted")
    print("ok")


if __name__ == "__main__":
    main()

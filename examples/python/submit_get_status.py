"""Submit script tasks, look at the engine's status, get the results.

Programs written for `cpu_load_balancer` look like this one; they run unchanged with the old imports.
"""

from pathlib import Path

from miniflow import Engine, EngineConfig, Task, TaskType

HERE = Path(__file__).resolve().parent
SCRIPT = str(HERE / "scripts" / "count_words.py")


def main() -> None:
    config = EngineConfig(cpu_bound_count=1, io_bound_count=1, io_bound_task_limit=4)
    with Engine(config) as engine:
        files = sorted(HERE.glob("*.py"))
        submitted = {}
        for file in files:
            task = Task.create(script_path=SCRIPT, params={"file": str(file)}, task_type=TaskType.IO_BOUND)
            submitted[engine.submit_task(task)] = file

        status = engine.get_status()
        pool = status["components"]["process_pool"]["metrics"]
        print(f"running: {status['engine']['is_running']}, workers: {pool['total_workers']}")
        assert pool["total_workers"] == 2

        for task_id, file in submitted.items():
            result = engine.get_result(task_id, timeout=30)
            assert result is not None, "it did not end in time"
            assert result.is_success, result.error
            print(f"{file.name}: {result.data['words']} words in {result.duration * 1000:.1f} ms")
            assert result.data["words"] > 20

        # What a script raises comes back as text, and costs nothing but its own task.
        missing = engine.submit_task(Task.create(SCRIPT, {"file": "/nowhere/at/all"}))
        result = engine.get_result(missing, timeout=30)
        assert result is not None
        assert not result.is_success
        print(f"failed as it should: {result.error_details['type']}: {result.error}")
        assert result.error_details["type"] == "FileNotFoundError"
        assert engine.get_result(missing, timeout=0) is None, "a result is taken once"
    print("ok")


if __name__ == "__main__":
    main()

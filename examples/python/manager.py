"""`Manager`: dictionaries in, the same dictionaries with their results out, in bulk."""

import time
from pathlib import Path

from miniflow.parallelism_engine import Manager

SCRIPT = str(Path(__file__).resolve().parent / "scripts" / "square_module.py")
COUNT = 100


def main() -> None:
    manager = Manager()
    try:
        items = [{"script_path": SCRIPT, "context": {"number": n}} for n in range(-1, COUNT - 1)]
        assert manager.put_items_bulk(items)  # starts the workers
        done: list[dict] = []
        deadline = time.monotonic() + 30
        while len(done) < COUNT and time.monotonic() < deadline:
            done += manager.get_output_items_bulk(max_items=25, timeout=0.1)
        print(f"{len(done)} items are back; input queue: {manager.input_queue.get_stats()}")
    finally:
        manager.shutdown()

    assert len(done) == COUNT
    squares = {
        item["context"]["number"]: item["result_data"]["square"]
        for item in done
        if item["status"] == "success"
    }
    assert squares == {n: n * n for n in range(COUNT - 1)}
    (failed,) = [item for item in done if item["status"] == "failed"]
    error = failed["error_message"]
    print(f"failed as it should: {error['type']}: {error['error']}")
    assert error["error"] == "-1 is negative"
    print("ok")


if __name__ == "__main__":
    main()

"""Hash many files in worker processes, with a progress bar on stderr.

    python batch_progress.py [DIRECTORY]      by default Python's own library
"""

import hashlib
import sys
import sysconfig
from pathlib import Path

from miniflow import Engine, EngineConfig


def digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def main() -> None:
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else sysconfig.get_path("stdlib"))
    files = sorted(str(path) for path in directory.glob("*.py"))
    assert files, f"no Python files in {directory}"
    with Engine(EngineConfig(cpu_bound_count=2)) as engine:
        # 8 calls travel together; the results come in the order of the files.
        digests = list(engine.map(digest, files, chunksize=8, progress="hashing"))
        assert digests == [digest(path) for path in files]

        # One bad file ends the run, unless its exception is asked for in the place of its value.
        outcomes = list(engine.map(digest, [files[0], "/nowhere/at/all"], return_exceptions=True))
        assert outcomes[0] == digests[0]
        assert isinstance(outcomes[1], FileNotFoundError)
    print(f"{len(files)} files in {directory}, {len(set(digests))} different")
    print("ok")


if __name__ == "__main__":
    main()

"""A program for `concurrent.futures.ProcessPoolExecutor`, with one line changed.

    python executor_swap.py               miniflow
    python executor_swap.py --standard    the standard library
"""

import os
import signal
import sys
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed

from miniflow import Executor

PoolExecutor = ProcessPoolExecutor if "--standard" in sys.argv else Executor
CALLS = 200


def collatz(start: int) -> int:
    steps = 0
    while start != 1:
        start = start // 2 if start % 2 == 0 else 3 * start + 1
        steps += 1
    return steps


def fall(start: int) -> int:
    """As `collatz`, but one number takes its worker with it."""
    if start == 77:
        os.kill(os.getpid(), signal.SIGKILL)
    return collatz(start)


def main() -> None:
    with PoolExecutor(max_workers=2) as executor:
        lengths = list(executor.map(collatz, range(1, 2001), chunksize=50))
        assert max(lengths) == 181
        assert lengths[26] == 111
        print(f"the longest way to 1 from below 2001: {max(lengths)} steps, from {lengths.index(181) + 1}")

        futures, failed = {}, {}
        try:
            for start in range(1, CALLS + 1):
                futures[executor.submit(fall, start)] = start
        except BrokenExecutor as error:
            print(f"no more calls are taken: {error}")
        for future in as_completed(futures):
            if future.exception() is not None:
                failed[futures[future]] = future.exception()
    print(f"a worker was killed: {len(futures) - len(failed)} of {CALLS} calls succeeded")
    print(f"the first that failed: {next(iter(failed.values()))}")
    if PoolExecutor is Executor:
        assert list(failed) == [77]
    else:
        assert 77 in failed
    print("ok")


if __name__ == "__main__":
    main()

"""Executor in whole programs: what is defined in __main__, how a program ends, forks of it."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import processes
import pytest

TIMEOUT = 120.0

needs_cloudpickle = pytest.mark.skipif(
    importlib.util.find_spec("cloudpickle") is None, reason="functions of __main__ need cloudpickle"
)


def run(*command: str, stdin: str = "", directory: Path | None = None) -> str:
    """Runs a Python program; its output, if it ends well and says nothing on stderr."""
    ended = subprocess.run(
        [sys.executable, *command],
        input=stdin,
        capture_output=True,
        text=True,
        cwd=directory,
        timeout=TIMEOUT,
        check=False,
    )
    errors = [line for line in ended.stderr.splitlines() if line.strip() and not line.startswith(">>>")]
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert not errors, ended.stderr
    return ended.stdout


def script(directory: Path, text: str) -> str:
    path = directory / "program.py"
    path.write_text(textwrap.dedent(text))
    return run(str(path), directory=directory)


MAIN = """
import threading
from dataclasses import dataclass
from enum import Enum
from miniflow import Executor

FACTOR = 3

def helper(x):
    return x * FACTOR

def times(x):
    return helper(x)

class Point:
    created = 0
    def __init__(self, x, y):
        self.x, self.y = x, y
    def moved(self, by):
        return Point(self.x + by, self.y + by)

@dataclass
class Pair:
    a: int
    b: int

class Colour(Enum):
    RED = 1

class Failure(Exception):
    def __init__(self, text):
        super().__init__(text)

def fail(text):
    raise Failure(text)

def mirror(value):
    return value

def adder(n):
    return lambda x: x + n

counter = 0
def count():
    global counter
    counter += 1
    return counter
"""


@needs_cloudpickle
def test_functions_lambdas_closures_and_classes_of_a_script_can_be_sent(tmp_path: Path) -> None:
    out = script(
        tmp_path,
        MAIN
        + textwrap.dedent(
            """
            if __name__ == "__main__":
                with Executor(1) as executor:
                    assert executor.submit(times, 5).result() == 15
                    assert executor.submit(lambda: FACTOR).result() == 3
                    assert executor.submit(adder(4), 5).result() == 9
                    assert list(executor.map(times, range(5), chunksize=2)) == [0, 3, 6, 9, 12]
                    point = executor.submit(Point, 1, 2).result()
                    assert type(point) is Point and (point.x, point.y) == (1, 2)
                    Point.created = 5
                    moved = executor.submit(point.moved, 1).result()
                    assert type(moved) is Point and (moved.x, moved.y) == (2, 3)
                    assert Point.created == 5, Point.created
                    assert isinstance(moved.moved(1), Point)
                    pair = executor.submit(mirror, Pair(1, 2)).result()
                    assert type(pair) is Pair and pair == Pair(1, 2)
                    assert executor.submit(mirror, Colour.RED).result() is Colour.RED
                    assert executor.submit(mirror, Point).result() is Point
                    try:
                        executor.submit(fail, "it fails").result()
                    except Failure as error:
                        assert str(error) == "it fails"
                        assert "in fail" in str(error.__cause__), error.__cause__
                    else:
                        raise AssertionError("no failure")
                    print("well")
            """
        ),
    )
    assert out == "well\n"


@needs_cloudpickle
def test_a_function_of_a_script_keeps_its_globals_in_a_worker(tmp_path: Path) -> None:
    out = script(
        tmp_path,
        MAIN
        + textwrap.dedent(
            """
            with Executor(1) as executor:
                print([executor.submit(count).result() for _ in range(3)], counter)
            """
        ),
    )
    assert out == "[1, 2, 3] 0\n"


@needs_cloudpickle
def test_functions_can_be_sent_from_a_command_line(tmp_path: Path) -> None:
    text = "from miniflow import Executor\ndef f(x):\n    return x + y\ny = 2\nwith Executor(1) as e:\n"
    text += "    print(e.submit(f, 1).result(), e.submit(lambda: y).result())\n"
    assert run("-c", text, directory=tmp_path) == "3 2\n"
    assert run("-", stdin=text, directory=tmp_path) == "3 2\n"


@needs_cloudpickle
@pytest.mark.parametrize("as_script", [False, True])
def test_a_session_at_a_prompt_may_redefine_what_it_sends(tmp_path: Path, as_script: bool) -> None:
    start = tmp_path / "start.py"
    start.write_text("import sys\nsys.ps1 = ''\nsys.ps2 = ''\nfrom miniflow import Executor\n")
    session = textwrap.dedent(
        """
        e = Executor(1)
        y = 1
        def f():
            return y

        e.submit(f).result()
        y = 2
        e.submit(f).result()
        def f():
            return "new"

        e.submit(f).result()
        e.shutdown()
        """
    )
    if as_script:
        command = ["-q", "-i", str(start)]
    else:
        command = ["-q", "-i", "-c", start.read_text()]
    assert run(*command, stdin=session, directory=tmp_path).split() == ["1", "2", "'new'"]


def test_a_module_beside_the_script_can_be_imported_by_workers(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("def double(x):\n    return 2 * x\n")
    out = script(
        tmp_path,
        """
        import beside
        from miniflow import Executor
        with Executor(1) as executor:
            print(executor.submit(beside.double, 4).result())
        """,
    )
    assert out == "8\n"


@pytest.mark.parametrize("ending", ["", "sys.exit(0)", "executor.shutdown(wait=False)", "del executor"])
def test_what_was_submitted_ends_before_the_program_does(tmp_path: Path, ending: str) -> None:
    (tmp_path / "work.py").write_text(
        "import time\ndef touch(name):\n    time.sleep(0.002)\n    open(name, 'w').close()\n"
    )
    script(
        tmp_path,
        f"""
        import sys, work
        from miniflow import Executor
        executor = Executor(2)
        for n in range(100):
            future = executor.submit(work.touch, f"done-{{n}}")
        future.add_done_callback(lambda f: open("called", "w").close())
        del future
        {ending}
        """,
    )
    assert len(list(tmp_path.glob("done-*"))) == 100
    assert (tmp_path / "called").exists()


def test_a_program_ends_although_its_executor_was_used_by_threads_and_never_shut_down(
    tmp_path: Path,
) -> None:
    out = script(
        tmp_path,
        """
        import operator, threading
        from miniflow import Executor
        executor = Executor(1)
        found = []
        def work():
            for n in range(20):
                try:
                    found.append(executor.submit(operator.add, n, 0).result())
                except RuntimeError:  # the program ends
                    found.append(None)
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads: thread.start()
        executor.submit(operator.add, 1, 1).result()
        print("main is done")
        """,
    )
    assert out == "main is done\n"


def test_an_uncaught_exception_ends_the_program_and_its_workers(tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(
        "import operator\nfrom miniflow import Executor\nexecutor = Executor(2)\n"
        "with executor:\n    executor.submit(operator.add, 1, 1).result()\n    raise LookupError('out')\n"
    )
    ended = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.endswith("LookupError: out\n")


def test_a_forked_child_neither_hangs_nor_harms_its_parent(tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text(
        "import os, time\ndef wait_for(path):\n"
        "    while not os.path.exists(path):\n        time.sleep(0.002)\n    return path\n"
    )
    out = script(
        tmp_path,
        """
        import operator, os, sys, threading, warnings
        warnings.simplefilter("ignore")
        import work
        from miniflow import EngineError, Executor
        executor = Executor(1)
        assert executor.submit(operator.add, 1, 1).result() == 2
        pending = executor.submit(work.wait_for, "go")
        pending.add_done_callback(lambda _: None)  # a thread drives: it holds locks in the child
        waiter = threading.Thread(target=pending.result)
        waiter.start()
        for how in ("exit", "os._exit", "own executor", "with"):
            child = os.fork()
            if child == 0:
                try:
                    pending.result(5)
                except EngineError:
                    pass
                else:
                    os._exit(3)
                try:
                    executor.submit(operator.add, 1, 1)
                except (EngineError, RuntimeError):
                    pass
                else:
                    os._exit(4)
                pending.cancel(), pending.done(), pending.running(), repr(pending)
                if how == "os._exit":
                    os._exit(0)
                if how == "own executor":
                    with Executor(1) as mine:
                        assert mine.submit(operator.add, 2, 2).result(20) == 4
                if how == "with":
                    with executor:
                        pass
                sys.exit(0)
            _, status = os.waitpid(child, 0)
            assert status == 0, (how, status)
        assert not pending.done()
        open("go", "w").close()
        assert pending.result(20) == "go"
        waiter.join()
        assert executor.submit(operator.add, 3, 1).result() == 4
        print("well")
        """,
    )
    assert out == "well\n"


def test_multiprocessing_by_fork_works_beside_it(tmp_path: Path) -> None:
    out = script(
        tmp_path,
        """
        import math, multiprocessing, warnings
        warnings.simplefilter("ignore")
        from miniflow import Executor
        executor = Executor(1)
        assert executor.submit(math.sqrt, 4).result() == 2
        with multiprocessing.get_context("fork").Pool(2) as pool:
            print(pool.map(math.sqrt, [1, 4, 9]))
        print(executor.submit(math.sqrt, 16).result())
        """,
    )
    assert out == "[1.0, 2.0, 3.0]\n4.0\n"


def test_no_process_is_left_when_the_host_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(
        "import os, sys, time\nfrom miniflow import Executor\nexecutor = Executor(3)\n"
        "pids = set()\nwhile len(pids) < 3:\n"
        "    pids |= {f.result() for f in [executor.submit(os.getpid) for _ in range(30)]}\n"
        "futures = [executor.submit(time.sleep, 600) for _ in range(10)]\n"
        "print(*pids, flush=True)\nsys.stdin.read()\n"
    )
    before = set(processes.ours())
    with subprocess.Popen(
        [sys.executable, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        pids = [int(word) for word in program.stdout.readline().split()]
        assert len(pids) == 3
        assert all(processes.alive(pid) for pid in pids)
        os.kill(program.pid, signal.SIGKILL)
        program.wait(TIMEOUT)
        processes.wait_until(lambda: set(processes.ours()) <= before, what="the end of all processes")


def test_text_that_holds_the_name_of_the_main_module_needs_no_cloudpickle(tmp_path: Path) -> None:
    program = """
        import sys
        sys.modules["cloudpickle"] = None  # cannot be imported
        from miniflow import Executor
        text = 'if __name__ == "__main__": pass'
        if __name__ == "__main__":
            with Executor(1) as executor:
                assert executor.submit(str.upper, text).result(60) == text.upper()
                assert executor.submit(str, text).result(60) == text
                print("done")
    """
    assert script(tmp_path, program) == "done\n"


@needs_cloudpickle
def test_a_function_of_a_script_with_much_data_is_sent_once(tmp_path: Path) -> None:
    program = """
        from miniflow import Executor
        DATA = bytes(32 << 20)
        def look(at):
            return DATA[at] + at
        if __name__ == "__main__":
            with Executor(2) as executor:
                futures = [executor.submit(look, n) for n in range(300)]
                assert [f.result(60) for f in futures] == list(range(300))
                assert executor._core.stats().payload_bytes < 1 << 20
                print("done")
    """
    assert script(tmp_path, program) == "done\n"

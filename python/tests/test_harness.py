"""The tests' own safety nets work: they would else pass whatever happens."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import processes
import pytest

SLEEPER = "import sys; print('ready', flush=True); sys.stdin.read()"
TESTS = str(Path(__file__).resolve().parent)


def run_pytest(directory: Path, test: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a test of its own, in a pytest of its own, under this directory's conftest."""
    (directory / "test_it.py").write_text(textwrap.dedent(test))
    path = os.pathsep.join(filter(None, (TESTS, os.environ.get("PYTHONPATH"))))
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "conftest", "-p", "no:cacheprovider", str(directory)],
        env={**os.environ, "PYTHONPATH": path, "MINIFLOW_TEST_GRACE": "0.2", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_test_that_leaves_a_child_behind_fails_and_the_child_is_killed(tmp_path: Path) -> None:
    ended = run_pytest(
        tmp_path,
        """
        import subprocess, sys, pathlib
        def test_leaves_a_child():
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            pathlib.Path(__file__).with_name("pid").write_text(str(child.pid))
            globals()["kept"] = child
        """,
    )
    assert ended.returncode == 1, ended.stdout
    assert "processes left behind" in ended.stdout
    assert "time.sleep(600)" in ended.stdout
    assert not processes.alive(int((tmp_path / "pid").read_text()))


def test_a_test_that_leaves_an_orphan_behind_fails_too(tmp_path: Path) -> None:
    ended = run_pytest(
        tmp_path,
        """
        import subprocess, sys
        def test_leaves_a_grandchild():
            sleeper = "import time; time.sleep(601)"
            parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {sleeper!r}])"
            subprocess.run([sys.executable, "-c", parent], check=True)
        """,
    )
    assert ended.returncode == 1, ended.stdout
    assert "time.sleep(601)" in ended.stdout


def test_a_test_that_hangs_ends_the_run_with_its_stack(tmp_path: Path) -> None:
    ended = run_pytest(
        tmp_path,
        """
        import threading
        def test_hangs_here():
            threading.Event().wait()
        """,
        MINIFLOW_TEST_TIMEOUT="3",
    )
    assert ended.returncode == 1, ended.stdout
    assert "Timeout" in ended.stdout
    assert "in test_hangs_here" in ended.stdout


def test_a_process_that_was_there_before_and_what_it_starts_later_do_not_count() -> None:
    code = (
        f"import subprocess, sys; sys.stdin.readline(); subprocess.run([sys.executable, '-c', {SLEEPER!r}])"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as old:
        before = processes.ours().values()
        assert old.pid in {process.pid for process in before}
        assert old.stdin is not None
        assert old.stdout is not None
        old.stdin.write(b"\n")
        old.stdin.flush()
        assert old.stdout.readline() == b"ready\n"
        family = {
            process.pid for process in processes.left_behind([]) if old.pid in (process.pid, process.parent)
        }
        assert len(family) == 2
        assert family.isdisjoint(process.pid for process in processes.left_behind(before))


def test_a_process_that_has_ended_is_not_alive_before_it_is_reaped() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    try:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert processes.look(child.pid) is not None
        assert not processes.alive(child.pid)
    finally:
        child.wait()
    assert processes.look(child.pid) is None


def test_a_condition_that_never_holds_fails_by_its_name() -> None:
    with pytest.raises(AssertionError, match=r"the moon did not come to hold within 0\.01 s"):
        processes.wait_until(lambda: False, timeout=0.01, what="the moon")

"""Finds or builds what is tested; ends a test that hangs; fails one that leaves processes behind."""

from __future__ import annotations

import faulthandler
import importlib.util
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Generator
from pathlib import Path

import processes
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = REPOSITORY / "python" / "src"

TIMEOUT = float(os.environ.get("MINIFLOW_TEST_TIMEOUT", "180"))
"""Seconds that a test has, unless it is marked `timeout(seconds)`."""

GRACE = float(os.environ.get("MINIFLOW_TEST_GRACE", "10"))
"""Seconds in which the processes of a test that is over must end."""

_failed = pytest.StashKey[bool]()
_terminal: int | None = None


def pytest_configure(config: pytest.Config) -> None:
    global _terminal
    config.addinivalue_line("markers", "timeout(seconds): how long the test may take")
    _terminal = os.dup(sys.__stderr__.fileno() if sys.__stderr__ else 2)  # not what captures a test's output
    os.environ[processes.RUN_VARIABLE] = uuid.uuid4().hex
    # A shell starts what it runs in the background with interrupts ignored, and that would be handed down.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _find_package()


def pytest_unconfigure() -> None:
    faulthandler.cancel_dump_traceback_later()


def _find_package() -> None:
    """What is tested is the installed package, or else this checkout's with the library that it has built."""
    if importlib.util.find_spec("miniflow") is None:
        sys.path.insert(0, str(SOURCES))
        inherited = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = f"{SOURCES}{os.pathsep}{inherited}" if inherited else str(SOURCES)
    spec = importlib.util.find_spec("miniflow")
    if spec is None or spec.origin is None:
        raise pytest.UsageError(f"no package miniflow is installed or in {SOURCES}")
    carries_library = any(Path(spec.origin).parent.glob("_native*.so"))
    if not carries_library and "MINIFLOW_LIBRARY" not in os.environ:
        os.environ["MINIFLOW_LIBRARY"] = str(_built_library())


def _built_library() -> Path:
    target = Path(os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target")
    built = [target / profile / "libminiflow.so" for profile in ("release", "debug")]
    built = [path for path in built if path.is_file()]
    if built:
        return max(built, key=lambda path: path.stat().st_mtime)
    subprocess.run(["cargo", "build", "--release", "--lib"], cwd=REPOSITORY, check=True)
    return target / "release" / "libminiflow.so"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A test that takes too long ends the whole run, with the stacks of all threads: it may hang anywhere."""
    marker = item.get_closest_marker("timeout")
    seconds = float(marker.args[0]) if marker else TIMEOUT
    assert _terminal is not None
    faulthandler.dump_traceback_later(seconds, exit=True, file=_terminal)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[_failed] = True
    return report


@pytest.fixture(autouse=True)
def leaves_no_process_behind(request: pytest.FixtureRequest) -> Generator[None, None, None]:
    """Fails a test after which a process is left that was not there before; kills it in any case."""
    before = processes.ours().values()
    yield
    deadline = time.monotonic() + GRACE
    while left := processes.left_behind(before):
        if time.monotonic() > deadline or request.node.stash.get(_failed, False):
            break
        time.sleep(0.01)
    if left:
        named = "\n".join(map(str, left))
        processes.kill(left)
        # A test that failed keeps in its traceback what it would have closed.
        if not request.node.stash.get(_failed, False):
            pytest.fail(f"processes left behind:\n{named}")

"""Loading scripts once, and again when they change, with many threads at work."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
from script_tools import DEADLINE, Probe, Threads, install_probe, write

from miniflow._worker.context import Context
from miniflow._worker.packages import ROOT
from miniflow._worker.scripts import Scripts

CONTEXT = Context("some-task")


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Probe:
    return install_probe(monkeypatch)


@pytest.fixture
def scripts() -> Scripts:
    return Scripts()


def run(scripts: Scripts, path: str, params: object = None) -> Any:
    return scripts.run(path, params, CONTEXT)


def modules() -> set[str]:
    return {name for name in list(sys.modules) if name.startswith(ROOT + ".")}


# Once


def test_a_script_is_loaded_once(scripts: Scripts, tmp_path: Path, probe: Probe) -> None:
    path = write(tmp_path / "script.py", "import probe\nprobe.loads.append(1)\ndef main(p, c): return p")
    assert [run(scripts, path, n) for n in range(5)] == [0, 1, 2, 3, 4]
    assert probe.loads == [1]


def test_twenty_threads_that_need_a_script_at_once_load_it_once(
    scripts: Scripts, tmp_path: Path, probe: Probe
) -> None:
    write(tmp_path / "helper.py", "import probe\nprobe.loads.append('helper')\nX = 1\n")
    path = write(
        tmp_path / "script.py",
        "import probe, helper\nprobe.loads.append('script')\ndef main(p, c): return helper.X + p\n",
    )
    threads = Threads([lambda n=n: run(scripts, path, n) for n in range(20)])  # type: ignore[misc]
    assert threads.join() == [n + 1 for n in range(20)]
    assert probe.loads == ["helper", "script"]


def test_twenty_scripts_that_share_a_sibling_load_it_once(
    scripts: Scripts, tmp_path: Path, probe: Probe
) -> None:
    write(tmp_path / "helper.py", "import probe\nprobe.loads.append('helper')\nX = 1\n")
    paths = [
        write(tmp_path / f"script{n}.py", f"import helper\ndef main(p, c): return helper.X + {n}\n")
        for n in range(20)
    ]
    threads = Threads([lambda path=path: run(scripts, path) for path in paths])  # type: ignore[misc]
    assert threads.join() == [n + 1 for n in range(20)]
    assert probe.loads == ["helper"]


def test_a_script_that_takes_long_to_load_holds_up_no_other(
    scripts: Scripts, tmp_path: Path, probe: Probe
) -> None:
    slow = write(tmp_path / "slow.py", "import probe\nprobe.hold()\ndef main(p, c): return 'slow'")
    quick = write(tmp_path / "quick.py", "def main(p, c): return 'quick'")
    threads = Threads([lambda: run(scripts, slow)])
    try:
        probe.await_start()
        assert run(scripts, quick) == "quick"
        write(tmp_path / "quick.py", "def main(p, c): return 'quicker'")
        assert run(scripts, quick) == "quicker"
    finally:
        probe.go_on.set()
    assert threads.join() == ["slow"]


# Again


def test_a_changed_script_is_loaded_again(scripts: Scripts, tmp_path: Path) -> None:
    for version in range(5):
        path = write(tmp_path / "script.py", f"def main(p, c): return {version}")
        assert run(scripts, path) == version


def test_a_change_in_place_to_the_same_size_is_noticed(scripts: Scripts, tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    for version in range(9):
        path.write_text(f"def main(p, c): return {version}")
        assert run(scripts, str(path)) == version


def test_a_change_that_leaves_the_time_stamp_as_it_was_is_noticed_by_the_content(
    scripts: Scripts, tmp_path: Path
) -> None:
    # As two writes within one tick of the clock that stamps files.
    path = tmp_path / "script.py"
    path.write_text("def main(p, c): return 1")
    now = time.time_ns()
    os.utime(path, ns=(now, now))
    assert [run(scripts, str(path)) for _ in range(3)] == [1, 1, 1]
    path.write_text("def main(p, c): return 2")
    os.utime(path, ns=(now, now))
    assert run(scripts, str(path)) == 2


def test_a_file_with_an_old_time_stamp_that_takes_the_place_is_noticed(
    scripts: Scripts, tmp_path: Path
) -> None:
    path = tmp_path / "script.py"
    for version in [1, 2]:
        write(path.with_suffix(".new"), f"def main(p, c): return {version}")
        os.utime(path.with_suffix(".new"), (10**9, 10**9))
        path.with_suffix(".new").replace(path)
        assert run(scripts, str(path)) == version


def test_a_changed_sibling_is_loaded_again_with_the_scripts_that_use_it(
    scripts: Scripts, tmp_path: Path
) -> None:
    x = write(tmp_path / "x.py", "import helper\ndef main(p, c): return helper.VERSION")
    y = write(tmp_path / "y.py", "from helper import VERSION\ndef main(p, c): return VERSION")
    for version in range(4):
        write(tmp_path / "helper.py", f"VERSION = {version}")
        assert (run(scripts, x), run(scripts, y)) == (version, version)


@pytest.mark.parametrize(
    ("script", "file"),
    [
        ("import one\ndef main(p, c): return one.two.VERSION", "two.py"),
        ("from . import one\ndef main(p, c): return one.two.VERSION", "two.py"),
        ("def main(p, c):\n    from two import VERSION\n    return VERSION", "two.py"),
        ("def main(p, c):\n    from . import two\n    return two.VERSION", "two.py"),
        ("import pkg.mod\ndef main(p, c): return pkg.mod.VERSION", "pkg/mod.py"),
        ("from pkg import *\ndef main(p, c): return mod.VERSION", "pkg/mod.py"),
        ("from .pkg.mod import VERSION\ndef main(p, c): return VERSION", "pkg/mod.py"),
        ("from pkg import VERSION\ndef main(p, c): return VERSION", "pkg/__init__.py"),
        ("import pkg.mod\ndef main(p, c): return pkg.VERSION", "pkg/__init__.py"),
    ],
)
def test_a_change_is_noticed_however_the_file_was_imported(
    scripts: Scripts, tmp_path: Path, script: str, file: str
) -> None:
    write(tmp_path / "one.py", "import two")
    write(tmp_path / "pkg/__init__.py", "__all__ = ['mod']")
    write(tmp_path / "pkg/mod.py", "")
    path = write(tmp_path / "script.py", script)
    for version in range(3):
        write(tmp_path / file, f"__all__ = ['mod']\nVERSION = {version}")
        assert run(scripts, path) == version


def test_a_change_of_the_script_leaves_its_siblings_loaded(
    scripts: Scripts, tmp_path: Path, probe: Probe
) -> None:
    write(tmp_path / "helper.py", "import probe\nprobe.loads.append('helper')\n")
    for version in range(3):
        path = write(tmp_path / "script.py", f"import helper\ndef main(p, c): return {version}")
        assert run(scripts, path) == version
    assert probe.loads == ["helper"]


def test_a_sibling_that_failed_to_load_costs_the_others_nothing_when_it_is_mended(
    scripts: Scripts, tmp_path: Path, probe: Probe
) -> None:
    write(tmp_path / "helper.py", "import probe\nprobe.loads.append('helper')\n")
    write(tmp_path / "broken.py", "1 / 0")
    good = write(tmp_path / "good.py", "import helper\ndef main(p, c): return 'good'")
    bad = write(tmp_path / "bad.py", "import helper, broken\ndef main(p, c): return 'mended'")
    assert run(scripts, good) == "good"
    with pytest.raises(ZeroDivisionError):
        run(scripts, bad)
    write(tmp_path / "broken.py", "")
    assert (run(scripts, bad), run(scripts, good)) == ("mended", "good")
    assert probe.loads == ["helper"]


def test_a_change_of_a_file_that_nobody_imported_loads_nothing_again(
    scripts: Scripts, tmp_path: Path, probe: Probe
) -> None:
    write(tmp_path / "other.py", "1")
    path = write(tmp_path / "script.py", "import probe\nprobe.loads.append(1)\ndef main(p, c): pass")
    run(scripts, path)
    write(tmp_path / "other.py", "2")
    run(scripts, path)
    assert probe.loads == [1]


def test_a_script_that_is_removed_fails_its_next_task_and_runs_again_when_it_is_back(
    scripts: Scripts, tmp_path: Path
) -> None:
    path = write(tmp_path / "script.py", "def main(p, c): return 1")
    assert run(scripts, path) == 1
    (tmp_path / "script.py").unlink()
    with pytest.raises(Exception, match="No such file"):
        run(scripts, path)
    write(tmp_path / "script.py", "def main(p, c): return 2")
    assert run(scripts, path) == 2


def test_a_version_that_does_not_load_fails_tasks_until_it_is_mended(
    scripts: Scripts, tmp_path: Path
) -> None:
    path = write(tmp_path / "script.py", "def main(p, c): return 1")
    assert run(scripts, path) == 1
    write(tmp_path / "script.py", "def main(p, c: return 2")
    for _ in range(2):
        with pytest.raises(Exception, match="not valid Python"):
            run(scripts, path)
    write(tmp_path / "script.py", "def main(p, c): return 3")
    assert run(scripts, path) == 3


def test_a_script_that_is_truncated_before_it_is_written_is_waited_for(
    scripts: Scripts, tmp_path: Path
) -> None:
    path = tmp_path / "script.py"
    path.write_text("def main(p, c): return 'old'")
    assert run(scripts, str(path)) == "old"
    path.write_text("")
    threads = Threads([lambda: run(scripts, str(path))])
    path.write_text("def main(p, c): return 'new'")
    assert threads.join() == ["new"]


def test_a_directory_that_a_link_points_to_is_changed_at_once(scripts: Scripts, tmp_path: Path) -> None:
    # As mounted configuration is: the files are links through a link to a directory.
    for version in ["v1", "v2"]:
        write(tmp_path / version / "helper.py", f"VERSION = {version!r}")
        write(
            tmp_path / version / "script.py",
            f"import helper\ndef main(p, c): return {version!r}, helper.VERSION",
        )
    current, coming = tmp_path / "current", tmp_path / "coming"
    for version in ["v1", "v2", "v1"]:
        coming.symlink_to(tmp_path / version)
        coming.replace(current)
        assert run(scripts, str(current / "script.py")) == (version, version)


# The old version


OLD = (
    "import probe, pickle\n"
    "import helper\n"
    "class Thing: pass\n"
    "def main(params, context):\n"
    "    if params == 'wait':\n"
    "        probe.hold()\n"
    "        import helper as again\n"
    "        import late\n"
    "        thing = pickle.loads(pickle.dumps(Thing()))\n"
    "        return VERSION, helper.VERSION, again is helper, late.helper is helper, type(thing) is Thing\n"
    "    return VERSION, helper.VERSION\n"
)


@pytest.mark.parametrize("changed", ["script", "helper", "both"])
def test_a_task_that_runs_the_old_version_goes_on_with_it(
    scripts: Scripts, tmp_path: Path, probe: Probe, changed: str
) -> None:
    write(tmp_path / "helper.py", "VERSION = 'old'")
    write(tmp_path / "late.py", "import helper")
    path = write(tmp_path / "script.py", "VERSION = 'old'\n" + OLD)
    threads = Threads([lambda: run(scripts, path, "wait")])
    try:
        probe.await_start()
        if changed != "script":
            write(tmp_path / "helper.py", "VERSION = 'new'")
        if changed != "helper":
            write(tmp_path / "script.py", "VERSION = 'new'\n" + OLD)
        expected = ("old" if changed == "helper" else "new", "old" if changed == "script" else "new")
        # Several times: what is no longer used is dropped with each load.
        for _ in range(3):
            assert run(scripts, path) == expected
            os.utime(path)
    finally:
        probe.go_on.set()
    assert threads.join() == [("old", "old", True, True, True)]


def test_old_versions_are_dropped_when_no_task_runs_them(scripts: Scripts, tmp_path: Path) -> None:
    write(tmp_path / "helper.py", "class Helped: pass")
    text = "import helper\nclass Thing: pass\ndef main(p, c): return Thing, helper.Helped\n"
    path = write(tmp_path / "script.py", text)
    before = modules()
    old = [weakref.ref(kind) for kind in run(scripts, path)]
    for version in range(10):
        write(tmp_path / "helper.py", f"class Helped: number = {version}")
        write(tmp_path / "script.py", f"number = {version}\n{text}")
        run(scripts, path)
    gc.collect()
    assert [reference() for reference in old] == [None, None]
    # The current version, and the one before, which is dropped when the next one is loaded.
    assert len(modules() - before) <= 2 * 3


def test_the_number_of_loaded_scripts_is_bounded_and_those_in_use_stay(tmp_path: Path, probe: Probe) -> None:
    scripts = Scripts(limit=10)
    before = modules()
    text = "import probe\nprobe.loads.append(__file__)\ndef main(p, c): return __file__"
    used = write(tmp_path / "used.py", text)
    for number in range(100):
        path = write(tmp_path / f"script{number}.py", text)
        assert run(scripts, path) == path
        assert run(scripts, used) == used
    assert probe.loads.count(used) == 1
    # The scripts, their package, and the one that was evicted last.
    assert len(modules() - before) <= 10 + 2


# Under load


@pytest.mark.parametrize("in_place", [False, True])
def test_while_files_change_each_task_runs_what_was_there_when_it_began_or_later(
    scripts: Scripts, tmp_path: Path, in_place: bool
) -> None:
    """And no task fails, even if the file is truncated before it is written again."""
    versions = 12
    written = {"script": 0, "helper": 0}

    def put(name: str, version: int) -> None:
        text = {
            "script": f"import helper\ndef main(p, c): return {version}, helper.VERSION\n",
            "helper": f"VERSION = {version}\n",
        }[name]
        if in_place:
            (tmp_path / f"{name}.py").write_text(text)
        else:
            write(tmp_path / f"{name}.py", text)
        written[name] = version

    put("helper", 0)
    put("script", 0)
    path = str(tmp_path / "script.py")
    assert run(scripts, path) == (0, 0)
    runs = [0] * 4
    stop = threading.Event()

    def work(number: int) -> None:
        while not stop.is_set():
            at_least = (written["script"], written["helper"])
            script, helper = run(scripts, path)
            assert script >= at_least[0]
            assert helper >= at_least[1]
            runs[number] += 1

    def change() -> None:
        try:
            for version in range(1, versions + 1):
                for name in ["script", "helper"]:
                    put(name, version)
                    seen = list(runs)
                    give_up = time.monotonic() + DEADLINE
                    # Until some task ran since.
                    while runs == seen and not stop.is_set():
                        assert time.monotonic() < give_up, "no task ends any more"
                        time.sleep(0)
        finally:
            stop.set()

    def guarded(number: int) -> None:
        try:
            work(number)
        finally:
            stop.set()

    Threads([change, *(lambda n=n: guarded(n) for n in range(4))]).join()
    assert run(scripts, path) == (versions, versions)

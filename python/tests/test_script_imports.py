"""What scripts import from beside them, and that nobody else gets to see it."""

from __future__ import annotations

import importlib
import os
import pickle
import sys
from pathlib import Path

import pytest
from script_tools import install_probe, unpickle_elsewhere, write

from miniflow._worker import portable
from miniflow._worker.context import Context
from miniflow._worker.packages import ROOT
from miniflow._worker.scripts import Scripts

CONTEXT = Context("some-task")


def run(path: str, params: object = None) -> object:
    return Scripts().run(path, params, CONTEXT)


IMPORTS = [
    ("import helper", "helper.f()"),
    ("import helper as h", "h.f()"),
    ("from helper import f", "f()"),
    ("from helper import f as g", "g()"),
    ("from . import helper", "helper.f()"),
    ("from .helper import f", "f()"),
    ("import pkg.mod", "pkg.mod.f()"),
    ("import pkg.mod as m", "m.f()"),
    ("from pkg import mod", "mod.f()"),
    ("from pkg.mod import f", "f()"),
    ("from .pkg import mod", "mod.f()"),
    ("from .pkg.mod import f", "f()"),
    ("import pkg.inner.deep", "pkg.inner.deep.f()"),
    ("import space.mod", "space.mod.f()"),
    ("from space import mod", "mod.f()"),
    ("helper = __import__('helper')", "helper.f()"),
    ("import importlib; helper = importlib.import_module('.helper', __package__)", "helper.f()"),
]
# What binds names in a module only.
STARS = [
    ("from helper import *", "f()"),
    ("from pkg import *", "mod.f()"),
    ("exec('import helper')", "helper.f()"),
]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with what IMPORTS imports."""
    function = "def f(): return 'found'\n"
    write(tmp_path / "helper.py", function)
    write(tmp_path / "pkg/__init__.py", "__all__ = ['mod']\n")
    write(tmp_path / "pkg/mod.py", "from .inner import deep\nimport helper\n" + function)
    write(tmp_path / "pkg/inner/__init__.py", "from .. import mod\n")
    write(tmp_path / "pkg/inner/deep.py", function)
    write(tmp_path / "space/mod.py", function)
    return tmp_path


@pytest.mark.parametrize(("statement", "expression"), IMPORTS + STARS)
def test_a_script_imports_what_is_beside_it(directory: Path, statement: str, expression: str) -> None:
    text = f"{statement}\ndef main(p, c): return {expression}\n"
    assert run(write(directory / "script.py", text)) == "found"


@pytest.mark.parametrize(("statement", "expression"), IMPORTS)
def test_a_function_imports_what_is_beside_its_script(
    directory: Path, statement: str, expression: str
) -> None:
    text = f"def main(p, c):\n    {statement}\n    return {expression}\n"
    assert run(write(directory / "script.py", text)) == "found"


def test_scripts_and_siblings_of_one_name_in_two_directories_do_not_meet(tmp_path: Path) -> None:
    text = (
        "import helper\n"
        "from helper import WHERE\n"
        "state = []\n"
        "def main(p, c):\n"
        "    import late\n"
        "    state.append(p)\n"
        "    return WHERE, helper.WHERE, late.WHERE, __file__, state\n"
    )
    scripts = Scripts()
    results = {}
    for where in ["a", "b"]:
        write(tmp_path / where / "helper.py", f"WHERE = {where!r}")
        write(tmp_path / where / "late.py", f"WHERE = {where!r}")
        write(tmp_path / where / "script.py", text)
    for where in ["a", "b", "a", "b"]:
        results[where] = scripts.run(str(tmp_path / where / "script.py"), where, CONTEXT)
    for where in ["a", "b"]:
        assert results[where] == (
            where,
            where,
            where,
            str(tmp_path / where / "script.py"),
            [where, where],
        )


def test_siblings_are_seen_by_nobody_else(tmp_path: Path) -> None:
    path_before = list(sys.path)
    write(tmp_path / "a/only_here_helper.py", "")
    script = write(tmp_path / "a/script.py", "import only_here_helper\ndef main(p, c): pass")
    other = write(tmp_path / "b/script.py", "def main(p, c):\n    import only_here_helper\n")
    scripts = Scripts()
    scripts.run(script, None, CONTEXT)
    with pytest.raises(ModuleNotFoundError):
        scripts.run(other, None, CONTEXT)
    assert "only_here_helper" not in sys.modules
    assert sys.path == path_before


def test_a_sibling_is_loaded_once_for_all_scripts_of_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = install_probe(monkeypatch)
    write(tmp_path / "helper.py", "import probe\nprobe.loads.append('helper')\n")
    scripts = Scripts()
    for name in ["x", "y", "z"]:
        path = write(tmp_path / f"{name}.py", "import helper\ndef main(p, c): return id(helper)")
        scripts.run(path, None, CONTEXT)
    assert probe.loads == ["helper"]


def test_a_sibling_goes_before_an_installed_module_but_not_before_a_builtin_one(tmp_path: Path) -> None:
    for name in ["colorsys", "time", "sys", "os"]:
        write(tmp_path / f"{name}.py", "MINE = True\n")
    text = (
        "import colorsys, time, sys, os\n"
        "def main(p, c): return [hasattr(m, 'MINE') for m in (colorsys, time, sys, os)]\n"
    )
    assert run(write(tmp_path / "script.py", text)) == [True, False, False, False]
    import colorsys

    assert hasattr(colorsys, "rgb_to_hsv"), "the others keep the real one"


def test_a_directory_of_data_hides_no_module_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "json").mkdir()
    (tmp_path / "colorsys").mkdir()
    text = "import json, colorsys\ndef main(p, c): return json.dumps(1), colorsys.rgb_to_hsv(0, 0, 0)\n"
    assert run(write(tmp_path / "script.py", text)) == ("1", (0.0, 0.0, 0))


def test_a_sibling_imports_its_own_siblings(tmp_path: Path) -> None:
    write(tmp_path / "one.py", "import two\ndef f(): return two.f()\n")
    write(tmp_path / "two.py", "def f():\n    from three import g\n    return g()\n")
    write(tmp_path / "three.py", "def g(): return 'three'\n")
    assert run(write(tmp_path / "script.py", "import one\ndef main(p, c): return one.f()")) == "three"


def test_siblings_that_import_each_other_work(tmp_path: Path) -> None:
    write(tmp_path / "ping.py", "import pong\ndef f(n): return pong.f(n - 1) if n else 'ping'\n")
    write(tmp_path / "pong.py", "import ping\ndef f(n): return ping.f(n - 1) if n else 'pong'\n")
    assert run(write(tmp_path / "script.py", "import ping\ndef main(p, c): return ping.f(p)"), 3) == "pong"


def test_a_link_to_a_script_finds_the_siblings_of_the_file_itself(tmp_path: Path) -> None:
    write(tmp_path / "real/helper.py", "X = 1")
    real = write(tmp_path / "real/script.py", "import helper\ndef main(p, c): return helper.X")
    (tmp_path / "link.py").symlink_to(real)
    assert run(str(tmp_path / "link.py")) == 1


def test_a_missing_module_is_an_import_error_and_is_found_as_soon_as_it_is_there(tmp_path: Path) -> None:
    script = write(tmp_path / "script.py", "import helper_to_come\ndef main(p, c): return helper_to_come.X")
    scripts = Scripts()
    # One that keeps the directory's package in use.
    scripts.run(write(tmp_path / "other.py", "import json\ndef main(p, c): pass"), None, CONTEXT)
    with pytest.raises(ModuleNotFoundError):
        scripts.run(script, None, CONTEXT)
    # As if it came within the same tick of the clock that stamps the directory.
    directory = tmp_path.stat()
    write(tmp_path / "helper_to_come.py", "X = 1")
    os.utime(tmp_path, ns=(directory.st_atime_ns, directory.st_mtime_ns))
    assert scripts.run(script, None, CONTEXT) == 1


def test_the_modules_builtins_are_the_usual_ones(tmp_path: Path) -> None:
    text = "def main(p, c): return len([1]), isinstance(1, int), eval('max(1, 2)'), type(__import__)\n"
    assert run(write(tmp_path / "script.py", text))[:3] == (1, True, 2)  # type: ignore[index]


def test_resources_beside_a_script_are_found(tmp_path: Path) -> None:
    write(tmp_path / "data.txt", "content")
    text = (
        "from importlib import resources\n"
        "def main(p, c): return (resources.files(__package__) / 'data.txt').read_text()\n"
    )
    assert run(write(tmp_path / "script.py", text)) == "content"


# Values of types that only the script knows

DEFINES = (
    "import dataclasses, helper\n"
    "@dataclasses.dataclass\n"
    "class Point:\n"
    "    x: int\n"
    "    def far(self): return helper.far(self.x)\n"
    "def main(params, context): return Point(params)\n"
)


def test_a_value_of_a_scripts_type_travels_by_value(tmp_path: Path) -> None:
    pytest.importorskip("cloudpickle")
    write(tmp_path / "helper.py", "LIMIT = 3\ndef far(x): return x > LIMIT\n")
    value = run(write(tmp_path / "script.py", DEFINES), 5)
    assert unpickle_elsewhere(portable.dumps(value), "(value, value.far())") == "(Point(x=5), True)"


def test_a_script_that_imports_cloudpickle_itself_gets_values_that_travel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cloudpickle")
    # Nobody else has imported it before.
    for name in [name for name in sys.modules if name.partition(".")[0] == "cloudpickle"]:
        monkeypatch.delitem(sys.modules, name)
    text = (
        "class Thing: pass\n"
        "def main(params, context):\n"
        "    import cloudpickle\n"
        "    return cloudpickle.dumps(Thing())\n"
    )
    data = run(write(tmp_path / "script.py", text))
    assert isinstance(data, bytes)
    assert unpickle_elsewhere(data, "type(value).__name__") == "Thing"


def test_a_library_that_uses_cloudpickle_gets_values_that_travel(tmp_path: Path) -> None:
    cloudpickle = pytest.importorskip("cloudpickle")
    if ROOT in cloudpickle.list_registry_pickle_by_value():
        cloudpickle.unregister_pickle_by_value(sys.modules[ROOT])
    value = run(write(tmp_path / "script.py", "class Thing: pass\ndef main(p, c): return Thing()"))
    assert cloudpickle.list_registry_pickle_by_value() >= {ROOT}
    assert unpickle_elsewhere(cloudpickle.dumps(value), "type(value).__name__") == "Thing"


def test_without_cloudpickle_a_value_of_a_scripts_type_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    value = run(write(tmp_path / "script.py", "class Thing: pass\ndef main(p, c): return Thing()"))
    with pytest.raises(pickle.PicklingError, match=r"Thing: .* install cloudpickle"):
        portable.dumps(value)


def test_buffers_of_a_value_that_cloudpickle_pickles_are_collected_once(tmp_path: Path) -> None:
    pytest.importorskip("cloudpickle")
    text = (
        "import pickle\n"
        "class Thing:\n"
        "    def __init__(self, data): self.data = data\n"
        "def main(params, context): return Thing(pickle.PickleBuffer(params))\n"
    )
    value = run(write(tmp_path / "script.py", text), bytearray(b"large"))
    buffers: list[pickle.PickleBuffer] = []
    data = portable.dumps(value, buffers)
    assert [bytes(buffer) for buffer in buffers] == [b"large"]
    assert bytes(pickle.loads(data, buffers=buffers).data) == b"large"


def test_plain_data_is_pickled_plainly() -> None:
    assert pickle.loads(portable.dumps({"a": (1, 2)})) == {"a": (1, 2)}


def test_a_module_on_the_programs_own_path_is_shared_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "shared_between_host_and_script"
    write(tmp_path / f"{name}.py", "class Point:\n    pass\n")
    script = write(
        tmp_path / "script.py", f"from {name} import Point\ndef main(params, context):\n    return Point()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    shared = importlib.import_module(name)
    try:
        assert type(run(script)) is shared.Point
    finally:
        sys.modules.pop(name, None)

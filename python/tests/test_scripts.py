"""Running scripts: entry points, errors, and what a script finds about itself."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from script_tools import write

from miniflow._worker.context import Context
from miniflow._worker.errors import (
    ScriptEntryError,
    ScriptError,
    ScriptExit,
    ScriptInterrupted,
    ScriptNotFound,
    ScriptSyntaxError,
)
from miniflow._worker.failure import Failure
from miniflow._worker.scripts import Scripts

CONTEXT = Context("some-task")

Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs the text of a script."""
    scripts = Scripts()

    def run(text: str, params: object = None) -> object:
        return scripts.run(write(tmp_path / "script.py", text), params, CONTEXT)

    return run


@pytest.fixture
def run_item(tmp_path: Path) -> Run:
    """Runs the text of a script for a Manager's item."""
    scripts = Scripts()

    def run_item(text: str, context: object = None) -> object:
        path = write(tmp_path / "script.py", text)
        return scripts.run_item({"script_path": path, "context": context}, CONTEXT)

    return run_item


# Entry points


def test_main_gets_the_params_and_the_context(run: Run) -> None:
    text = "def main(params, context): return params, context.task_id, context.attempt"
    assert run(text, {"a": [1]}) == ({"a": [1]}, "some-task", 1)


def test_an_async_main_is_run_to_its_end(run: Run) -> None:
    text = "import asyncio\nasync def main(p, c):\n    await asyncio.sleep(0)\n    return p + 1\n"
    assert run(text, 1) == 2


def test_main_may_be_any_callable(run: Run) -> None:
    assert run("import functools\nmain = functools.partial(lambda a, p, c: (a, p), 'x')", 1) == ("x", 1)


def test_an_items_module_runs_with_the_items_context_and_its_json_is_decoded(run_item: Run) -> None:
    text = (
        "import json\n"
        "class Module:\n"
        "    def run(self, context): return json.dumps({'got': context})\n"
        "def module(): return Module()\n"
    )
    assert run_item(text, {"n": 1}) == {"got": {"n": 1}}


def test_an_items_text_that_is_no_json_is_kept(run_item: Run) -> None:
    text = "class M:\n    def run(self, context): return 'as it is'\nmodule = M\n"
    assert run_item(text) == "as it is"


def test_an_item_without_module_runs_main_with_its_context_as_params(run_item: Run) -> None:
    text = "def main(params, context): return [params, context.task_id, '1']"
    assert run_item(text, 5) == [5, "some-task", "1"]


def test_an_async_run_of_an_item_is_run_to_its_end(run_item: Run) -> None:
    text = "class M:\n    async def run(self, context): return '[1, 2]'\ndef module(): return M()\n"
    assert run_item(text) == [1, 2]


def test_an_item_whose_module_has_no_run_says_so(run_item: Run) -> None:
    with pytest.raises(ScriptEntryError, match=r"module\(\) returned a list, which has no method run"):
        run_item("def module(): return []")


def test_an_item_with_neither_entry_point_says_so(run_item: Run) -> None:
    with pytest.raises(ScriptEntryError, match=r"neither module\(\) nor main"):
        run_item("module = None")


def test_an_item_whose_run_takes_no_context_says_so(run_item: Run) -> None:
    text = "class M:\n    def run(self): pass\ndef module(): return M()\n"
    with pytest.raises(ScriptEntryError, match=r"its run\(\) cannot be called as run\(context\)"):
        run_item(text)


def test_an_item_without_a_path_says_so() -> None:
    with pytest.raises(ScriptError, match="has no script_path"):
        Scripts().run_item({"context": 1}, CONTEXT)


# Errors


def test_a_missing_script_is_named_with_what_to_do(tmp_path: Path) -> None:
    path = str(tmp_path / "nowhere.py")
    with pytest.raises(ScriptNotFound) as caught:
        Scripts().run(path, None, CONTEXT)
    assert caught.value.path == path
    assert "No such file" in str(caught.value)
    assert "check the path" in str(caught.value)


def test_a_directory_is_no_script(tmp_path: Path) -> None:
    with pytest.raises(ScriptNotFound, match=r"directory|regular file"):
        Scripts().run(str(tmp_path), None, CONTEXT)


def test_a_fifo_is_no_script_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.py")
    with pytest.raises(ScriptNotFound, match="not a regular file"):
        Scripts().run(str(tmp_path / "fifo.py"), None, CONTEXT)


@pytest.mark.parametrize("path", ["a\0b.py", "x" * 5000, ""])
def test_a_path_that_can_name_no_file_is_not_found(path: str) -> None:
    with pytest.raises(ScriptNotFound):
        Scripts().run(path, None, CONTEXT)


def test_a_path_that_is_no_string_is_refused(tmp_path: Path) -> None:
    path: Any = tmp_path / "script.py"
    with pytest.raises(ScriptError, match="not a string"):
        Scripts().run(path, None, CONTEXT)


def test_a_syntax_error_names_the_file_the_line_and_the_text(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ScriptSyntaxError) as caught:
        run("x = 1\ndef main(:\n    pass\n")
    assert caught.value.path == str(tmp_path / "script.py")
    assert "line 2: def main(:" in str(caught.value)


def test_a_syntax_error_of_a_sibling_names_both_files(run: Run, tmp_path: Path) -> None:
    helper = write(tmp_path / "helper.py", "def f(:\n")
    with pytest.raises(ScriptSyntaxError) as caught:
        run("import helper\ndef main(p, c): pass\n")
    assert caught.value.path == str(tmp_path / "script.py")
    assert f"{helper}, which it imports, is not valid Python" in str(caught.value)


def test_a_syntax_error_of_text_that_the_script_compiles_is_its_own(run: Run) -> None:
    with pytest.raises(SyntaxError):
        run("eval('1 +')\ndef main(p, c): pass\n")


def test_a_binary_file_is_not_valid_python(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_bytes(b"main = 1\0\xff")
    with pytest.raises(ScriptSyntaxError, match="not valid Python"):
        Scripts().run(str(tmp_path / "script.py"), None, CONTEXT)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", r"it defines no main\(params, context\)"),
        ("main = None", r"it defines no main\(params, context\)"),
        ("main = 7", "its main is a int, not a function"),
        ("def main(): pass", r"its main\(\) cannot be called as main\(params, context\): too many"),
        ("def main(params): pass", r"its main\(params\) cannot be called as main\(params, context\)"),
        ("def main(a, b, c): pass", r"cannot be called as .*: missing a required argument: 'c'"),
        ("async def main(a): pass", r"its main\(a\) cannot be called as"),
    ],
)
def test_an_entry_point_that_does_not_fit_says_why_and_what_to_define(
    run: Run, text: str, problem: str
) -> None:
    with pytest.raises(ScriptEntryError, match=problem) as caught:
        run(text)
    assert caught.value.advice == "define main(params, context) in it"


def test_a_type_error_inside_of_main_is_the_scripts_own(run: Run) -> None:
    with pytest.raises(TypeError, match="unsupported operand"):
        run("def main(params, context): return 1 + 'a'")


def test_an_exception_of_main_comes_as_it_is(run: Run) -> None:
    with pytest.raises(KeyError, match="gone"):
        run("def main(params, context): return {}['gone']")


def test_an_exception_while_loading_comes_as_it_is_and_the_next_task_tries_again(run: Run) -> None:
    with pytest.raises(ZeroDivisionError):
        run("1 / 0")
    assert run("def main(p, c): return 'better'") == "better"


@pytest.mark.parametrize(
    ("call", "code", "text"),
    [
        ("sys.exit()", None, "sys.exit()"),
        ("sys.exit(0)", 0, "sys.exit(0)"),
        ("sys.exit(3)", 3, "sys.exit(3)"),
        ("sys.exit('why')", "why", "sys.exit('why')"),
        ("sys.exit([1])", "[1]", "[1]"),
    ],
)
@pytest.mark.parametrize("where", ["main", "load", "async main"])
def test_sys_exit_fails_the_task_with_its_code(
    run: Run, where: str, call: str, code: object, text: str
) -> None:
    lines = {
        "main": f"import sys\ndef main(p, c): {call}\n",
        "load": f"import sys\n{call}\n",
        "async main": f"import sys\nasync def main(p, c): {call}\n",
    }
    with pytest.raises(ScriptExit) as caught:
        run(lines[where])
    assert caught.value.code == code
    assert text in str(caught.value)


@pytest.mark.parametrize("where", ["def main(p, c): raise KeyboardInterrupt", "raise KeyboardInterrupt"])
def test_a_keyboard_interrupt_that_a_script_raises_fails_the_task(run: Run, where: str) -> None:
    with pytest.raises(ScriptInterrupted, match="KeyboardInterrupt"):
        run(where)


def test_endless_recursion_is_an_ordinary_failure_and_the_next_task_runs(run: Run) -> None:
    with pytest.raises(RecursionError) as caught:
        run("def main(p, c): return main(p, c)")
    assert Failure.of(caught.value).type_name == "RecursionError"
    assert run("def main(p, c): return 1") == 1


@pytest.mark.parametrize(
    "error",
    [
        ScriptNotFound("/a.py", "problem", "advice"),
        ScriptExit("/a.py", 3),
        ScriptInterrupted("/a.py"),
    ],
)
def test_errors_survive_a_pickle(error: ScriptError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), vars(again)) == (str(error), vars(error))


# What a script finds about itself


def test_a_script_is_not_the_main_program(run: Run) -> None:
    text = "ran = False\nif __name__ == '__main__': ran = True\ndef main(p, c): return ran\n"
    assert run(text) is False


def test_file_is_the_scripts_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "script.py", "def main(p, c): return __file__")
    assert Scripts().run("script.py", None, CONTEXT) == str(tmp_path / "script.py")


def test_a_relative_path_stays_the_same_when_a_script_changes_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "script.py", "import os\ndef main(p, c): os.chdir('/'); return 1")
    scripts = Scripts()
    assert scripts.run("script.py", None, CONTEXT) == 1
    assert scripts.run("script.py", None, CONTEXT) == 1
    assert scripts.run("./script.py", None, CONTEXT) == 1


def test_a_script_needs_no_suffix_and_its_name_need_be_no_identifier(tmp_path: Path) -> None:
    for name in ["no-suffix", "with space.py", "1.2.3.py", "class.py", "umlaut-\u00e4.py"]:
        path = write(tmp_path / name, f"def main(p, c): return {name!r}")
        assert Scripts().run(path, None, CONTEXT) == name


def test_two_spellings_of_a_path_are_one_script(tmp_path: Path) -> None:
    path = write(tmp_path / "script.py", "calls = []\ndef main(p, c): calls.append(p); return calls")
    scripts = Scripts()
    scripts.run(path, 1, CONTEXT)
    assert scripts.run(f"{tmp_path}/./script.py", 2, CONTEXT) == [1, 2]


def test_tracebacks_show_the_scripts_lines(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "helper.py", "def f():\n    raise ValueError('deep')  # in the helper\n")
    with pytest.raises(ValueError, match="deep") as caught:
        run("import helper\ndef main(p, c):\n    helper.f()  # in the script\n")
    shown = Failure.of(caught.value).traceback
    assert "helper.f()  # in the script" in shown
    assert "raise ValueError('deep')  # in the helper" in shown
    assert f'File "{tmp_path}/script.py", line 3, in main' in shown


def test_inspect_finds_the_scripts_source(run: Run) -> None:
    text = "import inspect\ndef main(p, c):\n    return inspect.getsource(main)\n"
    assert "return inspect.getsource(main)" in str(run(text))


def test_dataclasses_and_pickling_work_within_the_worker(run: Run) -> None:
    text = (
        "from __future__ import annotations\n"
        "import dataclasses, enum, pickle, typing\n"
        "class Colour(enum.Enum): RED = 1\n"
        "@dataclasses.dataclass\n"
        "class Point:\n"
        "    x: int\n"
        "    colour: Colour\n"
        "    many: typing.ClassVar[int] = 1\n"
        "def main(params, context):\n"
        "    point = Point(1, Colour.RED)\n"
        "    again = pickle.loads(pickle.dumps(point))\n"
        "    return again == point, typing.get_type_hints(Point)['colour'] is Colour\n"
    )
    assert run(text) == (True, True)


def test_a_script_that_failed_to_load_leaves_no_modules(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "helper.py", "")
    before = set(sys.modules)
    with pytest.raises(ZeroDivisionError):
        run("import helper\n1 / 0")
    assert {name for name in set(sys.modules) - before if "_miniflow_scripts." in name} == set()


def test_no_bytecode_is_left_in_the_scripts_directory(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "helper.py", "")
    run("import helper\ndef main(p, c): pass")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["helper.py", "script.py"]

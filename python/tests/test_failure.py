"""How exceptions are described, whatever they do."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from script_tools import unpickle_elsewhere, write

from miniflow._worker.context import Context
from miniflow._worker.failure import Failure
from miniflow._worker.scripts import Scripts


def failure_of(text: str, path: Path) -> Failure:
    """The failure of a script with this text."""
    with pytest.raises(BaseException) as caught:
        Scripts().run(write(path / "script.py", text), None, Context("id"))
    return Failure.of(caught.value)


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


class RequiresTwo(Exception):
    """The classic that cannot be unpickled: its args are not what __init__ takes."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


class SaysItTwice(Exception):
    """Unpickles, to another text."""

    def __init__(self, code: object) -> None:
        super().__init__(f"code {code}")


class TakesNoPickle(Exception):
    def __reduce__(self) -> NoReturn:
        raise SystemExit("no")


class UnpicklesToSomethingElse(Exception):
    def __reduce__(self) -> Any:
        return str, ("text",)


class Mute(Exception):
    def __str__(self) -> NoReturn:
        raise RuntimeError("no text")


class Leaving(Exception):
    def __str__(self) -> NoReturn:
        raise SystemExit(1)


class NoString(Exception):
    def __str__(self) -> Any:
        return object()


class Text(str):
    def __getitem__(self, item: Any) -> NoReturn:
        raise RuntimeError("sliced")

    def __contains__(self, item: Any) -> NoReturn:
        raise RuntimeError("searched")

    def __len__(self) -> NoReturn:
        raise RuntimeError("measured")


class OddText(Exception):
    def __str__(self) -> str:
        return Text("odd")


class Metaclass(type):
    @property
    def __name__(cls) -> NoReturn:  # type: ignore[override]
        raise RuntimeError("no name")


class Nameless(Exception, metaclass=Metaclass):
    pass


class NoAttributes(Exception):
    def __getattribute__(self, name: str) -> NoReturn:
        raise RuntimeError(f"no {name}")


# What is told


def test_an_exception_that_pickles_arrives_as_it_is() -> None:
    failure = Failure.of(raised(KeyError("key", 1)))
    assert failure.exception is not None
    again = pickle.loads(failure.exception)
    assert type(again) is KeyError
    assert again.args == ("key", 1)


@pytest.mark.parametrize(
    "error", [RequiresTwo(1, 2), SaysItTwice(5), TakesNoPickle("a"), UnpicklesToSomethingElse()]
)
def test_an_exception_that_cannot_be_made_again_is_told_by_name_and_text(error: Exception) -> None:
    failure = Failure.of(raised(error))
    assert failure.exception is None
    assert failure.type_name == type(error).__name__
    assert failure.text == (str(error) or failure.type_name)


def test_an_exception_about_an_object_without_a_name_is_pickled_although_its_address_changes() -> None:
    failure = Failure.of(raised(ValueError(Plain())))
    assert failure.exception is not None
    assert type(pickle.loads(failure.exception)) is ValueError


class Plain:
    pass


def test_an_exception_that_carries_too_much_is_told_without_it() -> None:
    failure = Failure.of(raised(ValueError("x", b"x" * (2 << 20))))
    assert failure.exception is None
    assert len(failure.text) < 20_000
    assert "characters left out" in failure.text
    assert len(failure.to_pickle()) < 200_000


def test_an_exception_without_text_is_told_by_its_name() -> None:
    assert Failure.of(raised(AssertionError())).text == "AssertionError"


def test_the_traceback_has_the_scripts_frames_and_none_of_the_workers(tmp_path: Path) -> None:
    write(tmp_path / "helper.py", "import broken")
    write(tmp_path / "broken.py", "1 / 0")
    for text in ["import helper", "def main(p, c):\n    import helper\n", "def main(p, c): {}['x']"]:
        shown = failure_of(text, tmp_path).traceback
        assert str(tmp_path / "script.py") in shown
        assert "_worker" not in shown
        assert "importlib" not in shown
    assert shown.startswith("Traceback (most recent call last):\n")
    assert shown.endswith("KeyError: 'x'\n")


def test_the_traceback_has_what_the_exception_was_raised_from(tmp_path: Path) -> None:
    text = (
        "def main(params, context):\n"
        "    try:\n"
        "        try:\n"
        "            import nothing_of_this_name\n"
        "        except ImportError as error:\n"
        "            raise KeyError('second') from error\n"
        "    except KeyError:\n"
        "        raise ValueError('third')\n"
    )
    shown = failure_of(text, tmp_path).traceback
    first, second, third = (shown.index(part) for part in ["nothing_of_this_name'", "'second'", "third"])
    assert first < second < third
    assert "direct cause" in shown
    assert "During handling" in shown
    assert "_worker" not in shown


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with Python 3.11")
def test_the_traceback_has_the_members_of_a_group_and_notes(tmp_path: Path) -> None:
    text = (
        "import asyncio\n"
        "async def fail():\n"
        "    error = ValueError('member')\n"
        "    error.add_note('a note')\n"
        "    raise error\n"
        "async def main(params, context):\n"
        "    async with asyncio.TaskGroup() as group:\n"
        "        group.create_task(fail())\n"
    )
    shown = failure_of(text, tmp_path).traceback
    assert "ValueError: member" in shown
    assert "a note" in shown
    assert "_worker" not in shown


def test_the_end_of_a_script_by_sys_exit_shows_where_it_was(tmp_path: Path) -> None:
    failure = failure_of("import sys\ndef main(p, c):\n    sys.exit(4)\n", tmp_path)
    assert failure.type_name == "ScriptExit"
    assert "line 3, in main" in failure.traceback
    assert "SystemExit: 4" in failure.traceback


def test_names_that_the_worker_made_up_are_not_shown(tmp_path: Path) -> None:
    write(tmp_path / "helper.py", "class Oops(Exception): pass")
    own = failure_of("class Oops(Exception): pass\ndef main(p, c): raise Oops('x')", tmp_path)
    assert own.traceback.endswith("\nscript.Oops: x\n")
    of_sibling = failure_of("import helper\ndef main(p, c): raise helper.Oops('x')", tmp_path)
    assert of_sibling.traceback.endswith("\nhelper.Oops: x\n")
    missing = failure_of("from helper import nothing", tmp_path)
    assert missing.text.startswith("cannot import name 'nothing' from 'helper'")


def test_an_exception_of_a_scripts_own_type_can_be_unpickled_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("cloudpickle")
    failure = failure_of("class Oops(Exception): pass\ndef main(p, c): raise Oops('x', 1)", tmp_path)
    assert failure.exception is not None
    told = unpickle_elsewhere(failure.exception, "(type(value).__name__, value.args)")
    assert told == "('Oops', ('x', 1))"


def test_without_cloudpickle_an_exception_of_a_scripts_own_type_is_told_by_name_and_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    failure = failure_of("class Oops(Exception): pass\ndef main(p, c): raise Oops('x')", tmp_path)
    assert failure[:3] == (None, "Oops", "x")


# Whatever it does


@pytest.mark.parametrize(
    ("make", "type_name", "text"),
    [
        (Mute, "Mute", "<its text cannot be had: __str__ raised RuntimeError>"),
        (Leaving, "Leaving", "<its text cannot be had: __str__ raised SystemExit>"),
        (NoString, "NoString", "<its text cannot be had: __str__ raised TypeError>"),
        (OddText, "OddText", "odd"),
        (lambda: Nameless("text"), "Nameless", "text"),
        (lambda: NoAttributes("text"), "NoAttributes", "text"),
        (lambda: KeyboardInterrupt("stop"), "KeyboardInterrupt", "stop"),
        (lambda: SystemExit(3), "SystemExit", "3"),
        (GeneratorExit, "GeneratorExit", "GeneratorExit"),
        (lambda: ValueError("\ud800 lone"), "ValueError", "\\ud800 lone"),
        (lambda: ValueError("null\0byte"), "ValueError", "null\0byte"),
    ],
    ids=lambda value: "",
)
def test_an_exception_is_described_whatever_it_does(
    make: Callable[[], BaseException], type_name: str, text: str
) -> None:
    failure = Failure.of(raised(make()))
    assert (failure.type_name, failure.text) == (type_name, text)
    assert type_name in failure.traceback
    for part in (failure.text, failure.traceback):
        assert type(part) is str
        part.encode()
    assert pickle.loads(failure.to_pickle()[1:])[1:3] == (type_name, text)
    assert json.loads(failure.to_json()[1:].decode())["error"] == text


def test_a_chain_that_bites_its_tail_is_described() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    failure = Failure.of(raised(one))
    assert "one" in failure.traceback
    assert failure.text == "one"


def test_a_chain_of_thousands_is_described_within_the_bound() -> None:
    error = ValueError("first")
    for number in range(5000):
        following = ValueError(f"number {number}")
        following.__cause__ = error
        error = following
    failure = Failure.of(raised(error))
    assert failure.text == "number 4999"
    assert "number 4999" in failure.traceback
    assert len(failure.traceback) < 100_000


# The wire


def test_the_reply_to_a_pickle_is_a_tuple_of_plain_data() -> None:
    failure = Failure.of(raised(ValueError("x")))
    reply = failure.to_pickle("out", "err")
    assert reply[:1] == b"E"
    exception, type_name, text, traceback, stdout, stderr = pickle.loads(reply[1:])
    assert str(pickle.loads(exception)) == "x"
    assert (type_name, text, stdout, stderr) == ("ValueError", "x", "out", "err")
    assert traceback == failure.traceback


def test_the_reply_to_json_is_json() -> None:
    failure = Failure.of(raised(ValueError("\u00e4")))
    assert failure.to_json()[:1] == b"e"
    assert json.loads(failure.to_json()[1:]) == {
        "error": "\u00e4",
        "type": "ValueError",
        "traceback": failure.traceback,
    }
    with_output = json.loads(failure.to_json("out", "")[1:])
    assert (with_output["stdout"], with_output["stderr"]) == ("out", "")

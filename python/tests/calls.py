"""What the tests submit: workers import this module."""

from __future__ import annotations

import ctypes
import os
import pickle
import random
import resource
import signal
import sys
import threading
import time
from typing import Any, NoReturn

DEADLINE = 60.0

kept: dict[str, Any] = {}


def identity(value: Any) -> Any:
    return value


def add(a: int, b: int = 0) -> int:
    return a + b


def square(number: int) -> int:
    return number * number


def pid(*_: object) -> int:
    return os.getpid()


def divide(a: int, b: int) -> float:
    return a / b


def divide_ten_by(number: int) -> float:
    return divide(10, number)


def touch(path: str) -> None:
    with open(path, "a", encoding="ascii"):
        pass


def wait_for(path: str) -> str:
    """Returns when the file is there."""
    deadline = time.monotonic() + DEADLINE
    while not os.path.exists(path):
        if time.monotonic() > deadline:
            raise TimeoutError(path)
        time.sleep(0.002)
    return path


def touch_and_wait_for(mine: str, other: str) -> int:
    touch(mine)
    wait_for(other)
    return os.getpid()


def touch_and_wait_for_ever(path: str) -> NoReturn:
    touch(path)
    while True:
        signal.pause()


def kill_me(number: int) -> NoReturn:
    os.kill(os.getpid(), number)
    while True:
        signal.pause()


def kill_me_once(path: str, value: int) -> int:
    """Dies in its first attempt."""
    if not os.path.exists(path):
        touch(path)
        kill_me(signal.SIGKILL)
    return value


def raise_it(error: BaseException) -> NoReturn:
    raise error


def raise_of_type(kind: type[BaseException], *args: object) -> NoReturn:
    raise kind(*args)


def raise_chained() -> NoReturn:
    try:
        divide(1, 0)
    except ZeroDivisionError as error:
        raise ValueError("outer") from error


class TwoArguments(Exception):
    """An exception that pickle cannot make again."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class UnpicklableError(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


def raise_two_arguments() -> NoReturn:
    raise TwoArguments(7, "two of them")


def raise_unpicklable() -> NoReturn:
    raise UnpicklableError("it holds a lock")


def make_lock() -> object:
    return threading.Lock()


def recurse(depth: int) -> int:
    return 0 if depth == 0 else 1 + recurse(depth - 1)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


class FailsAtHome:
    """Can be pickled anywhere, and unpickled only where it was made."""

    def __init__(self) -> None:
        self.home = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["home"] != os.getpid():
            raise LookupError("it does not live here")
        self.__dict__.update(state)


def make_fails_at_home() -> FailsAtHome:
    return FailsAtHome()


def _exit_with(code: int) -> NoReturn:
    sys.exit(code)


class ExitsWhenUnpickled:
    def __reduce__(self) -> tuple[Any, ...]:
        return _exit_with, (3,)


def make_exits_when_unpickled() -> ExitsWhenUnpickled:
    return ExitsWhenUnpickled()


def stop_at(number: int) -> int:
    if number == 3:
        raise StopIteration("three")
    return number


def set_kept(value: Any) -> None:
    kept["value"] = value


def fail_to_initialize() -> NoReturn:
    raise RuntimeError("the initializer says no")


def get_kept() -> Any:
    return kept.get("value")


def big(size: int) -> bytearray:
    return bytearray(size)


class Plain:
    """An object that one can refer to weakly."""


def make_plain(_: object) -> Plain:
    return Plain()


def exit_at_once(code: int) -> NoReturn:
    os._exit(code)


def write_to_null() -> None:
    ctypes.memset(0, 1, 1)


_comparing = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


def overflow_the_stack() -> None:
    """Recurses through C, where Python counts no frames."""
    resource.setrlimit(resource.RLIMIT_STACK, (1 << 20, resource.getrlimit(resource.RLIMIT_STACK)[1]))
    sys.setrecursionlimit(1_000_000)
    sort = ctypes.CDLL(None).qsort
    two = (ctypes.c_int * 2)(2, 1)

    def compare(_: object, __: object) -> int:
        sort(two, 2, ctypes.sizeof(ctypes.c_int), compared)
        return 0

    compared = _comparing(compare)
    compare(None, None)


def allocate(size: int) -> int:
    return len(bytearray(size))


def chaos(seed: int, number: int) -> int:
    """Mostly a square; now and then the end of the worker."""
    fate = random.Random(seed * 1_000_003 + number).random()
    if fate < 0.004:
        kill_me(signal.SIGKILL)
    if fate < 0.006:
        os._exit(9)
    return number * number


def text(size: int) -> str:
    return "x" * size


def filled(value: int, size: int) -> pickle.PickleBuffer:
    """A buffer that travels out of band."""
    return pickle.PickleBuffer(bytearray([value]) * size)

"""How an exception travels to the host.

Whatever an exception does when it is looked at, the task's failure is reported: as much of it as there is.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import traceback
from typing import NamedTuple

from . import portable
from .packages import tidy

__all__ = ["Failure"]

# In characters, or bytes of the pickle. An exception may carry anything, such as all that was received.
_TEXT_LIMIT = 16 << 10
_TRACEBACK_LIMIT = 64 << 10
_PICKLE_LIMIT = 1 << 20

_WORKER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")
_IMPORT_SYSTEM = "<frozen importlib._bootstrap"
_ADDRESS = re.compile(r"0x[0-9a-fA-F]+")


class Failure(NamedTuple):
    """What the host is told of an exception."""

    exception: bytes | None
    """The exception's pickle, if the host can make it of that again."""
    type_name: str
    text: str
    traceback: str
    """As Python prints it, with what it was raised from, without the worker's own frames."""

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Describes an exception. Raises nothing itself."""
        type_name = _name(type(error))
        text = _text(error) or type_name
        return cls(_pickle(error), type_name, text, _traceback(error) or f"{type_name}: {text}\n")

    def to_pickle(self, stdout: str = "", stderr: str = "") -> bytes:
        """The reply to a task that came as a pickle."""
        return b"E" + pickle.dumps((*self, stdout, stderr), protocol=5)

    def to_json(self, stdout: str | None = None, stderr: str | None = None) -> bytes:
        """The reply to a task that came as JSON."""
        reply = {"error": self.text, "type": self.type_name, "traceback": self.traceback}
        if stdout is not None:
            reply["stdout"] = stdout
        if stderr is not None:
            reply["stderr"] = stderr
        return b"e" + json.dumps(reply).encode()


def _name(kind: type[BaseException]) -> str:
    # As the type itself has it, whatever its metaclass says.
    name: str = vars(type)["__name__"].__get__(kind)
    return name


def _text(error: BaseException) -> str:
    try:
        # To a str proper: what __str__ returns may be of a subclass with methods of its own.
        return _plain(tidy(str.__str__(str(error))), _TEXT_LIMIT)
    except BaseException as why:
        return f"<its text cannot be had: __str__ raised {_name(type(why))}>"


def _traceback(error: BaseException) -> str | None:
    try:
        report = traceback.TracebackException(type(error), error, error.__traceback__)
        _leave_out_the_worker(report)
        return _plain(tidy("".join(report.format())), _TRACEBACK_LIMIT)
    except BaseException:
        return None


def _leave_out_the_worker(report: traceback.TracebackException) -> None:
    ahead = [report]
    while ahead:
        one = ahead.pop()
        one.stack[:] = [frame for frame in one.stack if not _is_ours(frame.filename)]
        related = [one.__cause__, one.__context__, *(getattr(one, "exceptions", None) or ())]
        ahead.extend(other for other in related if other is not None)


def _is_ours(filename: str) -> bool:
    return filename.startswith((_WORKER, _IMPORT_SYSTEM))


def _pickle(error: BaseException) -> bytes | None:
    """The exception's pickle, if what it gives is an exception that says the same.

    An exception is made again by calling its type with its `args`. A type with an __init__ of its own that
    passes other arguments on to Exception.__init__ fails then, or makes an exception with another text.
    """
    try:
        data = portable.dumps(error)
        if len(data) > _PICKLE_LIMIT:
            return None
        again = pickle.loads(data)
        same = isinstance(again, BaseException) and _comparable(again) == _comparable(error)
        return data if same else None
    except BaseException:
        return None


def _comparable(error: BaseException) -> str:
    return _ADDRESS.sub("", str(error))


def _plain(text: str, limit: int) -> str:
    """The text as any encoder takes it, with its middle left out if it is too long."""
    length = len(text)
    if length > limit:
        half = limit // 2
        text = f"{text[:half]}\n... {length - 2 * half} characters left out ...\n{text[-half:]}"
    # A lone surrogate is no Unicode text.
    return text.encode("utf-8", "backslashreplace").decode()

"""Pickles that the host can read, although it cannot import the scripts that made the values."""

from __future__ import annotations

import importlib
import pickle
from typing import Any

from .._wire import names
from .packages import ROOT, register_by_value

__all__ = ["dumps"]

_ROOT = ROOT.encode()


def dumps(value: object, buffers: list[pickle.PickleBuffer] | None = None) -> bytes:
    """Pickles a value for the host, with its large buffers apart if there is a list for them.

    What pickle cannot do, or would do by naming something in a script, is done by cloudpickle, if it is
    installed. Raises what pickle raises, and pickle.PicklingError if only cloudpickle could have done it.
    """
    try:
        data = _dumps(pickle, value, buffers)
    except Exception:
        cloudpickle = _cloudpickle()
        if cloudpickle is None:
            raise
    else:
        if _ROOT not in data or not names(data, ROOT):
            return data
        cloudpickle = _cloudpickle()
        if cloudpickle is None:
            raise pickle.PicklingError(
                f"{type(value).__name__}: it is, or holds, something of a type that the script defines, "
                "which the host cannot import; return plain data, move the type to a module on sys.path, "
                "or install cloudpickle (2.0 or later)"
            )
    if buffers is not None:
        buffers.clear()
    return _dumps(cloudpickle, value, buffers)


def _dumps(pickler: Any, value: object, buffers: list[pickle.PickleBuffer] | None) -> bytes:
    callback = None if buffers is None else buffers.append
    data: bytes = pickler.dumps(value, protocol=5, buffer_callback=callback)
    return data


def _cloudpickle() -> Any:
    try:
        cloudpickle = importlib.import_module("cloudpickle")
    except ImportError:
        return None
    return cloudpickle if register_by_value() else None

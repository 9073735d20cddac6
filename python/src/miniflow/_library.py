"""Finds the shared library and opens it twice: once for calls that may wait, once for short ones."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

VARIABLE = "MINIFLOW_LIBRARY"


class Prototype(NamedTuple):
    """What a C function answers with and takes, in ctypes' terms, and whether it can be told not to wait."""

    restype: Any
    argtypes: tuple[Any, ...]
    short: bool


class Short(ctypes.PyDLL):
    """The library's functions that never wait, called with the GIL kept: an uncontended call costs less,
    and a busy one does not hand the interpreter to another thread and queue for it again.

    Has none but those that were declared on it: a call that waits would stop every other thread.
    """

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{name} may wait, or is unknown: call it on the handle that releases the GIL")


def find() -> Path:
    """The library to use: what MINIFLOW_LIBRARY names, or the wheel's, or what a checkout has built last."""
    if named := os.environ.get(VARIABLE):
        path = Path(named)
        if not path.is_file():
            raise ImportError(f"{VARIABLE} names {named}, which is not a file")
        return path.absolute()
    if sys.platform != "linux":
        raise ImportError(f"miniflow runs on Linux only, and this is {sys.platform}")
    module = Path(__file__).resolve()
    # More than one only in a checkout that was installed as editable, by several versions of Python.
    if installed := list(module.parent.glob("_native*.so")):
        return max(installed, key=_written)
    checkout = module.parent.parent.parent.parent
    built = [checkout / "target" / profile / "libminiflow.so" for profile in ("release", "debug")]
    built = [path for path in built if path.is_file()]
    if built:
        return max(built, key=_written)
    if (checkout / "include" / "miniflow.h").is_file():
        raise ImportError(
            f"the miniflow library is not built: run `cargo build --release --lib` in {checkout}, "
            f"or let {VARIABLE} name the file libminiflow.so"
        )
    raise ImportError(
        f"no miniflow library is installed beside {module}: install the package again, "
        f"or let {VARIABLE} name the file libminiflow.so"
    )


def _written(path: Path) -> float:
    return path.stat().st_mtime


def load(path: Path, abi_version: int, prototypes: Mapping[str, Prototype]) -> tuple[ctypes.CDLL, Short]:
    """Opens the library, and declares all functions on the first handle and the short ones on the second.

    Raises ImportError if it cannot be loaded or is not of `abi_version`, or lacks a function.
    """
    try:
        releasing = ctypes.CDLL(os.fspath(path))
        keeping = Short(os.fspath(path))
    except OSError as error:
        raise ImportError(f"the miniflow library cannot be loaded: {error}") from error
    try:
        version = int(releasing["mf_abi_version"]())
    except AttributeError as error:
        raise ImportError(f"{path} is no miniflow library: it has no mf_abi_version") from error
    if version != abi_version:
        raise ImportError(
            f"{path} has version {version} of miniflow's binary interface, and this package needs "
            f"{abi_version}: install or build the library and the package from the same sources"
        )
    for name, prototype in prototypes.items():
        _declare(releasing, name, prototype, path, version)
        if prototype.short:
            _declare(keeping, name, prototype, path, version)
    return releasing, keeping


def _declare(library: ctypes.CDLL, name: str, prototype: Prototype, path: Path, version: int) -> None:
    try:
        function = library[name]
    except AttributeError as error:
        raise ImportError(
            f"{path} (version {version} of miniflow's binary interface) has no {name}: it is older than this "
            "package; install or build the library and the package from the same sources"
        ) from error
    function.restype = prototype.restype
    function.argtypes = prototype.argtypes
    setattr(library, name, function)

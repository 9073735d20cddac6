"""Running scripts: each is loaded once in a worker, and again when it changes.

A script is a file of Python source that defines `main(params, context)`; `async def main` is run to its end
by asyncio.run(). It is a module, not the program: `__name__` is not "__main__". It may import the files
beside it; how is told in packages.py.

A change of the script, or of a file beside it that it imported, is noticed by the next task, which waits for
the new version. Tasks that run the old one finish with it. Not noticed is a change of what the script imports
from elsewhere, of extension modules, and of what was imported by importlib rather than an import statement.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import threading
import weakref
from types import CoroutineType, ModuleType
from typing import Any

from .context import Context
from .errors import (
    ScriptEntryError,
    ScriptError,
    ScriptExit,
    ScriptInterrupted,
    ScriptNotFound,
    ScriptSyntaxError,
)
from .packages import Package
from .source import Source

__all__ = ["Scripts"]

# How many scripts stay loaded. It bounds the memory of a worker that is sent ever new ones.
_LIMIT = 1000


class _Script:
    """One version of one script. A task that runs it keeps it alive."""

    __slots__ = ("__weakref__", "main", "module", "name", "package", "path", "source", "used")

    module: ModuleType
    main: Any

    def __init__(self, path: str, source: Source, package: Package) -> None:
        self.path = path
        self.source = source
        self.package = package
        self.name = package.name_script(path)
        self.used = True

    def load(self, content: bytes) -> None:
        self.module = self.package.load(self.name, self.path, content)
        self.main = getattr(self.module, "main", None)

    def changed(self) -> bool:
        # Asked once per task: a loop is twice as fast as any().
        if self.source.changed():
            return True
        for sibling in self.package.watched(self.name):  # noqa: SIM110
            if sibling.changed():
                return True
        return False


class Scripts:
    """The scripts of one worker process. All methods may be called by many threads at a time."""

    def __init__(self, limit: int = _LIMIT) -> None:
        self._limit = limit
        # Scripts may change the working directory; what a relative path means stays.
        try:
            self._root = os.getcwd()
        except OSError:  # it was removed, and no relative path means anything
            self._root = os.sep
        # By the path as tasks give it, and by the absolute one.
        self._scripts: dict[str, _Script] = {}
        self._current: dict[str, Package] = {}
        self._replaced: list[tuple[weakref.ref[_Script], Package, str]] = []
        # One lock for each script that is being loaded just now.
        self._loading: weakref.WeakValueDictionary[str, threading.Lock] = weakref.WeakValueDictionary()
        # Guards all of the above; no script's code runs under it.
        self._lock = threading.Lock()

    def run(self, path: str, params: object, context: Context) -> object:
        """Calls the script's `main(params, context)` and returns what it returns.

        Raises whatever the script raises, which need not be an Exception (asyncio.CancelledError is none);
        a ScriptError if it cannot be run, and in place of SystemExit and KeyboardInterrupt.
        """
        script = self._scripts.get(path)
        if script is None or script.changed():
            script = self._load(path)
        script.used = True
        return _call(script, script.main, "main(params, context)", params, context)

    def run_item(self, item: dict[str, Any], context: Context) -> object:
        """Runs an item of a Manager: a dictionary with `script_path` and `context`.

        The script defines `module()`, which returns an object whose `run(context)` returns JSON text: what
        that says is returned, or the text if it is none. Or it defines `main(params, context)`, which gets
        the item's context as its params.
        """
        path = item.get("script_path")
        if not isinstance(path, str):
            raise ScriptError(str(path), "the item has no script_path", "give the script's path as a string")
        script = self._scripts.get(path)
        if script is None or script.changed():
            script = self._load(path)
        script.used = True
        params = item.get("context", {})
        make = getattr(script.module, "module", None)
        if not callable(make):
            if script.main is None:
                raise ScriptEntryError(
                    script.path, "it defines neither module() nor main(params, context)", "define one of them"
                )
            return _call(script, script.main, "main(params, context)", params, context)
        made = _call(script, make, "module()")
        run = getattr(made, "run", None)
        if not callable(run):
            raise ScriptEntryError(
                script.path,
                f"module() returned a {type(made).__name__}, which has no method run",
                "return an object with run(context)",
            )
        result = _call(script, run, "run(context)", params)
        if isinstance(result, str):
            try:
                return json.loads(result)
            except (ValueError, RecursionError):
                return result
        return result

    def _load(self, path: str) -> _Script:
        """The script as it is now on disk; whoever needs the same one meanwhile waits for it."""
        full = self._absolute(path)
        with self._lock:
            loading = self._loading.setdefault(full, threading.Lock())
        with loading:
            with self._lock:
                script = self._scripts.get(full)
            if script is None or script.changed():
                script = self._load_version(full, script)
            with self._lock:
                self._keep(path, script)
                self._keep(full, script)
                self._evict()
                self._reap()
        return script

    def _absolute(self, path: str) -> str:
        if not isinstance(path, str):
            raise ScriptError(repr(path), "its path is not a string", "give the script's path as a string")
        full = os.path.join(self._root, path)
        # "link/../script.py" is not "script.py".
        return full if os.pardir in full.split(os.sep) else os.path.normpath(full)

    def _load_version(self, path: str, old: _Script | None) -> _Script:
        try:
            source, content = Source.read(path) if old is None else Source.read_settled(path)
            # After the file: if a link to the directory is changed in between, the source is out of date, and
            # the next task loads again.
            directory = os.path.dirname(os.path.realpath(path))
        except (OSError, ValueError) as error:
            raise _unreadable(path, error, self._root) from error
        with self._lock:
            script = _Script(path, source, self._package(directory))
        try:
            script.load(content)
        except BaseException as error:
            with self._lock:
                self._forget(script.package, script.name)
            if isinstance(error, (SystemExit, KeyboardInterrupt)):
                raise _ended(path, error) from error
            if isinstance(error, SyntaxError) and (
                error.filename == path or script.package.contains(error.filename)
            ):
                raise _invalid(path, error) from error
            raise
        return script

    # What follows is called with the lock held.

    def _package(self, directory: str) -> Package:
        """The package of a directory in which nothing changed since it was loaded."""
        package = self._current.get(directory)
        if package is None or package.changed():
            package = Package(directory, renewed=package is not None)
            self._current[directory] = package
        return package

    def _keep(self, path: str, script: _Script) -> None:
        old = self._scripts.get(path)
        # Anew, at the end: the oldest come first.
        self._scripts.pop(path, None)
        self._scripts[path] = script
        if old is not None and old is not script:
            self._retire(old)

    def _evict(self) -> None:
        """Lets go of scripts above the limit: of the oldest that no task has used since this last looked."""
        for _ in range(len(self._scripts)):
            if len(self._scripts) <= self._limit:
                return
            path = next(iter(self._scripts))
            script = self._scripts.pop(path)
            if script.used:
                script.used = False
                self._scripts[path] = script
            else:
                self._retire(script)

    def _retire(self, script: _Script) -> None:
        self._replaced.append((weakref.ref(script), script.package, script.name))

    def _reap(self) -> None:
        """Drops the modules of replaced scripts that no task runs any more."""
        still_running = []
        for entry in self._replaced:
            reference, package, name = entry
            if reference() is None:
                self._forget(package, name)
            else:
                still_running.append(entry)
        self._replaced = still_running

    def _forget(self, package: Package, name: str) -> None:
        if package.forget(name):
            package.dispose()
            if self._current.get(package.directory) is package:
                del self._current[package.directory]


def _call(script: _Script, entry: Any, shape: str, *args: object) -> object:
    """Calls what a script defines. `shape` says how it has to be defined."""
    try:
        result = entry(*args)
        if type(result) is CoroutineType:
            result = asyncio.run(result)
        return result
    except (SystemExit, KeyboardInterrupt) as error:
        raise _ended(script.path, error) from error
    except TypeError:
        problem = _misfit(entry, shape, args)
        if problem is None:
            raise
    raise ScriptEntryError(script.path, problem, f"define {shape} in it")


def _misfit(entry: Any, shape: str, args: tuple[object, ...]) -> str | None:
    """Why the entry point cannot be called with these arguments, if it cannot."""
    name = shape.partition("(")[0]
    if entry is None:
        return f"it defines no {shape}"
    if not callable(entry):
        return f"its {name} is a {type(entry).__name__}, not a function"
    try:
        signature = inspect.signature(entry)
    except (TypeError, ValueError):
        return None  # nobody knows; the error that was raised tells what it can
    try:
        signature.bind(*args)
    except TypeError as error:
        return f"its {name}{signature} cannot be called as {shape}: {error}"
    return None


def _ended(path: str, error: SystemExit | KeyboardInterrupt) -> ScriptError:
    if isinstance(error, KeyboardInterrupt):
        return ScriptInterrupted(path)
    code = error.code
    # Anything else may be hard to send.
    return ScriptExit(path, code if code is None or type(code) in (int, str) else repr(code))


def _unreadable(path: str, error: OSError | ValueError, root: str) -> ScriptNotFound:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return ScriptNotFound(
        path,
        f"it cannot be read: {reason}",
        f"check the path (a relative one starts from {root!r}) and the file's permissions",
    )


def _invalid(path: str, error: SyntaxError) -> ScriptSyntaxError:
    file = "it" if error.filename == path else f"{error.filename}, which it imports,"
    where = f" (line {error.lineno}: {(error.text or '').strip()})" if error.lineno else ""
    return ScriptSyntaxError(
        path,
        f"{file} is not valid Python: {error.msg}{where}",
        "correct it and submit the task again",
    )

"""Modules of scripts, apart from everybody else's.

`python script.py` puts the script's directory in front of sys.path, so that `import helper` finds the file
beside it. A worker runs scripts of many directories, which may all have a helper.py of their own. So the
modules of one directory live in a package made for it, `_miniflow_scripts.<directory>`, that no other
directory sees; sys.path stays as it is.

* `from . import helper` and `from .helper import f` find files beside the script by the package's __path__.
* `import helper` does through an __import__ in the modules' own __builtins__, which looks beside the script
  first. As for `python script.py`, what is built in (`time`) or needed to start (`os`) cannot be hidden so.
* What everybody finds by that name, because the directory is on the program's own sys.path, is no sibling:
  the program and its scripts share its classes, and it is loaded once, as in any program.
* A script is not the sibling of its name: a helper that imports the script gets a second module, as it does
  for `python script.py`.
* The directory's own __init__.py is not run, and there is no `from .. import`.
* `importlib.import_module("helper")` knows nothing of the caller, and finds only what is on sys.path: use
  `importlib.import_module(".helper", __package__)`.
* What is put into the `builtins` module after a directory's first script was loaded, its scripts do not see.
* Byte code is neither read nor written. It is found by the second in which a file was changed, and its size:
  too coarse to tell whether a script was changed.
"""

from __future__ import annotations

import builtins
import hashlib
import importlib.util
import itertools
import os
import re
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)
from types import CodeType, ModuleType
from typing import Any

from .source import Source

__all__ = ["ROOT", "Package", "register_by_value", "tidy"]

ROOT = "_miniflow_scripts"
"""The package of the packages."""

# By name. The finder is asked for a name only, and gets from here to the package.
_packages: dict[str, Package] = {}
_naming = threading.Lock()

# What is loaded before a script is looked for, and so never found beside it.
_STARTUP = (
    "_collections_abc _sitebuiltins abc codecs encodings genericpath io os posixpath site stat __main__"
)
_NEVER_SIBLINGS = frozenset(sys.builtin_module_names) | frozenset(_STARTUP.split())

_MADE_UP = re.compile(rf"{ROOT}\.\w+\.(?:(\w+)@\d+)?")


def tidy(text: str) -> str:
    """Leaves of the modules' made-up names what their author called them."""
    return _MADE_UP.sub(r"\1", text) if ROOT in text else text


def register_by_value() -> bool:
    """Has cloudpickle take along what scripts define: nobody else can import it.

    Returns False if cloudpickle is not loaded, or is too old to be told.
    """
    cloudpickle = sys.modules.get("cloudpickle")
    register = getattr(cloudpickle, "register_pickle_by_value", None)
    if register is None:
        return False
    _install()
    register(sys.modules[ROOT])
    return True


class Package:
    """The modules loaded from one directory: its scripts, and the siblings that they import.

    Siblings are loaded once for all scripts of the directory. Nothing is ever loaded again in place: a
    script that changed is a new module, and when a sibling changed, a new package replaces the whole.
    """

    def __init__(self, directory: str, *, renewed: bool = False) -> None:
        """`renewed`: files changed a moment ago, and may still be written."""
        self.directory = directory
        self.scripts: set[str] = set()
        """The names of the scripts' modules. Their owner says when one is no longer in use."""
        self._renewed = renewed
        self._siblings: dict[str, Source] = {}
        self._is_sibling: dict[str, bool] = {}
        self._finders: dict[str, FileFinder] = {}
        # Which siblings a module imported, and for each script those that it depends on in the end.
        self._imports: dict[str, frozenset[str]] = {}
        self._noted: set[tuple[str, str, tuple[str, ...]]] = set()
        self._watched: dict[str, tuple[Source, ...]] = {}
        # Reentrant, and all it guards is replaced rather than changed: a garbage collection may run a
        # finalizer that imports something, at any point.
        self._lock = threading.RLock()
        # One dictionary for all modules: a function's builtins are those of its globals.
        self._builtins = {**vars(builtins), "__import__": self._import}
        with _naming:
            _install()
            self.name = _free_name(directory)
            # A loader that is never asked to load, but importlib.resources finds the directory by it.
            origin = os.path.join(directory, "__init__.py")
            spec = ModuleSpec(self.name, _Loader(self.name, origin), origin=origin, is_package=True)
            spec.submodule_search_locations = [directory]
            sys.modules[self.name] = importlib.util.module_from_spec(spec)
            _packages[self.name] = self

    def name_script(self, path: str) -> str:
        """Names the module that the script will be. The '@' keeps it apart from siblings of that name."""
        stem = re.sub(r"\W", "_", os.path.splitext(os.path.basename(path))[0], flags=re.ASCII)
        numbered = (f"{self.name}.{stem}@{number}" for number in itertools.count(1))
        name = next(name for name in numbered if name not in self.scripts)
        self.scripts.add(name)
        return name

    def load(self, name: str, path: str, content: bytes) -> ModuleType:
        """Runs a script's source as the module `name`, which name_script() gave.

        Raises what the script raises; the module is to be forgotten then.
        """
        # What a directory holds is remembered by its time stamp, too: a sibling may have come just now.
        self.forget_listings()
        loader = _Loader(name, path)
        spec = importlib.util.spec_from_file_location(name, path, loader=loader)
        assert spec is not None, "there is one for each file that has a loader"
        module = importlib.util.module_from_spec(spec)
        module.__dict__["__builtins__"] = self._builtins
        code = loader.compile(content)
        sys.modules[name] = module
        exec(code, module.__dict__)
        register_by_value()
        return module

    def watched(self, script: str) -> tuple[Source, ...]:
        """The siblings that this script has imported so far, directly or not."""
        return self._watched.get(script, ())

    def contains(self, path: str | None) -> bool:
        """Whether this file is in the directory, or below it."""
        return path is not None and path.startswith(os.path.join(self.directory, ""))

    def changed(self) -> bool:
        """Whether a sibling changed since it was loaded."""
        return any(source.changed() for source in list(self._siblings.values()))

    def forget(self, script: str) -> bool:
        """Drops the module of a script that nobody runs any more. Returns whether it was the last one."""
        if script not in self.scripts:
            return False
        with self._lock:
            self.scripts.remove(script)
            self._watched.pop(script, None)
            self._imports.pop(script, None)
            self._noted = {noted for noted in self._noted if noted[0] != script}
            sys.modules.pop(script, None)
        return not self.scripts

    def dispose(self) -> None:
        """Drops the package and all its modules."""
        with _naming:
            _packages.pop(self.name, None)
            prefix = self.name + "."
            for name in [name for name in list(sys.modules) if name.startswith(prefix)]:
                sys.modules.pop(name, None)
            sys.modules.pop(self.name, None)

    # What the finder and the loader need.

    def find(self, fullname: str, path: Sequence[str]) -> ModuleSpec | None:
        """Finds a module of this package in the directories of `path`."""
        portions: list[str] = []
        for entry in path:
            finder = self._finders.get(entry)
            if finder is None:
                finder = FileFinder(
                    entry,
                    (ExtensionFileLoader, EXTENSION_SUFFIXES),
                    (_Loader, SOURCE_SUFFIXES),
                    (SourcelessFileLoader, BYTECODE_SUFFIXES),
                )
                self._finders[entry] = finder
            spec = finder.find_spec(fullname)
            if spec is None:
                continue
            if spec.loader is not None:
                return spec
            portions.extend(spec.submodule_search_locations or ())
        if not portions:
            return None
        namespace = ModuleSpec(fullname, None, is_package=True)
        namespace.submodule_search_locations = portions
        return namespace

    def forget_listings(self) -> None:
        for finder in list(self._finders.values()):
            finder.invalidate_caches()

    def compile_sibling(self, loader: _Loader, fullname: str) -> CodeType:
        read = Source.read_settled if self._renewed else Source.read
        source, content = read(loader.path)
        code = loader.compile(content)
        self._siblings[fullname] = source
        return code

    def execute_sibling(self, loader: SourceFileLoader, module: ModuleType) -> None:
        module.__dict__["__builtins__"] = self._builtins
        try:
            SourceFileLoader.exec_module(loader, module)
        except BaseException:
            self._siblings.pop(module.__name__, None)
            raise

    # What the modules' import statements do.

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """The modules' __import__: looks beside the script first."""
        # Through the module: what others have put there in the meantime is to be asked as well.
        ordinary = builtins.__import__
        fromlist = fromlist or ()
        if level > 0:
            module = ordinary(name, globals, locals, fromlist, level)
            parent = globals.get("__package__") if globals else None
            if isinstance(parent, str):
                self._note(globals, importlib.util.resolve_name("." * level + name, parent), fromlist)
            return module
        top = name.partition(".")[0]
        if self._has(top):
            fullname = f"{self.name}.{name}"
            module = ordinary(fullname, globals, locals, fromlist, 0)
            self._note(globals, fullname, fromlist)
            return module if fromlist else sys.modules[f"{self.name}.{top}"]
        module = ordinary(name, globals, locals, fromlist, 0)
        # Not before: what nobody has yet may be put beside the script still.
        self._is_sibling[top] = False
        if top == "cloudpickle":
            register_by_value()
        return module

    def _has(self, top: str) -> bool:
        """Whether a top-level name is that of a sibling."""
        known = self._is_sibling.get(top)
        if known is not None:
            return known
        if top in _NEVER_SIBLINGS:
            return False
        spec = self.find(f"{self.name}.{top}", [self.directory])
        if spec is None:
            return False
        # A directory without __init__.py is a package only if nothing else has that name.
        if spec.loader is None and (top in sys.modules or importlib.util.find_spec(top)):
            return False
        if _is_public(top, spec):
            return False
        self._is_sibling[top] = True
        return True

    def _note(self, globals: Mapping[str, Any] | None, imported: str, fromlist: Sequence[str]) -> None:
        """Remembers which siblings a module imported, so that their change is one of its scripts' too."""
        importer = globals.get("__name__") if globals else None
        if not isinstance(importer, str):
            return  # code run by exec() in a dictionary of its own
        statement = (importer, imported, tuple(fromlist))
        if statement in self._noted:
            return
        names = {imported, *(f"{imported}.{item}" for item in fromlist)}
        if "*" in fromlist:
            names.update(name for name in list(self._siblings) if name.startswith(imported + "."))
        for name in list(names):
            while name := name.rpartition(".")[0]:
                names.add(name)
        with self._lock:
            known = self._imports.get(importer, frozenset())
            self._imports[importer] = known.union(names.intersection(list(self._siblings)))
            for script in list(self.scripts):
                self._watched[script] = self._closure(script)
            self._noted.add(statement)

    def _closure(self, script: str) -> tuple[Source, ...]:
        reached: set[str] = set()
        ahead = [script]
        while ahead:
            more = self._imports.get(ahead.pop(), frozenset()) - reached
            reached |= more
            ahead.extend(more)
        sources = (self._siblings.get(name) for name in sorted(reached))
        return tuple(source for source in sources if source is not None)


def _is_public(top: str, found: ModuleSpec) -> bool:
    """Whether everybody's `import top` finds the very file (or package) that is beside the script."""
    ordinary = PathFinder.find_spec(top)
    if ordinary is None or ordinary.origin is None or found.origin is None:
        return False
    return os.path.realpath(ordinary.origin) == os.path.realpath(found.origin)


class _Loader(SourceFileLoader):
    """Loads siblings; scripts have it for inspect and linecache."""

    def compile(self, content: bytes) -> CodeType:
        # Of null bytes Python does not say in which file they are; before 3.12 they are a ValueError.
        try:
            code: CodeType = self.source_to_code(content, self.path)
        except ValueError as error:
            raise SyntaxError(str(error), (self.path, None, None, None)) from None
        except SyntaxError as error:
            error.filename = error.filename or self.path
            raise
        return code

    def get_code(self, fullname: str) -> CodeType:
        return _package_of(fullname).compile_sibling(self, fullname)

    def exec_module(self, module: ModuleType) -> None:
        _package_of(module.__name__).execute_sibling(self, module)


class _Finder(MetaPathFinder):
    """Finds what is inside of the packages, for import statements and for importlib."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is None or not fullname.startswith(ROOT + "."):
            return None
        package = _packages.get(_package_name(fullname))
        return package.find(fullname, path) if package else None

    def invalidate_caches(self) -> None:
        for package in list(_packages.values()):
            package.forget_listings()


_finder = _Finder()


def _install() -> None:
    if ROOT not in sys.modules:
        spec = ModuleSpec(ROOT, None, is_package=True)
        sys.modules[ROOT] = importlib.util.module_from_spec(spec)
    if _finder not in sys.meta_path:
        # In front: the ordinary finder would find the files as well, and load them its own way.
        sys.meta_path.insert(0, _finder)


def _free_name(directory: str) -> str:
    # The same in all workers, so that what one of them pickled, another can read if it has it loaded.
    digest = hashlib.sha256(os.fsencode(directory)).hexdigest()[:8]
    stem = re.sub(r"\W", "_", os.path.basename(directory), flags=re.ASCII)
    base = f"{ROOT}.{stem}_{digest}"
    numbered = (f"{base}_{number}" for number in itertools.count(2))
    return next(name for name in itertools.chain([base], numbered) if name not in _packages)


def _package_name(fullname: str) -> str:
    return ".".join(fullname.split(".", 2)[:2])


def _package_of(fullname: str) -> Package:
    package = _packages.get(_package_name(fullname))
    if package is None:
        raise ImportError(f"the script that {fullname!r} belongs to was replaced and is gone", name=fullname)
    return package

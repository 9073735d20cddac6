"""Which library is loaded, and what is said of one that cannot be used."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from miniflow import _library
from miniflow._library import Prototype

COMPILER = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
PROTOTYPES = {
    "mf_short": Prototype(ctypes.c_int32, (ctypes.c_int32,), True),
    "mf_waits": Prototype(ctypes.c_int32, (), False),
}


def compiled(directory: Path, source: str) -> Path:
    if COMPILER is None:
        pytest.skip("no C compiler")
    path = directory / "libminiflow.so"
    subprocess.run(
        [COMPILER, "-shared", "-fPIC", "-x", "c", "-", "-o", str(path)], input=source.encode(), check=True
    )
    return path


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository that holds this package and nothing else, with no library named."""
    package = tmp_path / "python" / "src" / "miniflow"
    package.mkdir(parents=True)
    monkeypatch.setattr(_library, "__file__", str(package / "_library.py"))
    monkeypatch.delenv(_library.VARIABLE, raising=False)
    return tmp_path


def placed(path: Path, age: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (1_000_000_000 - age, 1_000_000_000 - age))
    return path


def test_the_environments_choice_comes_first(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    placed(checkout / "python/src/miniflow/_native.abi3.so")
    named = placed(checkout / "elsewhere/any-name.so")
    monkeypatch.setenv(_library.VARIABLE, str(named))
    assert _library.find() == named


def test_a_choice_that_is_not_there_is_refused_by_name(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(_library.VARIABLE, "/nowhere/libminiflow.so")
    with pytest.raises(ImportError, match=r"MINIFLOW_LIBRARY names /nowhere/libminiflow\.so"):
        _library.find()


def test_an_installed_package_uses_the_library_that_it_carries(checkout: Path) -> None:
    placed(checkout / "target/release/libminiflow.so")
    carried = placed(checkout / "python/src/miniflow/_native.abi3.so")
    assert _library.find() == carried


@pytest.mark.parametrize("newest", ["release", "debug"])
def test_a_checkout_uses_what_was_built_last(checkout: Path, newest: str) -> None:
    for profile in ("release", "debug"):
        placed(checkout / "target" / profile / "libminiflow.so", age=0 if profile == newest else 60)
    assert _library.find() == checkout / "target" / newest / "libminiflow.so"


def test_a_checkout_without_a_library_is_told_how_to_build_one(checkout: Path) -> None:
    placed(checkout / "include/miniflow.h")
    with pytest.raises(ImportError, match=f"cargo build --release --lib` in {checkout}"):
        _library.find()


def test_a_package_without_a_library_is_told_to_install_again(checkout: Path) -> None:
    with pytest.raises(ImportError, match="install the package again"):
        _library.find()


def test_a_file_that_is_no_library_is_refused_by_name(tmp_path: Path) -> None:
    path = placed(tmp_path / "empty.so")
    with pytest.raises(ImportError, match=r"cannot be loaded: .*empty\.so"):
        _library.load(path, 0, {})


def test_another_library_is_refused(tmp_path: Path) -> None:
    path = compiled(tmp_path, "int something(void) { return 0; }")
    with pytest.raises(ImportError, match=f"{path} is no miniflow library"):
        _library.load(path, 0, {})


def test_a_library_of_another_version_is_refused_with_both_versions(tmp_path: Path) -> None:
    path = compiled(tmp_path, "unsigned mf_abi_version(void) { return 7; }")
    with pytest.raises(ImportError, match=f"{path} has version 7 .* needs 3"):
        _library.load(path, 3, PROTOTYPES)


def test_a_library_that_lacks_a_function_is_refused_with_the_functions_name(tmp_path: Path) -> None:
    path = compiled(tmp_path, "unsigned mf_abi_version(void) { return 3; } int mf_short(int x) { return x; }")
    with pytest.raises(ImportError, match=f"{path} .version 3 .* has no mf_waits"):
        _library.load(path, 3, PROTOTYPES)


def test_only_short_functions_can_be_called_with_the_gil_kept(tmp_path: Path) -> None:
    path = compiled(
        tmp_path,
        "unsigned mf_abi_version(void) { return 3; } int mf_short(int x) { return x; } "
        "int mf_waits(void) { return 5; }",
    )
    lib, fast = _library.load(path, 3, PROTOTYPES)
    assert (lib.mf_short(4), lib.mf_waits(), fast.mf_short(4)) == (4, 5, 4)
    with pytest.raises(AttributeError, match="mf_waits may wait"):
        fast.mf_waits()
    with pytest.raises(ctypes.ArgumentError):
        fast.mf_short("no number")

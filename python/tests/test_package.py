"""What is installed is what this checkout says."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest

import miniflow
from miniflow import _abi

REPOSITORY = Path(__file__).resolve().parents[2]


def cargo_version() -> str:
    package = (REPOSITORY / "Cargo.toml").read_text().partition("[package]")[2].partition("\n[")[0]
    found = re.search(r'^version = "(.*)"$', package, re.MULTILINE)
    assert found is not None
    return found.group(1)


def test_the_library_and_the_package_have_one_version() -> None:
    assert cargo_version() == _abi.MF_VERSION_STRING


def test_a_wheel_has_the_version_of_the_crate_and_everything_that_belongs_in_it() -> None:
    installed = Path(miniflow.__file__).parent
    if installed.is_relative_to(REPOSITORY):
        pytest.skip("the package of this checkout is tested, not an installed one")
    distribution = metadata.distribution("miniflow")
    assert distribution.version == cargo_version()
    assert distribution.metadata["License-Expression"] == "MIT OR Apache-2.0"
    files = {str(path) for path in distribution.files or []}
    sources = REPOSITORY / "python" / "src"
    expected = {str(path.relative_to(sources)) for path in sources.rglob("*.py")}
    assert files >= {*expected, "miniflow/py.typed", "miniflow/_native.abi3.so"}
    modules = {name for name in files if name.endswith(".py")}
    assert modules == expected, "the wheel has modules that this checkout does not have"
    for name in ("LICENSE-MIT", "LICENSE-APACHE"):
        assert any(path.endswith(f".dist-info/licenses/{name}") for path in files)
    assert (installed / "_native.abi3.so").stat().st_size < 6 << 20, "it has debug information"

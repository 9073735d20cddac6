"""What pyproject.toml cannot say: the version is Cargo.toml's, and cargo builds the library."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import setup
from setuptools_rust import Binding, RustExtension

MANIFEST = Path(__file__).resolve().parent.parent / "Cargo.toml"


def version() -> str:
    """The version in Cargo.toml; `tomllib` is newer than the oldest Python that this is built with."""
    if not MANIFEST.is_file():
        raise SystemExit(f"{MANIFEST} is missing: build from a checkout of the whole repository")
    package = MANIFEST.read_text(encoding="utf-8").partition("[package]")[2].partition("\n[")[0]
    found = re.search(r'^version\s*=\s*"([^"]+)"', package, re.MULTILINE)
    if found is None:
        raise SystemExit(f"{MANIFEST} has no version in [package]")
    return found.group(1)


setup(
    version=version(),
    rust_extensions=[
        RustExtension(
            "miniflow._native",
            path=str(MANIFEST),
            binding=Binding.NoBinding,  # a plain shared library, loaded by ctypes
            args=["--no-default-features"],  # the library, not the command line
            cargo_manifest_args=["--locked"],
            # By the linker and not by `strip`, which a machine may lack. Names of functions stay: reports of
            # crashes have them.
            rustc_flags=["-Cstrip=debuginfo"],
            debug=False,  # also for `pip install --editable`
        )
    ],
)

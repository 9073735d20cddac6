#!/usr/bin/env bash
# The Python package as its users get it: one wheel, installed into a fresh venv of each Python, and the tests
# there. Two versions, 3.11 and the oldest other one of this machine, or with --all every one; arguments after
# `--` go to pytest. Types and style are checked once. Without a package index the tests run from the checkout.
set -euo pipefail
cd "$(dirname "$0")/.."

# Pinned: a newer version may find something new.
readonly MYPY=mypy==2.4.1 RUFF=ruff==0.17.6
readonly VERSIONS="3.9 3.10 3.11 3.12 3.13 3.14"

all=no
if [ "${1:-}" = --all ]; then all=yes; shift; fi
if [ "${1:-}" = -- ]; then shift; fi

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
unset MINIFLOW_LIBRARY PYTHONPATH PYTHONHOME # the wheel is tested, and nothing else
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say() { printf -- '--- %s\n' "$*"; }

# The interpreter of a version that can make venvs; fails if there is none.
interpreter() {
    local candidate
    for candidate in "python$1" python3 "$HOME/.pyenv/versions/$1".*/bin/python; do
        if "$candidate" -c "
import ensurepip, sys, venv
sys.exit(sys.implementation.name != 'cpython' or sys.version_info[:2] != ($(tr . , <<<"$1")))" 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

declare -A python
found=()
for version in $VERSIONS; do
    if python[$version]=$(interpreter "$version"); then found+=("$version"); fi
done
if [ ${#found[@]} -eq 0 ]; then
    echo "SKIP: no CPython of $VERSIONS with venv and ensurepip (Debian: python3-venv)"
    exit 0
fi

chosen=("${found[@]}")
if [ $all = no ]; then
    main=${found[-1]}
    case " ${found[*]} " in *" 3.11 "*) main=3.11 ;; esac
    chosen=("$main")
    for version in "${found[@]}"; do
        if [ "$version" != "$main" ]; then chosen=("$version" "$main"); break; fi
    done
fi
say "CPython here: ${found[*]}; tested: ${chosen[*]}"

# The tests against this checkout: what remains if nothing can be installed.
from_checkout() {
    cargo build --release --lib
    local version ran=no
    for version in "${chosen[@]}"; do
        if "${python[$version]}" -c 'import pytest' 2>/dev/null; then
            say "tests on CPython $version, from the checkout"
            PYTHONPATH="$PWD/python/src" "${python[$version]}" -m pytest python/tests -q -p no:cacheprovider "$@"
            ran=yes
        else
            echo "SKIP: CPython $version has no pytest, and no package index can be reached"
        fi
    done
    [ $ran = yes ] || echo "SKIP: no Python test has run"
}

venv() { # VERSION: makes $work/VERSION
    "${python[$1]}" -m venv "$work/$1"
}

venv "${chosen[0]}"
builder="$work/${chosen[0]}/bin/python"
if ! "$builder" -m pip install -q 'setuptools>=77.0.3' 'setuptools-rust>=1.10' wheel >"$work/pip.log" 2>&1; then
    tail -n 3 "$work/pip.log"
    echo "SKIP: the wheel: pip cannot install what builds it"
    from_checkout "$@"
    exit 0
fi

say "wheel"
rm -rf python/build # modules that are gone from the sources would still be in there
"$builder" -m pip wheel -q --no-deps --no-build-isolation --wheel-dir "$work/wheel" ./python
ls -s --block-size=KiB "$work/wheel"
wheel=("$work"/wheel/miniflow-*-cp39-abi3-linux_*.whl)
[ ${#wheel[@]} -eq 1 ] && [ -f "${wheel[0]}" ]

failed=() # the other versions are tested all the same
for version in "${chosen[@]}"; do
    [ -d "$work/$version" ] || venv "$version"
    bin="$work/$version/bin"
    "$bin/python" -m pip install -q "${wheel[0]}" 'pytest>=8'
    "$bin/python" -m pip install -q --only-binary :all: numpy >/dev/null 2>&1 ||
        echo "SKIP: tests with numpy on CPython $version: there is no wheel of it"
    say "tests on CPython $version"
    (cd "$work" && "$bin/python" -c '
import miniflow, sys
assert miniflow.__file__.startswith(sys.prefix), f"not the installed package: {miniflow.__file__}"')
    "$bin/python" -m pytest python/tests -q -p no:cacheprovider "$@" || failed+=("tests on CPython $version")
done

newest=${chosen[-1]}
if [ "${newest#3.}" -ge 11 ]; then
    say "types and style"
    bin="$work/$newest/bin"
    "$bin/python" -m pip install -q "$MYPY" "$RUFF"
    (cd python &&
        "$bin/mypy" --cache-dir "$work/mypy" &&
        "$bin/ruff" format --no-cache --check &&
        "$bin/ruff" check --no-cache --config pyproject.toml . ../examples/python ../tests/page) || failed+=("types and style")
else
    echo "SKIP: types and style: they are checked on CPython 3.11 or newer"
fi

if [ ${#failed[@]} -gt 0 ]; then
    printf 'FAILED: %s\n' "${failed[@]}" >&2
    exit 1
fi

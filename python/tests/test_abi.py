"""The declarations of miniflow._abi are what include/miniflow.h says, according to a C compiler."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from miniflow import _abi, _core

HEADER = Path(__file__).resolve().parents[2] / "include" / "miniflow.h"
COMPILER = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")

LEFT_OUT_CONSTANTS = {
    "MF_VERSION_MAJOR",
    "MF_VERSION_MINOR",
    "MF_VERSION_PATCH",
}  # there is MF_VERSION_STRING

SCALARS = {
    ctypes.c_int32: "int32_t",
    ctypes.c_int64: "int64_t",
    ctypes.c_uint32: "uint32_t",
    ctypes.c_uint64: "uint64_t",
}


class Header(NamedTuple):
    """What is in the header: the values of constants, the layouts of structures, the text of prototypes."""

    constants: dict[str, Any]
    structs: dict[str, dict[str, Any]]
    functions: dict[str, tuple[str, list[str]]]


@pytest.fixture(scope="module")
def header(tmp_path_factory: pytest.TempPathFactory) -> Header:
    if COMPILER is None:
        pytest.skip("no C compiler")
    text = compiler("-E", "-P", str(HEADER))
    macros = re.findall(r"^#define (MF_\w+) \S", compiler("-E", "-dM", str(HEADER)), re.MULTILINE)
    bodies = re.findall(r"typedef struct (mf_\w+) \{(.*?)\} \1;", text, re.DOTALL)
    fields = {name: re.findall(r"(\w+)(?:\[\d+\])?;", body) for name, body in bodies}
    functions = {}
    for answer, name, arguments in re.findall(r"([\w ]+ \*?)(mf_\w+)\(([^()]*)\);", text):
        kinds = [re.sub(r"\w+$", "", argument).strip() for argument in arguments.split(",")]
        functions[name] = (answer.strip(), [] if arguments.strip() == "void" else kinds)

    program = tmp_path_factory.mktemp("header") / "show"
    compiler("-o", str(program), "-x", "c", "-", given=show(sorted(macros), fields))
    shown = json.loads(subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout)
    return Header(shown["constants"], shown["structs"], functions)


def compiler(*arguments: str, given: str | None = None) -> str:
    assert COMPILER is not None
    return subprocess.run(
        [COMPILER, "-I", str(HEADER.parent), *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        input=given,
    ).stdout


def show(constants: list[str], structs: dict[str, list[str]]) -> str:
    """A C program that prints, as JSON, the constants' values and the structures' layouts."""
    kinds = ", ".join(f'{kind}: "{kind}"' for kind in SCALARS.values())
    lines = ["#include <miniflow.h>", "#include <stddef.h>", "#include <stdio.h>"]
    lines += [f'#define KIND(s, f) _Generic(((struct s *)0)->f, {kinds}, default: "other")']
    lines += ['#define SHOW(x) _Generic((x), char *: "\\"%s\\"", uint32_t: "%u", long: "%ld", default: "%d")']
    lines += ["int main(void) {", r'printf("{\"constants\": {");']
    for index, name in enumerate(constants):
        lines += [rf'printf("%s\"{name}\": ", "{", " if index else ""}"); printf(SHOW({name}), {name});']
    lines += [r'printf("}, \"structs\": {");']
    for index, (struct, fields) in enumerate(structs.items()):
        comma = ", " if index else ""
        lines += [rf'printf("{comma}\"{struct}\": {{\"size\": %zu, \"fields\": [", sizeof(struct {struct}));']
        for at, field in enumerate(fields):
            comma = ", " if at else ""
            lines += [
                rf'printf("{comma}[\"{field}\", %zu, %zu, \"%s\"]", offsetof(struct {struct}, {field}), '
                f"sizeof(((struct {struct} *)0)->{field}), KIND({struct}, {field}));"
            ]
        lines += ['printf("]}");']
    lines += ['printf("}}\\n");', "return 0; }"]
    return "\n".join(lines)


def python_name(struct: str) -> str:
    """`TaskId` for `mf_task_id`."""
    return "".join(part.capitalize() for part in struct.split("_")[1:])


def declared_structs() -> dict[str, type[ctypes.Structure]]:
    return {
        name: value
        for name, value in vars(_abi).items()
        if isinstance(value, type) and issubclass(value, ctypes.Structure) and value is not ctypes.Structure
    }


def test_every_constant_has_the_headers_value(header: Header) -> None:
    declared = {name: value for name, value in vars(_abi).items() if name.startswith("MF_")}
    expected = {name: value for name, value in header.constants.items() if name not in LEFT_OUT_CONSTANTS}
    assert len(expected) > 40
    assert declared == expected


def test_every_structure_has_the_headers_size_and_fields(header: Header) -> None:
    declared = declared_structs()
    assert set(declared) == {python_name(name) for name in header.structs}
    for name, layout in header.structs.items():
        struct = declared[python_name(name)]
        fields = [
            [field, getattr(struct, field).offset, ctypes.sizeof(kind), SCALARS.get(kind, "other")]
            for field, kind in struct._fields_
        ]
        assert fields == layout["fields"], name
        assert ctypes.sizeof(struct) == layout["size"], name


def test_a_completion_is_of_the_frozen_size() -> None:
    assert ctypes.sizeof(_abi.Completion) == 128
    assert ctypes.sizeof(_abi.TaskId) == 16


def test_completions_are_read_in_bulk_where_their_fields_are() -> None:
    read = "user_data outcome code flags worker attempt data len queued_ns run_ns handle".split()
    row = _abi.Completion()
    row.id.bytes[:] = [1, *([0] * 15)]
    for value, field in enumerate(read, start=2):
        setattr(row, field, value)
    assert _core._ROW.unpack(row) == tuple(range(1, len(read) + 2))
    assert _core._ROW.size == ctypes.sizeof(row)
    words = memoryview(row).cast("B").cast("Q")
    assert words[_core._HANDLE_WORD] == row.handle


def test_every_function_is_declared(header: Header) -> None:
    assert len(header.functions) > 40
    assert set(_abi.PROTOTYPES) == set(header.functions)


def in_ctypes(kind: str, structs: dict[str, type[ctypes.Structure]]) -> Any:
    """What ctypes calls a C type of the header."""
    plain = kind.replace("const ", "").replace("struct ", "").strip()
    name = plain.rstrip("* ")
    if plain.endswith("**"):
        return ctypes.POINTER(ctypes.c_void_p)  # a handle or an address that is handed out
    if plain.endswith("*"):
        if python_name(name) in structs:
            return ctypes.POINTER(structs[python_name(name)])
        if name == "char":
            return ctypes.c_char_p if "const" in kind else ctypes.POINTER(ctypes.c_char)
        numbers = {"size_t": ctypes.c_size_t, "uint64_t": ctypes.c_uint64}
        return ctypes.POINTER(numbers[name]) if name in numbers else ctypes.c_void_p
    names = {name: scalar for scalar, name in SCALARS.items()}
    others = {
        "size_t": ctypes.c_size_t,
        "mf_class": ctypes.c_int32,
        "mf_dispatch_fn": ctypes.c_void_p,
        "mf_log_fn": ctypes.c_void_p,
    }
    return {**names, **others}[plain]


def test_every_function_takes_and_gives_what_the_header_says(header: Header) -> None:
    structs = declared_structs()
    for name, prototype in _abi.PROTOTYPES.items():
        gives, takes = header.functions[name]
        assert prototype.restype == in_ctypes(gives, structs), name
        assert list(prototype.argtypes) == [in_ctypes(kind, structs) for kind in takes], name


def test_both_handles_have_the_declarations_and_the_fast_one_nothing_that_must_wait() -> None:
    for name, prototype in _abi.PROTOTYPES.items():
        assert vars(_abi.lib)[name].argtypes == prototype.argtypes
        if prototype.short:
            assert vars(_abi.fast)[name].argtypes == prototype.argtypes
        else:
            with pytest.raises(AttributeError, match=f"{name} may wait"):
                getattr(_abi.fast, name)


def test_the_defaults_are_filled_in_where_the_declarations_expect_them() -> None:
    config = _abi.Config()
    _abi.check(_abi.lib.mf_config_init(config, ctypes.sizeof(config)))
    assert config.size == ctypes.sizeof(config)
    assert config.classes[_abi.MF_CPU_BOUND].max_workers >= 1
    assert config.max_payload > 0
    assert config.hang_timeout_ns > 0
    options = _abi.SubmitOpts()
    _abi.check(_abi.fast.mf_submit_opts_init(options, ctypes.sizeof(options)))
    assert (options.size, options.task_class) == (ctypes.sizeof(options), _abi.MF_CPU_BOUND)


def test_a_refused_call_raises_with_the_librarys_text_and_the_codes_name() -> None:
    config = _abi.Config()
    _abi.check(_abi.lib.mf_config_init(config, ctypes.sizeof(config)))
    engine = ctypes.c_void_p()
    with pytest.raises(_abi.EngineError, match=r"worker_argv.*MF_E_INVALID"):
        _abi.check(_abi.lib.mf_engine_start(config, ctypes.byref(engine)))
    assert engine.value is None


def test_the_library_is_the_one_that_was_asked_for() -> None:
    named = os.environ.get("MINIFLOW_LIBRARY")
    beside = [str(path) for path in Path(_abi.__file__).parent.glob("_native*.so")]
    assert _abi.path in ([named] if named else beside)

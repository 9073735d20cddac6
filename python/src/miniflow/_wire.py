"""What travels between a host and its Python workers.

The first byte of a payload or a result is its kind; the rest is a pickle (protocol 5), or JSON for
hosts that are not Python. Buffers that pickle can leave out of its stream (PEP 574: numpy arrays,
``PickleBuffer``) lie behind it in an envelope of kind ``BUFFERS``, so that they are copied once, into
shared memory, and read there:

====== ===== ==========================================================================
offset bytes what, little-endian
====== ===== ==========================================================================
0      1     ``b"B"``
1      7     0
8      4     number of buffers
12     4     0
16     8     length of the inner message (kind and pickle)
24     16 n  for each buffer: offset from the start of the envelope, length
..           the inner message, then the buffers, each at a multiple of 64 bytes
====== ===== ==========================================================================
"""

from __future__ import annotations

import hashlib
import os
import pickle
import pickletools
import struct
import sys
import weakref
from ctypes import c_char
from types import FunctionType
from typing import Any, Callable, Union, cast

from .errors import TaskError

# Payloads.
CALL = b"C"  # pickle of (function, args, kwargs)
CHUNK = b"M"  # pickle of (function, [args, ...]); its value is the list of results
SCRIPT = b"S"  # pickle of (path, params), or (path, params, task id) if that is no UUID
ITEM = b"O"  # pickle of a Manager's item
JSON_SCRIPT = b"J"  # JSON: {"script": path, "params": any, "task_id": text}
# Results of tasks that completed.
VALUE = b"V"  # pickle of the value
VALUE_AND_OUTPUT = b"T"  # pickle of (value, stdout, stderr)
JSON_VALUE = b"j"  # JSON: {"data": any, "stdout": text?, "stderr": text?}
# Results of tasks that raised.
RAISED = b"E"  # pickle of (pickle of the exception or None, type, text, traceback, stdout, stderr)
JSON_RAISED = b"e"  # JSON: {"error": text, "type": text, "traceback": text, "stdout": .., "stderr": ..}
# Either, with buffers out of band.
BUFFERS = b"B"

# Results of so many bytes need no memory of their own, and are returned without waiting for any.
INLINE = 152

Message = Union[bytes, "Envelope"]
Readable = Union[bytes, memoryview]

_ALIGN = 64
_HEAD = struct.Struct("<c7xIIQ")
_SPAN = struct.Struct("<QQ")
_MAIN = b"__main__"


class Envelope:
    """A message with buffers out of band, not yet laid out in memory."""

    __slots__ = ("_buffers", "_head", "_inner", "_offsets", "size")

    def __init__(self, inner: bytes, buffers: list[pickle.PickleBuffer]) -> None:
        self._inner = inner
        # raw() refuses what is not contiguous; pickle hands out no such buffers.
        self._buffers = [buffer.raw() for buffer in buffers]
        head = bytearray(_HEAD.pack(BUFFERS, len(buffers), 0, len(inner)))
        end = _HEAD.size + _SPAN.size * len(buffers) + len(inner)
        self._offsets = []
        for raw in self._buffers:
            start = -(-end // _ALIGN) * _ALIGN
            self._offsets.append(start)
            head += _SPAN.pack(start, raw.nbytes)
            end = start + raw.nbytes
        self._head = bytes(head)
        self.size = end

    def write(self, address: int) -> None:
        """Lays the envelope out at ``address``, where there are ``size`` bytes of room."""
        target = (c_char * self.size).from_address(address)
        into = memoryview(target).cast("B")
        start = len(self._head)
        into[:start] = self._head
        into[start : start + len(self._inner)] = self._inner
        for offset, raw in zip(self._offsets, self._buffers):
            into[offset : offset + raw.nbytes] = raw


def dump(kind: bytes, value: object) -> Message:
    """A message of ``kind``; what pickle cannot name on the other side goes by cloudpickle.

    Raises :class:`TaskError` if it cannot be pickled at all.
    """
    buffers: list[pickle.PickleBuffer] = []
    try:
        stream = pickle.dumps(value, 5, buffer_callback=buffers.append)
    except Exception as error:  # anything that a __reduce__ raises
        stream = _dump_by_value(value, buffers, error)
    else:
        if _MAIN in stream and names(stream, "__main__"):
            # Something of this process's main module, which is another module over there.
            stream = _dump_by_value(value, buffers, None)
    return pack(kind, stream, buffers)


def names(stream: bytes, module: str) -> bool:
    """Whether a pickle names something of a module, rather than holding the module's name in a text."""
    inside = module + "."
    texts: list[object] = ["", ""]  # the last two: what STACK_GLOBAL takes
    memo: list[object] = []
    for opcode, value, _ in pickletools.genops(stream):
        name = opcode.name
        if name == "STACK_GLOBAL":
            if any(isinstance(text, str) and (text == module or text.startswith(inside)) for text in texts):
                return True
        elif name == "MEMOIZE":
            memo.append(texts[-1])
        elif name in ("BINGET", "LONG_BINGET"):
            texts = [texts[-1], memo[value] if isinstance(value, int) and value < len(memo) else None]
        elif name not in ("PROTO", "FRAME"):
            texts = [texts[-1], value]
    return False


def pack(kind: bytes, stream: bytes, buffers: list[pickle.PickleBuffer]) -> Message:
    """A message of a pickle and the buffers that it left out."""
    if buffers:
        return Envelope(kind + stream, buffers)
    return kind + stream


def _dump_by_value(value: object, buffers: list[pickle.PickleBuffer], error: Exception | None) -> bytes:
    del buffers[:]
    try:
        import cloudpickle  # deferred: most programs never need it
    except ImportError:
        if error is None:
            why = "it is defined in the main module"
        else:
            why = f"{type(error).__name__}: {error}"
        raise TaskError(
            f"cannot send it to a worker ({why}): move functions and classes into a module "
            "that workers can import, or install cloudpickle"
        ) from error
    try:
        return cast(bytes, cloudpickle.dumps(_by_value(value), 5, buffer_callback=buffers.append))
    except Exception as second:
        raise TaskError(f"cannot be pickled: {type(second).__name__}: {second}") from second


class Function:
    """A function of the main module, sent by value; a worker loads it once and keeps it, so that it
    finds its own globals again in the next task, as a function of a module does.

    A long one (with the data that it uses) lies in an unnamed file of this process, and is not sent:
    workers that do not have it yet read it there.
    """

    __slots__ = ("_blob", "_digest", "_fd", "_size")

    def __init__(self, blob: bytes) -> None:
        self._digest = hashlib.sha256(blob).digest()
        self._size = len(blob)
        self._blob: bytes | None = blob
        self._fd = -1
        if len(blob) >= _APART_FROM:
            # Open as long as this process lives: a task that needs it may be queued anywhere.
            self._fd = os.memfd_create("miniflow-function", os.MFD_CLOEXEC)
            with open(self._fd, "wb", closefd=False) as file:
                file.write(blob)
            self._blob = None

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return load_function, (self._digest, self._blob, os.getpid(), self._fd)


_APART_FROM = 16 << 10
_sent: weakref.WeakKeyDictionary[FunctionType, Function] = weakref.WeakKeyDictionary()
_loaded: dict[bytes, Any] = {}


def _by_value(value: object) -> object:
    """A call whose function is pickled once, if it is a plain function of the main module."""
    if not isinstance(value, tuple) or not value:
        return value
    function = value[0]
    if (
        not isinstance(function, FunctionType)
        or function.__module__ != "__main__"
        or function.__closure__ is not None
        or "<" in function.__qualname__
        or _at_a_prompt()
    ):
        return value
    known = _sent.get(function)
    if known is None:
        import cloudpickle

        known = _sent[function] = Function(cloudpickle.dumps(function, 5))
    return (known, *value[1:])


def _at_a_prompt() -> bool:
    """A session there redefines what its functions use, which a script does not."""
    flags = sys.flags
    return bool(flags.interactive or flags.inspect or not hasattr(sys.modules.get("__main__"), "__file__"))


def load_function(digest: bytes, blob: bytes | None, host: int, fd: int) -> Any:
    """In a worker: the function of a :class:`Function`, the same one every time."""
    function = _loaded.get(digest)
    if function is None:
        if blob is None:
            with open(f"/proc/{host}/fd/{fd}", "rb") as file:
                blob = file.read()
        # setdefault: of two threads that load it at once, one wins.
        function = _loaded.setdefault(digest, pickle.loads(blob))
    return function


def loads(message: Readable) -> Any:
    """The object in a message behind its kind byte, or in an envelope.

    Buffers of an envelope are views of ``message``, read-only if that is."""
    if message[0] != 66:  # BUFFERS
        return pickle.loads(message[1:])
    view = memoryview(message)
    _, count, _, length = _HEAD.unpack_from(view)
    start = _HEAD.size + _SPAN.size * count
    spans = _SPAN.iter_unpack(view[_HEAD.size : start])
    return pickle.loads(
        view[start + 1 : start + length], buffers=[view[at : at + size] for at, size in spans]
    )


def kind_of(message: Readable) -> bytes:
    """The kind of a message, or of the one in an envelope."""
    kind = bytes(message[:1])
    if kind != BUFFERS:
        return kind
    count: int = _HEAD.unpack_from(message)[1]
    start = _HEAD.size + _SPAN.size * count
    return bytes(message[start : start + 1])


def readable(address: int, length: int) -> memoryview:
    """A read-only view of memory; valid as long as somebody keeps that memory."""
    return memoryview((c_char * length).from_address(address)).cast("B").toreadonly()

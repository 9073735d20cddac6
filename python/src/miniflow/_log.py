"""The library's log, in Python's `logging`: the loggers ``miniflow`` and below.

The library never calls back: a log record that needs the interpreter's lock, from a thread that holds
one of the engine's, could wait for ever. It keeps its records in a bounded queue, and a thread here
fetches them. Without a handler of the program's, nothing is printed.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading

from . import _abi

logger = logging.getLogger("miniflow")
logger.addHandler(logging.NullHandler())

_LEVELS = {
    _abi.MF_LOG_ERROR: logging.ERROR,
    _abi.MF_LOG_WARN: logging.WARNING,
    _abi.MF_LOG_INFO: logging.INFO,
    _abi.MF_LOG_DEBUG: logging.DEBUG,
    _abi.MF_LOG_TRACE: 5,
}

_reader: threading.Thread | None = None
_engines = 0
_lock = threading.RLock()


def start() -> None:
    """Makes the library log what the logger ``miniflow`` lets through now. Called for each engine that
    starts; the thread that reads is there while there are any."""
    global _reader, _engines
    threshold = logger.getEffectiveLevel()
    level = max((ours for ours, theirs in _LEVELS.items() if theirs >= threshold), default=_abi.MF_LOG_OFF)
    with _lock:
        _engines += 1
        if _abi.fast.mf_log_level(level) != _abi.MF_OK:
            return  # the program that embeds this interpreter has a log of its own
        if _reader is None and level:
            _reader = threading.Thread(target=_read, name="miniflow-log", daemon=True)
            _reader.start()


def reader() -> threading.Thread | None:
    """The thread that fetches records, if there is one."""
    return _reader


def stop() -> None:
    """An engine is gone. With the last one, what it had to say is handed on and the thread ends."""
    global _reader, _engines
    with _lock:
        _engines -= 1
        if _engines > 0:
            return
        reader, _reader = _reader, None
    if reader is not None:
        _abi.fast.mf_log_wake()
        if reader is not threading.current_thread():  # the collector may run anywhere
            reader.join(1.0)


def _read() -> None:
    record = _abi.LogRecord()
    record.size = ctypes.sizeof(record)
    wait = -1
    while True:
        answer = _abi.lib.mf_log_read(record, wait)
        if answer == _abi.MF_E_CLOSED and wait:
            wait = 0  # the last ones
            continue
        if answer != _abi.MF_OK:
            return
        if record.dropped:
            logger.warning("%d log records were lost: they came faster than they were read", record.dropped)
        target = record.target.decode("utf-8", "replace").replace("::", ".")
        logging.getLogger(target if target.startswith("miniflow") else "miniflow").log(
            _LEVELS.get(record.level, logging.DEBUG), "%s", record.message.decode("utf-8", "replace")
        )


def _forget() -> None:
    """In a forked child: the engines, and the thread that read, are the parent's."""
    global _reader, _engines, _lock
    _reader = None
    _engines = 0
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_forget)

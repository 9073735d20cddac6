"""The zygote: an interpreter that imports what was asked for, once, and forks workers.

It has one thread, unless a preloaded module has made more, and no memory of any engine. The library
does the talking to the host while it waits for the next worker to fork, and ends it with the host.
"""

from __future__ import annotations

import base64
import ctypes
import gc
import importlib
import os
import signal
import sys
import traceback
import warnings
from typing import Any, NoReturn

# Numerical libraries start a thread for each processor; a pool of workers has one process for each.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def main(setup: dict[str, Any]) -> int:
    """Serves until the engine ends; the exit code of the process."""
    os.environ["MINIFLOW_LIBRARY"] = setup["library"]
    for name in _THREADS:
        os.environ.setdefault(name, str(setup["blas_threads"]))
    from .. import _abi

    fd = _abi.check(_abi.lib.mf_zygote_open())
    try:
        for module in setup["preload"]:
            importlib.import_module(module)
        # What every worker needs, so that none of them has to load it.
        from . import pool, tasks  # noqa: F401
    except BaseException as error:
        why = "".join(traceback.format_exception_only(type(error), error)).strip()
        _abi.lib.mf_zygote_fail(fd, f"the workers' modules cannot be imported: {why}".encode())
        return 1
    # What is here now stays: a worker's collector would only copy its pages.
    gc.collect()
    gc.freeze()
    # A preloaded module that has threads was made for that: the host never forks.
    warnings.filterwarnings("ignore", ".*multi-threaded.*fork", DeprecationWarning)
    request = _abi.ZygoteRequest()
    request.size = ctypes.sizeof(request)
    while True:
        answer = _abi.lib.mf_zygote_recv(fd, request)
        if answer == _abi.MF_E_CLOSED:
            return 0
        _abi.check(answer)
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            pid = os.fork()
        except OSError as error:
            _abi.lib.mf_zygote_reply(fd, request, -(error.errno or 1))
            continue
        if pid == 0:
            _become_worker(setup)
        _abi.lib.mf_zygote_reply(fd, request, pid)


def _become_worker(setup: dict[str, Any]) -> NoReturn:
    """In the forked child: runs tasks until the engine wants no more, and never returns."""
    code = 70
    try:
        from . import pool, tasks

        worker = pool.join()
        # Who interrupts the program does not mean its tasks. A handler, unlike SIG_IGN, is not handed
        # down to what a task executes.
        signal.signal(signal.SIGINT, lambda *_: None)
        if setup["memory_limit"] is not None:
            import resource

            # Private writable memory only: the shared arenas do not count.
            resource.setrlimit(resource.RLIMIT_DATA, (setup["memory_limit"],) * 2)
        initializer = setup["initializer"]
        runner = tasks.Runner(worker, capture=setup["capture"], first_io_worker=setup["first_io_worker"])
        if initializer is not None:
            runner.initialize(base64.b64decode(initializer))
        pool.serve(worker, runner)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            # Without the interpreter's farewell: it would run what the zygote has registered.
            os._exit(code)

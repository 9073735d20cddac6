"""The threads of a Python worker, each of which takes tasks, runs them and replies."""

from __future__ import annotations

import ctypes
import threading
import weakref

from .. import _abi, _wire
from .tasks import Runner

_RAISED = 1  # the code of a task that raised
# Payloads from so many bytes on are read where they are; shorter ones are copied.
_VIEW_FROM = 32 << 10
# How many tasks a thread takes in a row with the interpreter's lock kept, if they are there. To let go of
# it at every look would hand it to the next thread each time: two switches for a task that may take less
# than one. Never to do so would make threads that come back from waiting wait again.
_IN_A_ROW = 16


def join() -> ctypes.c_void_p:
    """Joins the lane that this process inherited."""
    worker = ctypes.c_void_p()
    _abi.check(_abi.lib.mf_worker_join(ctypes.byref(worker)))
    return worker


def serve(worker: ctypes.c_void_p, runner: Runner) -> None:
    """Runs tasks on as many threads as the engine says, this one included, until it wants no more."""
    count = _abi.check(_abi.lib.mf_worker_concurrency(worker))
    threads = [
        threading.Thread(target=_loop, args=(worker, runner), name=f"task-{n}", daemon=True)
        for n in range(1, count)
    ]
    for thread in threads:
        thread.start()
    # The main thread is one of them: what works only there, such as signal handlers, does.
    _loop(worker, runner)
    for thread in threads:
        thread.join()


def _loop(worker: ctypes.c_void_p, runner: Runner) -> None:
    work = _abi.Work()
    work.size = ctypes.sizeof(work)
    place = ctypes.byref(work)
    look = _abi.fast.mf_worker_take
    take = _abi.lib.mf_worker_take
    end_inline = _abi.fast.mf_task_end
    end = _abi.lib.mf_task_end
    run = runner.run
    copy = ctypes.string_at
    none, closed = _abi.MF_E_TIMEOUT, _abi.MF_E_CLOSED
    kept = 0
    while True:
        kept += 1
        answer = look(worker, place, 0) if kept <= _IN_A_ROW else none
        if answer == none:
            kept = 0
            answer = take(worker, place, -1)
        if answer == closed:
            return
        _abi.check(answer)
        task = work.task
        size = work.len
        if size >= _VIEW_FROM:
            _run_in_place(runner, work)
            continue
        code, reply = run(work, copy(work.payload or 0, size))
        if reply.__class__ is bytes:
            length = len(reply)
            finish = end_inline if length <= _wire.INLINE else end
            if finish(task, code, reply, length) == 0:
                continue
        _abi.check(_abi.lib.mf_task_finish(task, _store(runner, task, code, reply)))


def _run_in_place(runner: Runner, work: _abi.Work) -> None:
    """Runs a task whose payload is read in shared memory, also by what the task keeps of it."""
    task = work.task
    payload = _Payload(task)
    code, reply = runner.run(work, payload.message())
    code = _store(runner, task, code, reply)
    del reply
    payload.close()
    _abi.check(_abi.lib.mf_task_finish(task, code))


def _store(runner: Runner, task: int | None, code: int, reply: _wire.Message) -> int:
    """Makes `reply` the task's result, or what can be said if there is no room; the task's code."""
    if isinstance(reply, _wire.Envelope):
        address = ctypes.c_void_p()
        answer = _abi.lib.mf_task_reply_buf(task, reply.size, ctypes.byref(address))
        if answer == 0 and address.value is not None:
            reply.write(address.value)
        size = reply.size
    else:
        size = len(reply)
        if code:
            answer = _abi.lib.mf_task_fail_data(task, code, reply, size)
        else:
            answer = _abi.lib.mf_task_reply(task, reply, size)
    if answer == 0:
        return code
    why = f"the task's result of {size} bytes cannot be returned: {_abi.error_text()}"
    # A host that sent JSON reads no pickles.
    as_json = not isinstance(reply, _wire.Envelope) and reply[:1] in (_wire.JSON_VALUE, _wire.JSON_RAISED)
    excuse = runner.refusal(why, as_json=as_json)
    if _abi.lib.mf_task_fail_data(task, _RAISED, excuse, len(excuse)) != 0:
        _abi.check(_abi.lib.mf_task_fail(task, _RAISED, why.encode()))
    return _RAISED


class _Payload:
    """The payload of a task in a mapping of its own.

    What a task keeps of it (an array in a global) stays as it is: at the end of the task the mapping
    becomes memory of this process, if somebody still refers to it.
    """

    def __init__(self, task: int | None) -> None:
        address = ctypes.c_void_p()
        size = ctypes.c_size_t()
        self._view = ctypes.c_uint64()
        _abi.check(
            _abi.lib.mf_task_view(task, ctypes.byref(address), ctypes.byref(size), ctypes.byref(self._view))
        )
        if address.value is None:
            raise MemoryError("the payload has no address")
        self._memory = (ctypes.c_char * size.value).from_address(address.value)

    def message(self) -> memoryview:
        """The payload, read-only."""
        return memoryview(self._memory).cast("B").toreadonly()

    def close(self) -> None:
        """At the end of the task, when its own references are gone."""
        kept = weakref.ref(self._memory)
        del self._memory
        memory = kept()
        if memory is None:
            _abi.check(_abi.lib.mf_view_release(self._view))
        else:
            _abi.check(_abi.lib.mf_view_detach(self._view))
            weakref.finalize(memory, _abi.lib.mf_view_release, self._view).atexit = False

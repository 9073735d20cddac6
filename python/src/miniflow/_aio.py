"""Tasks awaited in asyncio: settled by the event loop, through the engine's event descriptor."""

from __future__ import annotations

import asyncio
from typing import Any

from . import _abi, _outcome, _wire
from ._core import Core
from .errors import QueueFull

# How long a submitter sleeps while the engine is full.
_FULL_NAP = 0.001


class _Awaited:
    """The sink of a task that a coroutine awaits."""

    __slots__ = ("future", "ident", "loop", "settled", "token")

    ident: _abi.TaskId
    token: int

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.settled = False
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()

    def settle(
        self,
        outcome: int,
        code: int,
        flags: int,
        worker: int,
        attempt: int,
        data: _wire.Readable,
        queued_ns: int,
        run_ns: int,
    ) -> None:
        """Takes the end of the task, on any thread."""
        if self.settled:
            return
        value: Any = None
        error: BaseException | None = None
        try:
            if outcome == _abi.MF_COMPLETED:
                value = _outcome.value(data)[0]
            else:
                error = _outcome.failure(outcome, code, flags, worker, attempt, data)
        except Exception as unreadable:
            error = unreadable
        if asyncio._get_running_loop() is self.loop:
            _resolve(self.future, value, error)
        else:
            try:
                self.loop.call_soon_threadsafe(_resolve, self.future, value, error)
            except RuntimeError:
                pass  # the loop is closed: nobody awaits it any more
        self.settled = True


def _resolve(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if future.done():
        return  # cancelled, or told twice after an interrupt
    if error is None:
        future.set_result(value)
    elif isinstance(error, StopIteration):  # which a future refuses to carry
        wrapped = RuntimeError("the task raised StopIteration")
        wrapped.__cause__ = error
        future.set_exception(wrapped)
    else:
        future.set_exception(error)


async def run(core: Core, kind: bytes, value: object, opts: _abi.SubmitOpts) -> Any:
    """Submits a task, waiting for room if the engine is full, and awaits its end.

    If the coroutine is cancelled, the task is: it never runs, or it is told that it is cancelled.
    """
    loop = asyncio.get_running_loop()
    sink = _Awaited(loop)
    while True:
        attached = core.attach(loop)
        try:
            core.submit(kind, value, sink, opts, block=False)
            break
        except QueueFull:
            core.drive(0)
            await asyncio.sleep(_FULL_NAP)
    if not attached:  # a loop that cannot watch descriptors
        core.watch(sink)
    try:
        return await sink.future
    except asyncio.CancelledError:
        if not sink.settled and not core.cancel(sink):
            core.interrupt(sink)
        raise

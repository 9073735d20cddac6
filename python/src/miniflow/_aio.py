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
        end = (outcome, code, flags, worker, attempt, data)
        try:
            # Also in the loop's own thread: whoever drives shall not run what unpickling runs.
            if asyncio._get_running_loop() is self.loop:
                self.loop.call_soon(_resolve, self.future, end)
            else:
                self.loop.call_soon_threadsafe(_resolve, self.future, end)
        except RuntimeError:
            pass  # the loop is closed: nobody awaits it any more
        self.settled = True


def _resolve(future: asyncio.Future[Any], end: tuple[int, int, int, int, int, _wire.Readable]) -> None:
    if future.done():
        return  # cancelled, or told twice after an interrupt
    try:
        value, error = _outcome.read(*end)
    except Exception as unreadable:
        value, error = None, unreadable
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

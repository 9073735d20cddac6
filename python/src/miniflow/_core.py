"""The host's end of one engine.

There is no thread behind it. Whoever waits for a result *drives*: fetches completions and settles the
sinks that they belong to, its own and everybody else's. One thread drives at a time (the leader); the
others sleep until their sink is settled or they are to lead. An asyncio loop drives when the engine's
event descriptor is readable. Only for those who wait without us (``concurrent.futures.wait()``, a
callback outside of a loop) does a thread drive in the background, while there are any.

Nothing is lost when a ``KeyboardInterrupt`` comes up anywhere in it: a completion that was fetched
stays in its row until its sink is settled, settling twice does nothing, and a lead that was not given
back is seen to be nobody's.
"""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import os
import struct
import sys
import threading
import time
import weakref
from contextlib import suppress
from types import CodeType, FrameType
from typing import Callable, NamedTuple, Protocol

from . import _abi, _log, _policy, _wire
from ._settings import CPU, IO, NS, Prepared, Settings, checked_count, checked_time, seconds
from .errors import EngineError, QueueFull, TaskError
from .scaling import ScalingDecision

# mf_completion: id (half of it: not 0 if the row is in use), user_data, outcome, code, flags, worker,
# attempt, data, len, queued_ns, run_ns, handle
_ROW = struct.Struct("Q8xQiiIII4xQQqqQ40x")
_WORDS = _ROW.size // 8
_HANDLE_WORD = 10
_ROWS = 256
# Bytes that a text may well have.
_TEXT = 1 << 16
# Longest sleep of a waiting thread in one go: a signal (Ctrl-C) is looked for in between.
_SLICE = 0.1
# How long an event loop looks away while another thread drives.
_BUSY_NAP = 0.002
# From so many bytes on, a payload is written straight into shared memory.
_LOAN_FROM = 32 << 10
# From so many bytes on, a result is read where it is.
_VIEW_FROM = 32 << 10

_LABEL = 16
_LABEL_AT: int = _abi.SubmitOpts.label.offset  # type: ignore[attr-defined]

_submit = _abi.fast.mf_submit_as
_poll = _abi.lib.mf_poll
_release_batch = _abi.fast.mf_completion_release_batch
_string_at = ctypes.string_at


class Sink(Protocol):
    """What waits for the end of one task."""

    settled: bool  # set by `settle`, when the end is there for everybody
    token: int
    ident: _abi.TaskId

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
        """Takes the end of the task. Called by the thread that drives; must neither raise nor wait,
        and must bear to be called again, should an interrupt have cut it short."""


class _Views:
    """How many bytes of results are read where they are, over all of an engine."""

    def __init__(self) -> None:
        self.size = 0


class _View:
    """A result where its worker wrote it."""

    __slots__ = ("_finalizer", "memory")

    def __init__(self, memory: ctypes.Array[ctypes.c_char]) -> None:
        #: What all views of it refer to.
        self.memory = memory
        self._finalizer: object = None

    @classmethod
    def from_address(cls, at: int, size: int) -> _View:
        return cls((ctypes.c_char * size).from_address(at))

    def release_at_end(self, handle: int, views: _Views) -> None:
        """Gives the memory back with the last view of it. May be said again, after an interrupt: giving
        back twice does nothing."""
        if self._finalizer is None:
            views.size += len(self.memory)
            finalizer = weakref.finalize(self.memory, _release, handle, views, len(self.memory))
            finalizer.atexit = False
            self._finalizer = finalizer


class TaskState(NamedTuple):
    """Where a task is that has not ended."""

    running: bool
    worker: int | None
    elapsed: float
    done: int
    total: int


class Core:
    """One running engine. All methods may be called by any thread."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._pending: dict[int, Sink] = {}
        self._tokens = itertools.count(1)
        # Who drives: the claim (the number of a thread) of whoever was first to set key 0.
        self._lead: dict[int, tuple[int]] = {}
        self._recovery = threading.Lock()
        self._next_look = 0.0
        self._followers: dict[int, tuple[Sink | None, threading.Lock]] = {}
        self._rows = (_abi.Completion * _ROWS)()
        self._bytes = memoryview(self._rows).cast("B")
        self._words = self._bytes.cast("Q")
        self._batch = 0  # how often the rows were done with
        self._held: dict[int, _View] = {}  # of the rows, by handle
        self._views = _Views()
        # One worker may have written it all.
        self._view_limit = settings.result_arena // 4
        # With the bytes before and behind the label.
        self._options: dict[tuple[object, ...], tuple[_abi.SubmitOpts, bytes, bytes]] = {}
        self._loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
        self._watched: dict[int, None] = {}  # tokens, oldest first
        self._watcher: threading.Thread | None = None
        self._watch_lock = threading.Lock()
        self._stopping = False
        self._stopped = False
        self._inherited = False
        prepared = Prepared(settings)
        handle = ctypes.c_void_p()
        _log.start()
        try:
            _abi.check(_abi.lib.mf_engine_start(prepared.config, ctypes.byref(handle)))
        except BaseException:
            _log.stop()
            prepared.close()
            raise
        self._handle = handle
        self._asked = prepared.asked
        self._finalizer = weakref.finalize(self, _free, handle, prepared)
        _cores.add(self)

    # -- submitting

    def options(
        self,
        *,
        io: bool = False,
        timeout: float | None = None,
        max_attempts: int = 0,
        retry_failed: bool = False,
        retry_timed_out: bool = False,
        priority: int = 0,
        sticky_key: int = 0,
        label: bytes = b"",
    ) -> _abi.SubmitOpts:
        """Options for :meth:`submit`; those without a label are made once and shared."""
        key = (io, timeout, max_attempts, retry_failed, retry_timed_out, priority, sticky_key)
        known = self._options.get(key)
        if known is None:
            made = _abi.SubmitOpts()
            _abi.check(_abi.lib.mf_submit_opts_init(made, ctypes.sizeof(made)))
            made.task_class = IO if io else CPU
            if timeout is not None:
                made.deadline_ns = seconds(checked_time("timeout", timeout)) or 1
            if max_attempts:
                made.max_attempts = checked_count("the number of starts", max_attempts, 65_535)
            made.priority = priority
            made.sticky_key = sticky_key
            made.flags = (_abi.MF_RETRY_FAILED if retry_failed else 0) | (
                _abi.MF_RETRY_TIMEOUT if retry_timed_out else 0
            )
            image = bytes(made)
            known = (made, image[:_LABEL_AT], image[_LABEL_AT + _LABEL :])
            if len(self._options) < 1024:
                self._options[key] = known
        if label:
            return _abi.SubmitOpts.from_buffer_copy(known[1] + label + known[2])
        return known[0]

    def submit(
        self,
        kind: bytes,
        value: object,
        sink: Sink,
        opts: _abi.SubmitOpts,
        *,
        block: bool = True,
        timeout: float | None = None,
    ) -> None:
        """Submits a task, whose end `sink` will be told.

        While the engine is full, waits for room and drives meanwhile; with ``block=False``, or when
        ``timeout`` seconds have passed, raises :class:`QueueFull`.
        """
        message = _wire.dump(kind, value)
        token = next(self._tokens)
        ident = _abi.TaskId()
        sink.token = token
        sink.ident = ident
        self._pending[token] = sink
        try:
            if message.__class__ is bytes and len(message) < _LOAN_FROM:
                rc = _submit(self._handle, message, len(message), opts, token, ident)
            else:
                rc = self._submit_large(message, opts, token, ident)
            if rc:
                self._submit_again(rc, message, opts, token, ident, block, timeout)
        except BaseException:
            self._pending.pop(token, None)
            raise

    def _submit_again(
        self,
        rc: int,
        message: _wire.Message,
        opts: _abi.SubmitOpts,
        token: int,
        ident: _abi.TaskId,
        block: bool,
        timeout: float | None,
    ) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while rc == _abi.MF_E_WOULD_BLOCK:
            if not block or (deadline is not None and time.monotonic() >= deadline):
                raise QueueFull(f"the engine is full: {_abi.error_text()}")
            left = _SLICE if deadline is None else deadline - time.monotonic()
            if not self.drive(min(left, _SLICE)):
                # Somebody else drives, or nothing has ended: look again soon.
                time.sleep(0.0005)
            rc = self._submit_any(message, opts, token, ident)
        if rc == _abi.MF_E_TOO_LARGE:
            raise TaskError(f"cannot be sent to a worker: {_abi.error_text()}")
        _abi.check(rc)

    def _submit_any(
        self, message: _wire.Message, opts: _abi.SubmitOpts, token: int, ident: _abi.TaskId
    ) -> int:
        if isinstance(message, bytes) and len(message) < _LOAN_FROM:
            rc: int = _submit(self._handle, message, len(message), opts, token, ident)
            return rc
        return self._submit_large(message, opts, token, ident)

    def _submit_large(
        self, message: _wire.Message, opts: _abi.SubmitOpts, token: int, ident: _abi.TaskId
    ) -> int:
        """Writes a message into payload memory on loan: its one copy."""
        size = len(message) if isinstance(message, bytes) else message.size
        loan = _abi.LoanBuf()
        loan.size = ctypes.sizeof(loan)
        try:
            rc: int = _abi.lib.mf_loan(self._handle, size, loan)
            if rc:
                return rc
            address = loan.ptr or 0  # never: mf_loan gave it
            if isinstance(message, bytes):
                ctypes.memmove(address, message, size)
            else:
                message.write(address)
            tagged = _abi.SubmitOpts.from_buffer_copy(opts)
            tagged.user_data = token
            rc = _abi.lib.mf_submit_loaned(self._handle, loan, tagged, ident)
            if rc == 0:
                loan.handle = 0  # the memory is the task's now
        finally:
            if loan.handle:
                _abi.lib.mf_loan_drop(self._handle, loan)
        return rc

    # -- driving

    def drive(self, timeout: float) -> int:
        """Fetches completions and settles their sinks: those that are there, else the first to come
        within ``timeout`` seconds. How many; 0 also if another thread is at it, or in a forked child."""
        if self._inherited:
            return 0
        mine = (threading.get_ident(),)
        holder = self._lead.setdefault(0, mine)
        if holder is not mine and not self._nested(holder):
            return 0
        try:
            return self._drive(timeout)
        finally:
            if holder is mine:
                self._lead.pop(0, None)
                if self._followers:
                    self._wake(True)

    def _lead_until(self, ready: Callable[[], bool], deadline: float | None) -> bool:
        """Drives until ``ready()`` or the deadline; False, at once, if another thread is at it."""
        mine = (threading.get_ident(),)
        holder = self._lead.setdefault(0, mine)
        if holder is not mine and not self._nested(holder):
            return False
        try:
            while not ready():
                left = _SLICE
                if deadline is not None:
                    left = deadline - time.monotonic()
                self._drive(min(left, _SLICE))
                if left <= 0:
                    break
            return True
        finally:
            if holder is mine:
                self._lead.pop(0, None)
                if self._followers:
                    self._wake(True)

    def _nested(self, holder: tuple[int]) -> bool:
        """Whether the claim is this thread's own: it drives further out, and a callback waits.

        Must be called by what claims the lead."""
        if holder[0] == threading.get_ident():
            if self._leads(sys._getframe(2)):
                return True
            self._recover(holder)
        elif time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + _SLICE
            self._recover(holder)
        return False

    def _leads(self, frame: FrameType | None) -> bool:
        """Whether a function that claims the lead of this core runs in a frame or outside of it."""
        while frame is not None:
            if frame.f_code in _LEADING and frame.f_locals.get("self") is self:
                return True
            frame = frame.f_back
        return False

    def _recover(self, holder: tuple[int]) -> None:
        """Takes a claim away whose holder has left without giving it back.

        That happens when a KeyboardInterrupt comes up between its claiming and its `try`, or as the
        first thing in its `finally`. A function that runs keeps its claim, and each claim is an object
        of its own, so what has no function any more can be nobody's."""
        with self._recovery:
            if holder[0] == threading.get_ident():
                frame: FrameType | None = sys._getframe(3)  # outside of what tries to claim it now
            else:
                frame = sys._current_frames().get(holder[0])
            # The claim after the frames, and not before: if it is still there although its holder led no
            # more, the holder has left it behind.
            if not self._leads(frame) and self._lead.get(0) is holder:
                del self._lead[0]

    def _drive(self, timeout: float) -> int:
        if not self._words[0]:  # else these are the rows of a drive that was interrupted
            _abi.check(_poll(self._handle, self._rows, _ROWS, max(0, int(timeout * NS))))
        batch = self._batch
        count = 0
        pending = self._pending
        for row in _ROW.iter_unpack(self._bytes):
            first, token, outcome, code, flags, worker, attempt, at, size, queued, run, handle = row
            if not first:
                break
            sink = pending.get(token)
            if sink is not None:
                if size < _VIEW_FROM:
                    data: _wire.Readable = _string_at(at, size) if size else b""
                else:
                    data = self._hold(handle, at, size)
                sink.settle(outcome, code, flags, worker, attempt, data, queued, run)
                del data
                pending.pop(token, None)
            if self._held and handle in self._held:
                self._words[_WORDS * count + _HANDLE_WORD] = 0  # released with the last view of it
                del self._held[handle]
            count += 1
        # A callback that waited may have been here meanwhile: then these rows are done with, and what
        # is in their place is for the next who drives.
        if count and self._batch == batch:
            self._held.clear()
            _release_batch(self._handle, self._rows, count)
            ctypes.memset(self._rows, 0, count * _ROW.size)
            self._batch += 1
            if self._followers:
                self._wake(False)
        return count

    def _hold(self, handle: int, at: int, size: int) -> _wire.Readable:
        """A read-only view of a result where its worker wrote it, given back with its last user.

        A copy, if so much is held already that workers might run out of room for more."""
        owner = self._held.get(handle)
        if owner is None:
            if self._views.size + size > self._view_limit:
                return _string_at(at, size)
            # Known before it can end: an interrupt in between leaves it to the next who drives.
            owner = self._held[handle] = _View.from_address(at, size)
        owner.release_at_end(handle, self._views)
        return memoryview(owner.memory).cast("B").toreadonly()

    def wait(self, sink: Sink, timeout: float | None) -> bool:
        """Waits until `sink` is settled, ``timeout`` seconds at most; whether it is."""
        return self.wait_until(lambda: sink.settled, timeout, sink)

    def wait_until(self, ready: Callable[[], bool], timeout: float | None, sink: Sink | None = None) -> bool:
        """Waits until ``ready()``, which is asked after each batch of settled sinks; whether it is.

        ``sink`` says that only its end can make it so."""
        if ready():
            return True
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._lead_until(ready, deadline):
            if ready():
                return True
            left = _SLICE
            if deadline is not None:
                left = min(left, deadline - time.monotonic())
                if left <= 0:
                    return False
            self._follow(ready, left, sink)
        return ready()

    def _follow(self, ready: Callable[[], bool], timeout: float, sink: Sink | None) -> None:
        """Sleeps until the leader wakes this thread."""
        bell = threading.Lock()
        bell.acquire()
        key = next(self._tokens)
        self._followers[key] = (sink, bell)
        try:
            # Whoever lets go of the lead, or settles, looks at the followers after that.
            if 0 in self._lead and not ready():
                bell.acquire(timeout=timeout)
        finally:
            self._followers.pop(key, None)

    def wake(self) -> None:
        """Wakes the threads whose sinks are settled."""
        if self._followers:
            self._wake(False)

    def _wake(self, promote: bool) -> None:
        """Wakes the followers whose wait may be over, and one more if somebody has to lead."""
        for key, (sink, _) in list(self._followers.items()):
            if promote or sink is None or sink.settled:
                follower = self._followers.pop(key, None)
                if follower is not None:
                    follower[1].release()
                    promote = promote and (sink is None or sink.settled)

    def watch(self, sink: Sink, *, by_loop: bool = False) -> None:
        """Sees to it that `sink` is settled although nobody waits for it here: with ``by_loop`` by the
        running event loop, if there is one, or else by a thread."""
        if by_loop:
            loop = asyncio._get_running_loop()
            if loop is not None and self.attach(loop):
                return
        with self._watch_lock:
            if sink.token not in self._pending:
                return
            self._watched[sink.token] = None
            # One that is not alive was interrupted while it was started, or a callback has ended it.
            if self._watcher is None or not self._watcher.is_alive():
                self._watcher = threading.Thread(
                    target=_watch, args=(self,), name="miniflow-watch", daemon=True
                )
                self._watcher.start()

    def _next_watched(self) -> int | None:
        """The oldest that is watched and not settled. If there is none, the watching thread ends."""
        with self._watch_lock:
            while self._watched:
                token = next(iter(self._watched))
                if token in self._pending:
                    return token
                del self._watched[token]
            self._watcher = None
            return None

    def attach(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Lets the running `loop` drive from now on; False if it cannot watch descriptors."""
        if loop in self._loops:
            return True
        fd = _abi.check(_abi.lib.mf_event_fd(self._handle))
        try:
            loop.add_reader(fd, _readable, weakref.ref(self), loop, fd)
        except NotImplementedError:
            return False
        self._loops.add(loop)
        return True

    def _detach(self) -> None:
        fd = _abi.lib.mf_event_fd(self._handle)
        for loop in list(self._loops):
            if fd < 0 or loop.is_closed():
                continue
            if not loop.is_running() or asyncio._get_running_loop() is loop:
                loop.remove_reader(fd)
                continue
            done = threading.Event()
            with suppress(RuntimeError):  # closed meanwhile
                loop.call_soon_threadsafe(_remove_reader, loop, fd, done)
                done.wait(1.0)
        self._loops.clear()

    # -- tasks

    def cancel(self, sink: Sink) -> bool:
        """Cancels a task that no worker has been given; True means that it never runs. Its sink is
        settled as cancelled."""
        rc = _abi.fast.mf_cancel(self._handle, sink.ident, _abi.MF_CANCEL_UNSTARTED)
        return bool(rc == _abi.MF_OK)

    def interrupt(self, sink: Sink, *, kill: bool = False) -> bool:
        """Asks a task to stop, wherever it is, and with ``kill`` ends its worker if it does not.
        False if it has ended."""
        rc = _abi.fast.mf_cancel(self._handle, sink.ident, _abi.MF_CANCEL_KILL if kill else 0)
        if rc == _abi.MF_E_NOT_FOUND:
            return False
        _abi.check(rc)
        return True

    def state(self, sink: Sink) -> TaskState | None:
        """Where a task is; None if it has ended."""
        info = _abi.TaskInfo()
        info.size = ctypes.sizeof(info)
        rc = _abi.fast.mf_task_state(self._handle, sink.ident, info)
        if rc == _abi.MF_E_NOT_FOUND or info.state == _abi.MF_TASK_DONE or self._inherited:
            return None
        _abi.check(rc)
        return TaskState(
            info.state == _abi.MF_TASK_RUNNING,
            None if info.worker == _abi.MF_NO_WORKER else info.worker,
            info.elapsed_ns / NS,
            info.progress_done,
            info.progress_total,
        )

    @property
    def led_elsewhere(self) -> bool:
        """Whether another thread drives just now."""
        holder = self._lead.get(0)
        return holder is not None and holder[0] != threading.get_ident()

    @property
    def outstanding(self) -> int:
        """Tasks whose sinks are not settled."""
        return len(self._pending)

    @property
    def stopped(self) -> bool:
        """Whether the engine takes no more tasks."""
        return self._stopping

    def sinks(self) -> list[Sink]:
        """The sinks that are not settled, oldest first."""
        return list(self._pending.values())

    # -- the engine

    def name(self) -> str | None:
        """The name by which others can watch it."""
        name = ctypes.create_string_buffer(65)
        _abi.check(_abi.lib.mf_engine_name(self._handle, name, ctypes.sizeof(name)))
        return name.value.decode() or None

    def stats(self) -> _abi.EngineStats:
        """Its counters."""
        stats = _abi.EngineStats()
        stats.size = ctypes.sizeof(stats)
        _abi.check(_abi.lib.mf_stats(self._handle, stats))
        return stats

    def workers(self) -> list[_abi.WorkerRow]:
        """A row for each worker process."""
        count = 16
        while True:
            rows = (_abi.WorkerRow * count)()
            size = ctypes.sizeof(_abi.WorkerRow)
            for row in rows:
                row.size = size
            there = _abi.check(_abi.lib.mf_worker_stats(self._handle, rows, size, count))
            if there <= count:
                return list(rows[:there])
            count = there

    def metrics_text(self) -> str:
        """Its counters, gauges and histograms in the text format of Prometheus."""
        room = _TEXT
        while True:
            text = ctypes.create_string_buffer(room)
            length = _abi.check(_abi.lib.mf_metrics_text(self._handle, text, room))
            if length < room:
                return text.value.decode()
            room = length + (length >> 3)  # the next one may be longer

    def resize(self, io: bool, workers: int) -> None:
        """Sets how many workers a class has."""
        _abi.check(_abi.lib.mf_resize(self._handle, IO if io else CPU, workers))

    def scaling_decisions(self) -> list[ScalingDecision]:
        """What was decided about numbers of workers, oldest first."""
        most = 1000
        rows = (_abi.ScalingDecision * most)()
        size = ctypes.sizeof(_abi.ScalingDecision)
        count = _abi.check(_abi.lib.mf_scaling_decisions(self._handle, rows, size, most))
        return [_policy.decided(row) for row in rows[: min(count, most)]]

    def stop(self, drain: float | None) -> None:
        """Waits for what is pending, ``drain`` seconds at most (None: as long as it takes), then
        stops the engine, which ends the rest. Afterwards every sink is settled."""
        if self._inherited or not self._finalizer.alive:
            return
        if not self._stopped:
            self.wait_until(lambda: not self._pending, drain)
            self._stopping = True
            if self._asked is not None:
                self._asked.close()
            rc = _abi.lib.mf_engine_stop(self._handle, 0)
            if rc not in (_abi.MF_OK, _abi.MF_E_CLOSED):
                _abi.check(rc)
            self._stopped = True
        # Again, if this was interrupted before.
        self.wait_until(lambda: not self._pending, 10.0)

    def close(self) -> None:
        """Stops the engine at once, if that was not done, and frees it."""
        if not self._finalizer.alive or self._inherited:
            return
        self.stop(0)
        watcher = self._watcher
        if watcher is not None and watcher.is_alive() and watcher is not threading.current_thread():
            watcher.join()
        self._detach()
        self._finalizer()

    def _inherit(self) -> None:
        """In a forked child: the engine is the parent's, and the threads that held locks are not here."""
        self._inherited = True
        self._finalizer.detach()
        self._lead.clear()
        self._followers.clear()
        self._recovery = threading.Lock()
        self._watch_lock = threading.Lock()
        self._watched.clear()
        self._watcher = None
        ctypes.memset(self._rows, 0, ctypes.sizeof(self._rows))


_LEADING: frozenset[CodeType] = frozenset({Core.drive.__code__, Core._lead_until.__code__})

_cores: weakref.WeakSet[Core] = weakref.WeakSet()


def _after_fork() -> None:
    for core in list(_cores):
        core._inherit()


os.register_at_fork(after_in_child=_after_fork)


def _free(handle: ctypes.c_void_p, prepared: Prepared) -> None:
    if prepared.asked is not None:
        prepared.asked.close()
    _abi.lib.mf_engine_free(handle)
    _log.stop()
    prepared.close()


def _release(handle: int, views: _Views, size: int) -> None:
    row = _abi.Completion()
    row.handle = handle
    _abi.fast.mf_completion_release(None, row)
    views.size -= size


def _readable(core: weakref.ref[Core], loop: asyncio.AbstractEventLoop, fd: int) -> None:
    """In an event loop: completions may be waiting."""
    found = core()
    if found is None:
        return
    while (count := found.drive(0)) == _ROWS:
        pass
    if count == 0 and found.led_elsewhere and loop in found._loops:
        # Another thread drives, and the descriptor stays readable until it has come round: do not spin.
        loop.remove_reader(fd)
        loop.call_later(_BUSY_NAP, _listen_again, core, loop, fd)


def _listen_again(core: weakref.ref[Core], loop: asyncio.AbstractEventLoop, fd: int) -> None:
    found = core()
    if found is not None and loop in found._loops:
        loop.add_reader(fd, _readable, core, loop, fd)
        _readable(core, loop, fd)


def _remove_reader(loop: asyncio.AbstractEventLoop, fd: int, done: threading.Event) -> None:
    loop.remove_reader(fd)
    done.set()


def _settled(pending: dict[int, Sink], token: int) -> Callable[[], bool]:
    return lambda: token not in pending


def _watch(core: Core) -> None:
    """A thread that drives while somebody waits who does not."""
    while (token := core._next_watched()) is not None:
        try:
            core.wait_until(_settled(core._pending, token), None)
        except EngineError:
            if core._finalizer.alive:
                raise
            return  # closed meanwhile
        except BaseException:
            # What a callback raised that is no Exception, in a thread that is nobody's to end.
            _log.logger.exception("a callback ended the wait for its task; it goes on")

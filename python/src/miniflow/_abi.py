"""include/miniflow.h in ctypes: its constants, structures and functions, by their names there.

Two handles of one library: `lib` releases the GIL during a call, for whatever may wait; `fast` keeps it, for
calls that never do. Where a pointer to bytes is asked for, a `bytes` object, an address, a ctypes array or
`byref()` will do, and a structure stands for its own address.

tests/test_abi.py holds every declaration against the header.
"""

import ctypes
from ctypes import (
    POINTER,
    Structure,
    c_char,
    c_char_p,
    c_int32,
    c_int64,
    c_size_t,
    c_uint8,
    c_uint32,
    c_uint64,
    c_void_p,
)
from typing import Annotated, Any, Optional, TypeVar

from . import _library
from ._library import Prototype
from .errors import EngineError

MF_VERSION_STRING = "0.1.0"
MF_ABI_VERSION = 0

MF_OK = 0
MF_E_INVALID = -1
MF_E_WOULD_BLOCK = -2
MF_E_TIMEOUT = -3
MF_E_TOO_LARGE = -4
MF_E_NOT_FOUND = -5
MF_E_CLOSED = -6
MF_E_NO_MEMORY = -7
MF_E_SYSTEM = -8
MF_E_UNSUPPORTED = -9
MF_E_INTERNAL = -10

MF_CPU_BOUND = 0
MF_IO_BOUND = 1

MF_COMPLETED = 0
MF_FAILED = 1
MF_CRASHED = 2
MF_TIMED_OUT = 3
MF_CANCELLED = 4

MF_F_BY_SIGNAL = 1
MF_F_COLLATERAL = 2
MF_F_DATA = 4

MF_CANCEL_KILL = 1
MF_CANCEL_UNSTARTED = 2

MF_RETRY_FAILED = 1
MF_RETRY_TIMEOUT = 2

MF_WORKER_STARTING = 1
MF_WORKER_READY = 2
MF_WORKER_DRAINING = 3
MF_WORKER_LEAVING = 4

MF_DECISION_GROW = 1
MF_DECISION_SHRINK = 2
MF_DECISION_RESIZE = 3
MF_DECISION_FAILURE = 4

MF_MEMORY_AMPLE = 0
MF_MEMORY_NO_GROWTH = 1
MF_MEMORY_SHEDDING = 2
MF_MEMORY_REFUSING = 3

MF_TASK_QUEUED = 0
MF_TASK_RUNNING = 1
MF_TASK_DONE = 2

MF_LOG_OFF = 0
MF_LOG_ERROR = 1
MF_LOG_WARN = 2
MF_LOG_INFO = 3
MF_LOG_DEBUG = 4
MF_LOG_TRACE = 5

MF_NO_WORKER = 0xFFFF_FFFF

MF_ZYGOTE = 1

MF_DISPATCH_LEAST_LOADED = 0
MF_DISPATCH_ROUND_ROBIN = 1
MF_DISPATCH_CUSTOM = 2
MF_DISPATCH_POWER_OF_TWO = 3
MF_SCALING_OFF = 0
MF_SCALING_DEFAULT = 1
MF_SCALING_CUSTOM = 2
MF_SCALING_ADAPTIVE = 3
MF_SCALING_COMPATIBLE = 4
MF_SCALING_FAILED = -2
MF_AFFINITY_NONE = 0
MF_AFFINITY_SPREAD = 1
MF_AFFINITY_LIST = 2
MF_AFFINITY_NODE = 3
MF_SCHEDULER_INHERIT = 0
MF_SCHEDULER_NORMAL = 1
MF_SCHEDULER_BATCH = 2
MF_SCHEDULER_IDLE = 3
MF_IO_INHERIT = 0
MF_IO_BEST_EFFORT = 0x4000
MF_IO_IDLE = 0x6000
MF_HUGE_PAGES_OFF = 0
MF_HUGE_PAGES_ADVISE = 1

MF_SANDBOX_NO_NEW_PRIVS = 1
MF_SANDBOX_RLIMITS = 2
MF_SANDBOX_SECCOMP = 4
MF_SANDBOX_UNDUMPABLE_HOST = 8

# A field's type for the checker, and for ctypes. They are the annotations of the structures below, which is
# why this module does without the `annotations` of __future__: those would be text.
i32 = Annotated[int, c_int32]
i64 = Annotated[int, c_int64]
u32 = Annotated[int, c_uint32]
u64 = Annotated[int, c_uint64]
usize = Annotated[int, c_size_t]
Pointer = Annotated[Optional[int], c_void_p]
Text = Annotated[Optional[bytes], c_char_p]
Bytes16 = Annotated[ctypes.Array[c_uint8], c_uint8 * 16]

S = TypeVar("S", bound=Structure)


def _struct(declared: type[S]) -> type[S]:
    """Makes the annotations of a class its fields."""
    declared._fields_ = [
        (name, *getattr(kind, "__metadata__", (kind,))) for name, kind in declared.__annotations__.items()
    ]
    return declared


@_struct
class TaskId(Structure):
    """The identity of an accepted task; `bytes(task_id)` is its 16 bytes."""

    bytes: Bytes16


@_struct
class ClassConfig(Structure):
    """The workers of one class, a part of Config."""

    min_workers: u32
    max_workers: u32
    threads: u32
    nice: i32
    deadline_ns: i64
    scheduler: i32
    io_priority: i32


@_struct
class ClassAffinity(Structure):
    """An affinity of one class, a part of Config."""

    affinity: i32
    node: u32
    cpus: Annotated[Any, POINTER(c_uint32)]
    count: usize


@_struct
class Config(Structure):
    """The settings of an engine, to be filled by mf_config_init."""

    size: u32
    flags: u32
    name: Text
    handler: Pointer
    handler_user: Pointer
    worker_argv: Annotated[Any, POINTER(c_char_p)]
    inherit_fds: Annotated[Any, POINTER(c_int32)]
    inherit_count: usize
    classes: Annotated[ctypes.Array[ClassConfig], ClassConfig * 2]
    max_tasks: u32
    dispatch_policy: i32
    inline_payload: u32
    inline_result: u32
    payload_arena: u64
    result_arena: u64
    max_payload: u64
    max_result: u64
    in_place_from: u64
    spin_ns: i64
    reply_wait_ns: i64
    start_timeout_ns: i64
    stop_grace_ns: i64
    dispatch: Pointer
    dispatch_user: Pointer
    scaling: Pointer
    scaling_user: Pointer
    scaling_interval_ns: i64
    scaling_max_wait_ns: i64
    scaling_cooldown_ns: i64
    scaling_policy: i32
    scaling_load_permille: u32
    scaling_peak_permille: u32
    scaling_cpu_permille: u32
    scaling_idle_looks: u32
    affinity: i32
    affinity_cpus: Annotated[Any, POINTER(c_uint32)]
    affinity_count: usize
    recycle_tasks: u64
    recycle_rss: u64
    default_deadline_ns: i64
    default_attempts: u32
    sandbox: u32
    sandbox_memory: u64
    sandbox_core: u64
    sandbox_files: u32
    sandbox_cpu_s: u32
    kill_grace_ns: i64
    stopped_grace_ns: i64
    hang_timeout_ns: i64
    affinity_node: u32
    huge_pages: u32
    class_affinity: Annotated[ctypes.Array[ClassAffinity], ClassAffinity * 2]
    memory_grow_permille: u32
    memory_pressure_permille: u32
    memory_shed_permille: u32
    memory_refuse_permille: u32


@_struct
class SubmitOpts(Structure):
    """What a submitter may say about a task."""

    size: u32
    task_class: i32
    priority: i32
    flags: u32
    user_data: u64
    label: Bytes16
    deadline_ns: i64
    sticky_key: u64
    max_attempts: u32
    reserved0: u32


@_struct
class Submission(Structure):
    """One task of a batch."""

    size: u32
    reserved0: u32
    payload: Pointer
    len: usize
    opts: Annotated[Any, POINTER(SubmitOpts)]
    user_data: u64


@_struct
class LoanBuf(Structure):
    """Payload memory on loan from an engine."""

    size: u32
    reserved0: u32
    ptr: Pointer
    len: usize
    handle: u64


@_struct
class Completion(Structure):
    """The end of one task."""

    id: TaskId
    user_data: u64
    outcome: i32
    code: i32
    flags: u32
    worker: u32
    attempt: u32
    reserved0: u32
    data: Pointer
    len: usize
    queued_ns: i64
    run_ns: i64
    handle: u64
    reserved: Annotated[ctypes.Array[c_uint64], c_uint64 * 5]


@_struct
class TaskInfo(Structure):
    """Where a task is."""

    size: u32
    state: i32
    worker: u32
    reserved0: u32
    elapsed_ns: i64
    progress_done: u64
    progress_total: u64


@_struct
class EngineStats(Structure):
    """Counters of an engine."""

    size: u32
    degraded: u32
    submitted: u64
    completed: u64
    failed: u64
    crashed: u64
    timed_out: u64
    cancelled: u64
    would_block: u64
    recalled: u64
    redispatched: u64
    spawned: u64
    died: u64
    violations: u64
    queued: u64
    on_workers: u64
    unpolled: u64
    workers: u64
    payload_bytes: u64
    payload_capacity: u64
    retried: u64
    killed: u64
    recycled: u64
    policy_failures: u64


@_struct
class WorkerRow(Structure):
    """One worker process."""

    size: u32
    slot: u32
    pid: u32
    task_class: i32
    state: i32
    threads: u32
    depth: u32
    queued: u32
    running: u32
    cpu_permille: u32
    incarnation: u64
    completed: u64
    failed: u64
    crashed: u64
    busy_ns: u64
    service_ns: u64
    rss_bytes: u64


@_struct
class ScalingSnapshot(Structure):
    """The load of a class of workers, as a scaling function is shown it."""

    size: u32
    task_class: i32
    now_ns: u64
    min_workers: u32
    max_workers: u32
    target: u32
    ready: u32
    starting: u32
    threads: u32
    peak: u32
    memory_state: i32
    queued: u64
    on_workers: u64
    oldest_ns: u64
    service_ns: u64
    ended: u64
    cpu_permille: i32
    memory_permille: i32
    pressure_permille: i32
    reserved0: u32
    stats: Pointer


@_struct
class ScalingDecision(Structure):
    """A decision about the number of workers of a class."""

    size: u32
    task_class: i32
    time_ns: u64
    action: i32
    before: u32
    after: u32
    ready: u32
    starting: u32
    threads: u32
    queued: u64
    on_workers: u64
    oldest_ns: u64
    service_ns: u64
    cpu_permille: i32
    memory_permille: i32
    reason: Annotated[bytes, c_char * 176]


@_struct
class Work(Structure):
    """A task in a worker's hand and everything about it."""

    size: u32
    attempt: u32
    task: Pointer
    payload: Pointer
    len: usize
    user_data: u64
    id: TaskId
    label: Bytes16


@_struct
class LogRecord(Structure):
    """A message of the library's log."""

    size: u32
    level: i32
    time_ns: u64
    dropped: u64
    target_len: u32
    message_len: u32
    target: Annotated[bytes, c_char * 96]
    message: Annotated[bytes, c_char * 3584]


@_struct
class ZygoteRequest(Structure):
    """A request to the runtime's zygote for one more worker."""

    size: u32
    worker: u32
    incarnation: u64


def _short(*argtypes: Any, gives: Any = c_int32) -> Prototype:
    """A function that never waits."""
    return Prototype(gives, argtypes, True)


def _waits(*argtypes: Any) -> Prototype:
    """A function that may wait, for another process or for the system."""
    return Prototype(c_int32, argtypes, False)


def _either(*argtypes: Any) -> Prototype:
    """A function that waits only if it is let: on `fast`, mf_poll and mf_worker_take have a timeout of 0, and
    mf_task_end has a result that fits in mf_config.inline_result.
    """
    return Prototype(c_int32, argtypes, True)


_engine = _task = _worker = _bytes = c_void_p
_out = POINTER(c_void_p)
_id = POINTER(TaskId)

PROTOTYPES: dict[str, Prototype] = {
    "mf_config_init": _short(POINTER(Config), c_size_t),
    "mf_error_name": _short(c_int32, gives=c_char_p),
    "mf_last_error": _short(gives=c_char_p),
    "mf_abi_version": _short(gives=c_uint32),
    "mf_engine_start": _waits(POINTER(Config), _out),
    "mf_engine_stop": _waits(_engine, c_int64),
    "mf_engine_free": _waits(_engine),
    "mf_cancel": _short(_engine, _id, c_uint32),
    "mf_task_state": _short(_engine, _id, POINTER(TaskInfo)),
    "mf_event_fd": _short(_engine),
    "mf_resize": _waits(_engine, c_int32, c_uint32),
    "mf_set_dispatch_policy": _waits(_engine, c_int32, c_void_p, c_void_p),
    "mf_submit_opts_init": _short(POINTER(SubmitOpts), c_size_t),
    "mf_submit": _short(_engine, _bytes, c_size_t, POINTER(SubmitOpts), _id),
    "mf_submit_as": _short(_engine, _bytes, c_size_t, POINTER(SubmitOpts), c_uint64, _id),
    "mf_submit_wait": _waits(_engine, _bytes, c_size_t, POINTER(SubmitOpts), _id, c_int64),
    "mf_submit_batch": _short(_engine, POINTER(Submission), c_size_t, c_size_t, _id),
    "mf_loan": _short(_engine, c_size_t, POINTER(LoanBuf)),
    "mf_submit_loaned": _short(_engine, POINTER(LoanBuf), POINTER(SubmitOpts), _id),
    "mf_loan_drop": _short(_engine, POINTER(LoanBuf)),
    "mf_poll": _either(_engine, POINTER(Completion), c_size_t, c_int64),
    "mf_wait": _waits(_engine, _id, POINTER(Completion), c_int64),
    "mf_completion_release": _short(_engine, POINTER(Completion)),
    "mf_completion_release_batch": _short(_engine, POINTER(Completion), c_size_t),
    "mf_stats": _short(_engine, POINTER(EngineStats)),
    "mf_worker_stats": _waits(_engine, POINTER(WorkerRow), c_size_t, c_size_t),
    "mf_scaling_decisions": _waits(_engine, POINTER(ScalingDecision), c_size_t, c_size_t),
    "mf_status_json": _waits(_engine, POINTER(c_char), c_size_t),
    "mf_metrics_text": _waits(_engine, POINTER(c_char), c_size_t),
    "mf_engine_name": _short(_engine, POINTER(c_char), c_size_t),
    "mf_task_payload": _short(_task, POINTER(c_size_t), gives=c_void_p),
    "mf_task_get_id": _short(_task, _id),
    "mf_task_get_label": _short(_task, _bytes),
    "mf_task_attempt": _short(_task, gives=c_uint32),
    "mf_task_user_data": _short(_task, gives=c_uint64),
    "mf_task_reply": _waits(_task, _bytes, c_size_t),
    "mf_task_reply_buf": _waits(_task, c_size_t, _out),
    "mf_task_fail": _waits(_task, c_int32, c_char_p),
    "mf_task_fail_data": _waits(_task, c_int32, _bytes, c_size_t),
    "mf_task_progress": _short(_task, c_uint64, c_uint64),
    "mf_task_cancelled": _short(_task),
    "mf_task_finish": _short(_task, c_int32),
    "mf_task_end": _either(_task, c_int32, _bytes, c_size_t),
    "mf_task_view": _short(_task, _out, POINTER(c_size_t), POINTER(c_uint64)),
    "mf_view_detach": _waits(c_uint64),
    "mf_view_release": _short(c_uint64),
    "mf_worker_join": _waits(_out),
    "mf_worker_next": _waits(_worker, _out, c_int64),
    "mf_worker_take": _either(_worker, POINTER(Work), c_int64),
    "mf_worker_concurrency": _short(_worker),
    "mf_worker_slot": _short(_worker),
    "mf_worker_class": _short(_worker),
    "mf_worker_leave": _waits(_worker),
    "mf_set_log": _waits(c_void_p, c_void_p, c_int32),
    "mf_log_level": _short(c_int32),
    "mf_log_read": _waits(POINTER(LogRecord), c_int64),
    "mf_log_wake": _short(),
    "mf_zygote_open": _waits(),
    "mf_zygote_recv": _waits(c_int32, POINTER(ZygoteRequest)),
    "mf_zygote_reply": _waits(c_int32, POINTER(ZygoteRequest), c_int64),
    "mf_zygote_fail": _waits(c_int32, c_char_p),
}
"""Every function that this package may call."""

_found = _library.find()
lib, fast = _library.load(_found, MF_ABI_VERSION, PROTOTYPES)

path = str(_found)
"""The file of the library."""


def error_text() -> str:
    """What went wrong in this thread's last call that failed."""
    text: bytes = fast.mf_last_error()
    return text.decode("utf-8", "replace")


def error_name(code: int) -> str:
    """An error code's name, such as `MF_E_TIMEOUT`."""
    name: bytes = fast.mf_error_name(code)
    return name.decode("ascii")


def check(answer: int) -> int:
    """The answer of a call, or the EngineError that a negative one stands for.

    To be called by the thread that called, before its next call: the error's text is the thread's own.
    """
    if answer < 0:
        raise EngineError(f"{error_text()} ({error_name(answer)})")
    return answer

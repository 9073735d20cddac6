//! The types of the C interface: identifiers, completions, and what the calls give and take.
//!
//! `mf_task_id` and `mf_completion` are frozen. Every other struct that is not opaque begins with
//! its size and may grow at its end (see `sized`).

use std::ffi::{c_char, c_void};

/// The version of the binary interface, which is also the number in the library's SONAME. It goes
/// up when a program that was built against an older header would no longer work.
pub const MF_ABI_VERSION: u32 = 0;

/// Success.
pub const MF_OK: i32 = 0;
/// An argument is NULL, misaligned, unknown, stale or out of its range; mf_last_error() names it.
/// Also the answer to every use of an engine in a forked child of its process.
pub const MF_E_INVALID: i32 = -1;
/// A bounded resource is full now, or memory comes to its end. Nothing was accepted: poll completions,
/// or try again later.
/// Also the answer to MF_CANCEL_UNSTARTED if it is too late for that.
pub const MF_E_WOULD_BLOCK: i32 = -2;
/// The time given for the call has passed.
pub const MF_E_TIMEOUT: i32 = -3;
/// A payload or a result is larger than the engine was configured for.
pub const MF_E_TOO_LARGE: i32 = -4;
/// No such task, or its completion was handed out already.
pub const MF_E_NOT_FOUND: i32 = -5;
/// The engine, or the worker's lane, is stopped.
pub const MF_E_CLOSED: i32 = -6;
/// The system has no memory for it.
pub const MF_E_NO_MEMORY: i32 = -7;
/// A system call failed; mf_last_error() says which and how.
pub const MF_E_SYSTEM: i32 = -8;
/// This kernel, or this version of the library, does not have the feature.
pub const MF_E_UNSUPPORTED: i32 = -9;
/// A bug of the library, which any function may answer with, or a worker that broke the protocol.
/// Also the code of a task whose Rust handler panicked.
pub const MF_E_INTERNAL: i32 = -10;

/// Which workers a task is for; each class has its own. An MF_*_BOUND constant.
pub type mf_class = i32;
/// Tasks that keep a processor busy.
pub const MF_CPU_BOUND: i32 = 0;
/// Tasks that mostly wait.
pub const MF_IO_BOUND: i32 = 1;

/// How a task ended: MF_COMPLETED to MF_CANCELLED.
pub type mf_outcome = i32;
/// The handler returned 0.
pub const MF_COMPLETED: i32 = 0;
/// The handler returned something else, or failed the task.
pub const MF_FAILED: i32 = 1;
/// The worker died while it ran the task.
pub const MF_CRASHED: i32 = 2;
/// The task ran beyond its deadline.
pub const MF_TIMED_OUT: i32 = 3;
/// The task was cancelled.
pub const MF_CANCELLED: i32 = 4;

/// In mf_completion.flags: the code is the number of the signal that ended the worker.
pub const MF_F_BY_SIGNAL: u32 = 1;
/// In mf_completion.flags: the task died beside others and may not be the one to blame.
pub const MF_F_COLLATERAL: u32 = 2;
/// In mf_completion.flags: the task failed, and the data are the bytes that its handler or program
/// gave to mf_task_end() or mf_task_fail_data(): no text of the library's.
pub const MF_F_DATA: u32 = 4;

/// For mf_cancel: if the task is running, its worker is asked to leave, and killed after
/// mf_config.kill_grace_ns.
pub const MF_CANCEL_KILL: u32 = 1;
/// For mf_cancel: only if the task was never started and no worker has been given it, so that it
/// will never run.
pub const MF_CANCEL_UNSTARTED: u32 = 2;

/// In mf_submit_opts.flags: start a task again that its handler fails, while attempts are left.
pub const MF_RETRY_FAILED: u32 = 1;
/// In mf_submit_opts.flags: start a task again that missed its deadline, while attempts are left.
pub const MF_RETRY_TIMEOUT: u32 = 2;

/// In mf_worker_row.state: asked for, not ready.
pub const MF_WORKER_STARTING: i32 = 1;
/// In mf_worker_row.state: takes tasks.
pub const MF_WORKER_READY: i32 = 2;
/// In mf_worker_row.state: finishes what it runs and gets nothing new.
pub const MF_WORKER_DRAINING: i32 = 3;
/// In mf_worker_row.state: told to leave.
pub const MF_WORKER_LEAVING: i32 = 4;

/// In mf_scaling_decision.action: more workers, by the policy.
pub const MF_DECISION_GROW: i32 = 1;
/// In mf_scaling_decision.action: fewer workers, by the policy or for lack of memory.
pub const MF_DECISION_SHRINK: i32 = 2;
/// In mf_scaling_decision.action: another number of workers, by mf_resize().
pub const MF_DECISION_RESIZE: i32 = 3;
/// In mf_scaling_decision.action: none, because the policy failed.
pub const MF_DECISION_FAILURE: i32 = 4;

/// In mf_scaling_snapshot.memory_state: there is enough.
pub const MF_MEMORY_AMPLE: i32 = 0;
/// In mf_scaling_snapshot.memory_state: nothing grows.
pub const MF_MEMORY_NO_GROWTH: i32 = 1;
/// In mf_scaling_snapshot.memory_state: idle workers leave, too.
pub const MF_MEMORY_SHEDDING: i32 = 2;
/// In mf_scaling_snapshot.memory_state: submits are refused, too.
pub const MF_MEMORY_REFUSING: i32 = 3;

/// In mf_task_info.state: not started.
pub const MF_TASK_QUEUED: i32 = 0;
/// In mf_task_info.state: started by a worker.
pub const MF_TASK_RUNNING: i32 = 1;
/// In mf_task_info.state: ended; its completion waits to be fetched.
pub const MF_TASK_DONE: i32 = 2;

/// For mf_log_level(): no message.
pub const MF_LOG_OFF: i32 = 0;
/// In mf_log_record.level: something is lost, or does not work.
pub const MF_LOG_ERROR: i32 = 1;
/// In mf_log_record.level: something unusual, which was dealt with.
pub const MF_LOG_WARN: i32 = 2;
/// In mf_log_record.level: what goes on.
pub const MF_LOG_INFO: i32 = 3;
/// In mf_log_record.level: for those who look for a fault.
pub const MF_LOG_DEBUG: i32 = 4;
/// In mf_log_record.level: everything.
pub const MF_LOG_TRACE: i32 = 5;

/// The worker number of a task that no worker has, or that none ever had.
pub const MF_NO_WORKER: u32 = 0xFFFF_FFFF;

/// The host's end of a running engine: from mf_engine_start() to mf_engine_free(). A handle, not
/// an address: it is never dereferenced, and a freed or made-up one is MF_E_INVALID. All threads
/// of the process that started the engine may use it at once; a forked child may not.
#[derive(Debug)]
pub struct mf_engine {
    _private: [u8; 0],
}

/// A worker program's end of its lane: from mf_worker_join() to mf_worker_leave(). A handle, like
/// mf_engine. All threads of the program may use it at once; a forked child may not.
#[derive(Debug)]
pub struct mf_worker {
    _private: [u8; 0],
}

/// The task in hand, on the worker's side: valid until its handler returns, or until
/// mf_task_finish() or mf_task_end(). A handle, like mf_engine; what mf_task_payload() and
/// mf_task_reply_buf() give lives as long as it. One thread at a time may use it, whichever that is.
#[derive(Debug)]
pub struct mf_task {
    _private: [u8; 0],
}

/// The code that workers run for each task, in a forked child of the host, on several threads at
/// once if its class has several. Returns 0 for a completed task; anything else is a failed task
/// with that code. It must not throw a C++ exception or longjmp out.
pub type mf_handler = Option<unsafe extern "C" fn(user: *mut c_void, task: *mut mf_task) -> i32>;

/// The identity of an accepted task: a UUIDv7, big-endian as in RFC 9562. Frozen: 16 bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct mf_task_id {
    /// The 16 bytes.
    pub bytes: [u8; 16],
}

/// The end of one task. Frozen: 128 bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct mf_completion {
    /// The id that submitting returned.
    pub id: mf_task_id,
    /// As given at submit.
    pub user_data: u64,
    /// How it ended.
    pub outcome: mf_outcome,
    /// What the handler returned; after a crash the exit code, or the signal with MF_F_BY_SIGNAL.
    pub code: i32,
    /// MF_F_* bits.
    pub flags: u32,
    /// Slot of the worker that ran it last; MF_NO_WORKER if none did.
    pub worker: u32,
    /// 1 = ended in its first start, 0 = never started.
    pub attempt: u32,
    /// 0.
    pub reserved0: u32,
    /// The result, or UTF-8 text (not NUL-terminated) of what went wrong if it did not complete, or
    /// any bytes with MF_F_DATA; NULL if there is none. A long one is read where its worker wrote
    /// it: it stays, but may change if that worker misbehaves.
    pub data: *const c_void,
    /// Bytes at data.
    pub len: usize,
    /// Nanoseconds from submit to the last start.
    pub queued_ns: i64,
    /// Nanoseconds from the last start to the end.
    pub run_ns: i64,
    /// For mf_completion_release(); 0 if there is nothing to release.
    pub handle: u64,
    /// 0.
    pub reserved: [u64; 5],
}

const _: () = assert!(size_of::<mf_task_id>() == 16 && align_of::<mf_task_id>() == 1);
const _: () = assert!(size_of::<mf_completion>() == 128 && align_of::<mf_completion>() == 8);

/// One task of a batch. Clear it (memset, or = {0}) before setting fields.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct mf_submission {
    /// 0, or the same as the element size given to mf_submit_batch().
    pub size: u32,
    /// 0.
    pub reserved0: u32,
    /// The payload, copied at submit; may be NULL if len is 0.
    pub payload: *const c_void,
    /// Bytes at payload.
    pub len: usize,
    /// Options, which many submissions may share; NULL = defaults.
    pub opts: *const mf_submit_opts,
    /// Comes back with the completion, instead of opts->user_data; 0 = the one in opts.
    pub user_data: u64,
}

/// What a submitter may say about a task; see mf_submit_opts_init().
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct mf_submit_opts {
    /// The caller's sizeof(mf_submit_opts).
    pub size: u32,
    /// MF_CPU_BOUND or MF_IO_BOUND.
    pub task_class: mf_class,
    /// Tasks of higher priority leave the central queue first: -3 to 3.
    pub priority: i32,
    /// MF_RETRY_* bits.
    pub flags: u32,
    /// Comes back with the completion, untouched.
    pub user_data: u64,
    /// The caller's own id: travels to the worker, to logs and texts of crashes. Zeros = none.
    pub label: [u8; 16],
    /// Longest run in nanoseconds, from the start of each attempt; 0 = the default of its class,
    /// < 0 = none. A task beyond it is asked to stop, then its worker is killed.
    pub deadline_ns: i64,
    /// Tasks of a class with the same key run on the same worker, and wait for it while it has no
    /// room; 0 = none. If that worker goes, or one comes that takes the key over, later ones run there.
    pub sticky_key: u64,
    /// Starts that the task allows, 1 = at most once, up to 65535; 0 = the engine's default. Only
    /// the death of a worker uses more than one, and what MF_RETRY_* asks for.
    pub max_attempts: u32,
    /// 0.
    pub reserved0: u32,
}

/// Payload memory on loan from an engine. The caller sets size, mf_loan() the rest.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct mf_loan_buf {
    /// The caller's sizeof(mf_loan_buf).
    pub size: u32,
    /// 0.
    pub reserved0: u32,
    /// Where to write the payload.
    pub ptr: *mut c_void,
    /// Bytes at ptr.
    pub len: usize,
    /// For mf_submit_loaned() and mf_loan_drop().
    pub handle: u64,
}

/// Counters of an engine. The caller sets size, mf_stats() the rest.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct mf_engine_stats {
    /// The caller's sizeof(mf_engine_stats).
    pub size: u32,
    /// 1 if no worker can be started any more, 0 if all is well.
    pub degraded: u32,
    /// Tasks accepted, since the start.
    pub submitted: u64,
    /// Tasks that completed.
    pub completed: u64,
    /// Tasks that failed.
    pub failed: u64,
    /// Tasks whose worker died.
    pub crashed: u64,
    /// Tasks that ran beyond their deadline.
    pub timed_out: u64,
    /// Tasks that were cancelled.
    pub cancelled: u64,
    /// Submits that were refused because something was full.
    pub would_block: u64,
    /// Tasks that a worker handed back unstarted because a long one had come up before them.
    pub recalled: u64,
    /// Tasks that were on a dead worker, not started, and went to another.
    pub redispatched: u64,
    /// Worker processes started.
    pub spawned: u64,
    /// Worker processes that died unasked.
    pub died: u64,
    /// Workers killed because their memory could not be trusted.
    pub violations: u64,
    /// Tasks that wait in the central queues, now.
    pub queued: u64,
    /// Tasks on workers, started or not, now.
    pub on_workers: u64,
    /// Completions that nobody has fetched, now.
    pub unpolled: u64,
    /// Workers that take tasks, now.
    pub workers: u64,
    /// Bytes of the payload arena in use, now.
    pub payload_bytes: u64,
    /// Bytes of the payload arena.
    pub payload_capacity: u64,
    /// Starts again, of tasks whose worker died or that asked for it.
    pub retried: u64,
    /// Worker processes that the engine ended: for a task beyond its deadline or cancelled by force,
    /// or because they were stopped, hung or broke the protocol.
    pub killed: u64,
    /// Worker processes that were replaced because of their number of tasks or their size.
    pub recycled: u64,
    /// Times that a dispatch function chose a worker that there is not.
    pub policy_failures: u64,
}

/// One worker process. Rows are an array of a given element size; see mf_worker_stats().
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct mf_worker_row {
    /// Set to the element size.
    pub size: u32,
    /// The worker's number.
    pub slot: u32,
    /// Its process; 0 while it is being started.
    pub pid: u32,
    /// MF_CPU_BOUND or MF_IO_BOUND.
    pub task_class: mf_class,
    /// MF_WORKER_*.
    pub state: i32,
    /// Its threads.
    pub threads: u32,
    /// Most tasks that it is given in advance at present, running ones included.
    pub depth: u32,
    /// Tasks on it that are not started.
    pub queued: u32,
    /// Tasks that it runs.
    pub running: u32,
    /// Processor time that it used lately, in 1/1000 of one processor. This and rss_bytes are measured
    /// once a second at most, and 0 in what mf_dispatch_fn is shown.
    pub cpu_permille: u32,
    /// New for every process in the slot.
    pub incarnation: u64,
    /// Tasks that it has ended, failed ones included.
    pub completed: u64,
    /// Tasks that failed on it.
    pub failed: u64,
    /// Tasks that crashed in this slot, on processes before this one.
    pub crashed: u64,
    /// Nanoseconds in handlers, over all threads.
    pub busy_ns: u64,
    /// Average nanoseconds of a task.
    pub service_ns: u64,
    /// Resident memory in bytes; 0: not measured yet.
    pub rss_bytes: u64,
}

/// The load of a class of workers at one moment: what an mf_scaling_fn is shown.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct mf_scaling_snapshot {
    /// The library's sizeof(mf_scaling_snapshot); a later version may have more at its end.
    pub size: u32,
    /// MF_CPU_BOUND or MF_IO_BOUND.
    pub task_class: mf_class,
    /// Nanoseconds since the engine was started.
    pub now_ns: u64,
    /// mf_class_config.min_workers.
    pub min_workers: u32,
    /// mf_class_config.max_workers.
    pub max_workers: u32,
    /// Workers wanted at present.
    pub target: u32,
    /// Workers that take tasks.
    pub ready: u32,
    /// Workers that are being started.
    pub starting: u32,
    /// Threads of each worker.
    pub threads: u32,
    /// Most tasks on one worker.
    pub peak: u32,
    /// MF_MEMORY_*.
    pub memory_state: i32,
    /// Tasks that no worker has.
    pub queued: u64,
    /// Tasks on workers, running or next in line.
    pub on_workers: u64,
    /// Nanoseconds that the task has waited that has waited longest for a worker.
    pub oldest_ns: u64,
    /// Average nanoseconds of a task; 0 = not known yet.
    pub service_ns: u64,
    /// Tasks that workers have ended since the start.
    pub ended: u64,
    /// The share of the processors in use, in 1/1000; -1 = not known.
    pub cpu_permille: i32,
    /// The share of memory in use, in 1/1000; -1 = not known.
    pub memory_permille: i32,
    /// The share of the last 10 s in which tasks stood still for lack of memory, in 1/1000; -1 = not known.
    pub pressure_permille: i32,
    /// 0.
    pub reserved0: u32,
    /// Counters of the whole engine.
    pub stats: *const mf_engine_stats,
}

/// A decision about the number of workers of a class, and what it was made from. An array of them has a
/// given element size; see mf_scaling_decisions().
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct mf_scaling_decision {
    /// Set to the element size.
    pub size: u32,
    /// MF_CPU_BOUND or MF_IO_BOUND.
    pub task_class: mf_class,
    /// Nanoseconds since 1970-01-01 00:00 UTC.
    pub time_ns: u64,
    /// MF_DECISION_*.
    pub action: i32,
    /// Workers wanted before.
    pub before: u32,
    /// Workers wanted from then on.
    pub after: u32,
    /// Workers that took tasks.
    pub ready: u32,
    /// Workers that were being started.
    pub starting: u32,
    /// Threads of each worker.
    pub threads: u32,
    /// Tasks that no worker had.
    pub queued: u64,
    /// Tasks on workers.
    pub on_workers: u64,
    /// Nanoseconds that the task had waited that had waited longest for a worker.
    pub oldest_ns: u64,
    /// Average nanoseconds of a task; 0 = not known.
    pub service_ns: u64,
    /// The share of the processors in use, in 1/1000; -1 = not known.
    pub cpu_permille: i32,
    /// The share of memory in use, in 1/1000; -1 = not known.
    pub memory_permille: i32,
    /// Why, in UTF-8, NUL-terminated; cut between two characters if it has no room.
    pub reason: [c_char; 176],
}

/// Where a task is. The caller sets size, mf_task_state() the rest.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct mf_task_info {
    /// The caller's sizeof(mf_task_info).
    pub size: u32,
    /// MF_TASK_*.
    pub state: i32,
    /// The worker that runs it; MF_NO_WORKER unless it is running.
    pub worker: u32,
    /// 0.
    pub reserved0: u32,
    /// Nanoseconds since its start; 0 unless it is running.
    pub elapsed_ns: i64,
    /// The handler's last report, mf_task_progress(): how far.
    pub progress_done: u64,
    /// Of how much; 0 = not known.
    pub progress_total: u64,
}

/// A task in hand and everything about it. The caller sets size, mf_worker_take() the rest.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct mf_work {
    /// The caller's sizeof(mf_work).
    pub size: u32,
    /// 1 in the first start of the task, 2 in the second, and so on.
    pub attempt: u32,
    /// The task in hand; NULL with every error.
    pub task: *mut mf_task,
    /// The payload, read-only, until the task ends (see mf_task_view()); not NULL, also if it is
    /// empty.
    pub payload: *const c_void,
    /// Bytes at payload.
    pub len: usize,
    /// mf_submit_opts.user_data.
    pub user_data: u64,
    /// The id that submitting returned.
    pub id: mf_task_id,
    /// mf_submit_opts.label; zeros if none was given.
    pub label: [u8; 16],
}

/// A message of the library's log. The caller sets size, mf_log_read() the rest. The texts are UTF-8
/// without NULs in them, and NUL-terminated; one for which there is too little room is cut between
/// two characters.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct mf_log_record {
    /// The caller's sizeof(mf_log_record).
    pub size: u32,
    /// MF_LOG_ERROR to MF_LOG_TRACE.
    pub level: i32,
    /// Nanoseconds since 1970-01-01 00:00 UTC.
    pub time_ns: u64,
    /// Messages that were dropped between the one before and this one, because 1024 waited already.
    pub dropped: u64,
    /// Bytes that the target has; if that is not less than sizeof(target), it was cut.
    pub target_len: u32,
    /// Bytes that the message has; if that is not less than sizeof(message), it was cut.
    pub message_len: u32,
    /// The part of the library that it comes from, such as "miniflow::engine::supervisor".
    pub target: [c_char; 96],
    /// The message; it may have several lines.
    pub message: [c_char; 3584],
}

/// A worker that a language runtime's zygote has to fork. The runtime sets size, mf_zygote_recv() the
/// rest.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct mf_zygote_request {
    /// The caller's sizeof(mf_zygote_request).
    pub size: u32,
    /// The number of the worker to be forked.
    pub worker: u32,
    /// The incarnation of that worker.
    pub incarnation: u64,
}

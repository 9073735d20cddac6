//! The settings of an engine, from C.

use std::ffi::{CStr, OsStr, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::ptr;
use std::time::Duration;

use crate::config::{Builder, Config};
use crate::error::{Error, Result};
use crate::ffi::error::guard;
use crate::ffi::handler::ForeignHandler;
use crate::ffi::placement::{
    self, MF_AFFINITY_NONE, MF_HUGE_PAGES_OFF, MF_IO_INHERIT, MF_SCHEDULER_INHERIT,
    mf_class_affinity,
};
use crate::ffi::policy;
use crate::ffi::scaling;
use crate::ffi::sized;
use crate::ffi::types::*;
use crate::sandbox::Sandbox;
use crate::task::Class;

/// In mf_config.flags: worker_argv is a zygote program. It is executed once, loads what workers need
/// and forks them; see mf_zygote_open().
pub const MF_ZYGOTE: u32 = 1;

/// In mf_config.dispatch_policy: the worker with the fewest tasks; the default.
pub const MF_DISPATCH_LEAST_LOADED: i32 = 0;
/// In mf_config.dispatch_policy: each worker in turn.
pub const MF_DISPATCH_ROUND_ROBIN: i32 = 1;
/// In mf_config.dispatch_policy: ask mf_config.dispatch.
pub const MF_DISPATCH_CUSTOM: i32 = 2;
/// In mf_config.dispatch_policy: the worker with fewer tasks of two that are chosen at random.
pub const MF_DISPATCH_POWER_OF_TWO: i32 = 3;

/// In mf_config.scaling_policy: the minimum of workers, and mf_resize(); the default.
pub const MF_SCALING_OFF: i32 = 0;
/// In mf_config.scaling_policy: by load and thresholds, counted per thread.
pub const MF_SCALING_DEFAULT: i32 = 1;
/// In mf_config.scaling_policy: ask mf_config.scaling.
pub const MF_SCALING_CUSTOM: i32 = 2;
/// In mf_config.scaling_policy: by queueing delay, arrivals and service times.
pub const MF_SCALING_ADAPTIVE: i32 = 3;
/// In mf_config.scaling_policy: as MF_SCALING_DEFAULT, but counted per worker.
pub const MF_SCALING_COMPATIBLE: i32 = 4;

/// For an mf_scaling_fn to return: it failed. That is logged and kept among the decisions.
pub const MF_SCALING_FAILED: i32 = -2;

/// In mf_config.sandbox: workers, and what they execute, gain no privileges from set-user-ID bits
/// or file capabilities.
pub const MF_SANDBOX_NO_NEW_PRIVS: u32 = 1;
/// In mf_config.sandbox: workers have the resource limits mf_config.sandbox_memory, sandbox_files,
/// sandbox_cpu_s and sandbox_core.
pub const MF_SANDBOX_RLIMITS: u32 = 2;
/// In mf_config.sandbox: workers have a system call filter, and gain no privileges. Tracing, reading
/// and writing other processes, signals to others than itself, and moving the waiters of shared
/// futexes fail with EPERM. MF_E_UNSUPPORTED where the kernel has no such filters.
pub const MF_SANDBOX_SECCOMP: u32 = 4;
/// In mf_config.sandbox: other processes of the same user cannot trace this process or open its
/// memory in /proc (those with CAP_SYS_PTRACE can). It holds for the whole process and stays when
/// the engine is stopped: no core files, no debugger, and /proc/self belongs to root.
pub const MF_SANDBOX_UNDUMPABLE_HOST: u32 = 8;

/// Chooses a worker for a task: the index of a row, or < 0 for the engine's own choice. There are at
/// least two rows, one for each worker of the class that has room now; tasks that it has not ended
/// are in `queued` as far as they are more than its threads, else in `running`. Not asked for tasks
/// with a sticky key, nor while another engine's dispatch function uses this engine. An index that there
/// is not counts as a failure, and as < 0.
///
/// It is called under the engine's lock, on any thread that submits or polls and on one of the
/// engine's own: it must be quick, must not wait for another thread that uses the engine, must not
/// throw a C++ exception or longjmp out, and cannot use the engine itself, whose functions answer
/// MF_E_INTERNAL there. The rows are valid until it returns.
pub type mf_dispatch_fn = Option<
    unsafe extern "C" fn(
        user: *mut c_void,
        task_class: mf_class,
        rows: *const mf_worker_row,
        row_size: usize,
        count: usize,
    ) -> i32,
>;

/// Chooses how many workers a class should have, given its load; < 0 leaves that as it is, and MF_SCALING_FAILED
/// says besides that it failed. What is beyond the class's limits is brought inside.
///
/// It is called on a thread of its own, for one class after the other, while tasks are in flight or a
/// class has more workers than its minimum. It may be slow; mf_engine_stop() waits for it, but not
/// longer than a second, so what it uses must outlive it. It must not throw a C++ exception or longjmp
/// out. The snapshot, and what it points to, are valid until it returns.
pub type mf_scaling_fn =
    Option<unsafe extern "C" fn(user: *mut c_void, snapshot: *const mf_scaling_snapshot) -> i32>;

/// The workers of one class. Part of mf_config, frozen: 32 bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct mf_class_config {
    /// Workers at the start and at least.
    pub min_workers: u32,
    /// Workers at most, also by mf_resize().
    pub max_workers: u32,
    /// Threads of each worker, or tasks that a worker program may hold at a time.
    pub threads: u32,
    /// Added to the niceness of the workers, which is that of the thread that calls mf_engine_start():
    /// -20 to 19.
    pub nice: i32,
    /// Longest run in nanoseconds of tasks of this class that do not say; 0 =
    /// mf_config.default_deadline_ns, < 0 = none.
    pub deadline_ns: i64,
    /// MF_SCHEDULER_*.
    pub scheduler: i32,
    /// MF_IO_INHERIT, MF_IO_IDLE, or MF_IO_BEST_EFFORT plus a level.
    pub io_priority: i32,
}

const _: () = assert!(size_of::<mf_class_config>() == 32);

/// The settings of an engine. Fill it by mf_config_init(), then change what should differ;
/// nothing that it points to is needed after mf_engine_start(), except what `handler_user` means
/// to the handler.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct mf_config {
    /// The caller's sizeof(mf_config).
    pub size: u32,
    /// 0 or MF_ZYGOTE.
    pub flags: u32,
    /// A name by which others of this user on this machine can watch the engine, 1 to 64 of
    /// A-Za-z0-9._-. NULL = an automatic one, which mf_engine_name() tells; "" = none.
    pub name: *const c_char,
    /// The code that workers run, in forked children of this process; NULL with worker_argv.
    pub handler: mf_handler,
    /// The handler's first argument, as it is in the process at mf_engine_start().
    pub handler_user: *mut c_void,
    /// A NULL-terminated list of strings: the program that workers execute, found in PATH, and
    /// its arguments. It joins by mf_worker_join(). With MF_ZYGOTE in flags it is executed once and
    /// forks the workers, see mf_zygote_open(). NULL with handler.
    pub worker_argv: *const *const c_char,
    /// Descriptors of this process to be left open in the workers, which else have 0 to 2.
    pub inherit_fds: *const i32,
    /// How many inherit_fds there are.
    pub inherit_count: usize,
    /// By MF_CPU_BOUND and MF_IO_BOUND.
    pub classes: [mf_class_config; 2],
    /// Most tasks that are queued, running or not yet fetched, up to 2^20.
    pub max_tasks: u32,
    /// MF_DISPATCH_*.
    pub dispatch_policy: i32,
    /// Longest payload in bytes that travels in the descriptor, at most 40.
    pub inline_payload: u32,
    /// Longest result in bytes that travels in the task slot, at most 152.
    pub inline_result: u32,
    /// Bytes of shared memory for longer payloads, allocated as needed.
    pub payload_arena: u64,
    /// Bytes of shared memory per worker for longer results, allocated as needed.
    pub result_arena: u64,
    /// Largest payload in bytes.
    pub max_payload: u64,
    /// Largest result in bytes.
    pub max_result: u64,
    /// Results from this many bytes on are read where the worker wrote them, and hold its result
    /// memory until they are released; shorter ones are copied.
    pub in_place_from: u64,
    /// Nanoseconds that a waiting thread may spin before it sleeps; 0 never spins.
    pub spin_ns: i64,
    /// Nanoseconds that a worker's reply waits for result memory before it fails.
    pub reply_wait_ns: i64,
    /// Nanoseconds that mf_engine_start() waits for the workers.
    pub start_timeout_ns: i64,
    /// Nanoseconds that running tasks have, after the drain of mf_engine_stop(), before their
    /// workers are killed.
    pub stop_grace_ns: i64,
    /// For MF_DISPATCH_CUSTOM, else NULL. It and its argument are needed while it is in use.
    pub dispatch: mf_dispatch_fn,
    /// Its first argument.
    pub dispatch_user: *mut c_void,
    /// For MF_SCALING_CUSTOM, else NULL.
    pub scaling: mf_scaling_fn,
    /// Its first argument.
    pub scaling_user: *mut c_void,
    /// Nanoseconds between two looks at the load, at least 1000000 and at most a day; 0 = 100 ms. This
    /// and the other scaling_* thresholds: 0 = the default, and 0 without a scaling_policy. A policy
    /// that does not have a threshold ignores it.
    pub scaling_interval_ns: i64,
    /// Grow if a task waits longer than this many nanoseconds; 0 = 100 ms.
    pub scaling_max_wait_ns: i64,
    /// Least nanoseconds between two changes; 0 = 200 ms.
    pub scaling_cooldown_ns: i64,
    /// MF_SCALING_*.
    pub scaling_policy: i32,
    /// Grow if a class has more tasks per thread than this, in 1/1000, on average (0 = 2500) ...
    pub scaling_load_permille: u32,
    /// ... or any of its workers has more than this (0 = 4000).
    pub scaling_peak_permille: u32,
    /// Do not grow if the processors are busier than this, in 1/1000; 0 = 900, 1000 = no limit.
    pub scaling_cpu_permille: u32,
    /// Shrink after so many idle looks in a row, a second apart or scaling_interval_ns if that is
    /// longer; 0 = 3.
    pub scaling_idle_looks: u32,
    /// MF_AFFINITY_*. Of this and of nice, scheduler, io_priority and huge_pages, what this machine does
    /// not have or this process may not do is left out, and noted in the status.
    pub affinity: i32,
    /// For MF_AFFINITY_LIST: worker i runs on processor affinity_cpus[i % affinity_count]. One with
    /// several threads has as many in a row, and the next worker goes on there.
    pub affinity_cpus: *const u32,
    /// How many affinity_cpus there are.
    pub affinity_count: usize,
    /// Replace a worker after so many tasks, when it has finished them; 0 = never.
    pub recycle_tasks: u64,
    /// Replace a worker that grows beyond so many bytes of resident memory, when it has finished what
    /// it runs; 0 = never.
    pub recycle_rss: u64,
    /// Longest run in nanoseconds of tasks that do not say; <= 0 = none.
    pub default_deadline_ns: i64,
    /// Starts of tasks that do not say, up to 65535; 0 or 1 = at most once.
    pub default_attempts: u32,
    /// MF_SANDBOX_* bits; 0 = none.
    pub sandbox: u32,
    /// With MF_SANDBOX_RLIMITS, bytes of address space of each worker: it counts both arenas, a
    /// stack per thread, and in handler workers all that this process has mapped at
    /// mf_engine_start(); 0 = unlimited. This and the other sandbox_*: without that bit, 0.
    pub sandbox_memory: u64,
    /// Most bytes of a worker's core file; 0 = none is written.
    pub sandbox_core: u64,
    /// Most descriptors that a worker has open, at least 16; 0 = unlimited.
    pub sandbox_files: u32,
    /// Seconds of processor time that a worker process has in its whole life before SIGXCPU ends
    /// it, and SIGKILL a second later; 0 = unlimited.
    pub sandbox_cpu_s: u32,
    /// Nanoseconds that a worker has to finish what it runs, from the SIGTERM that it gets because
    /// of a task beyond its deadline or cancelled by force, to the SIGKILL.
    pub kill_grace_ns: i64,
    /// Nanoseconds that a worker with tasks may be stopped (SIGSTOP) before it is killed. One that a
    /// debugger has stopped is left alone.
    pub stopped_grace_ns: i64,
    /// Nanoseconds that a worker may leave tasks unstarted although it has a free thread, before it
    /// is taken for hung and killed. A worker program counts as free if it runs nothing.
    pub hang_timeout_ns: i64,
    /// For MF_AFFINITY_NODE, else 0.
    pub affinity_node: u32,
    /// MF_HUGE_PAGES_*.
    pub huge_pages: u32,
    /// For classes whose affinity is another, by MF_CPU_BOUND and MF_IO_BOUND.
    pub class_affinity: [mf_class_affinity; 2],
    /// Do not grow while more memory is in use than this, in 1/1000, of the machine's or of what a control
    /// group may have (0 = 900). This and the next two: 0 without a scaling_policy. 1000 = no limit.
    pub memory_grow_permille: u32,
    /// Do not grow either while tasks stand still for lack of memory for more than this share of the time,
    /// in 1/1000; 0 = 100.
    pub memory_pressure_permille: u32,
    /// Let idle workers go, one after the other, down to the minimum, while more memory is in use than
    /// this; 0 = 950.
    pub memory_shed_permille: u32,
    /// Submits and loans are MF_E_WOULD_BLOCK while more memory is in use than this; 0 = 980. Also without
    /// a scaling_policy.
    pub memory_refuse_permille: u32,
}

impl mf_config {
    /// The defaults of the Rust interface.
    pub(crate) fn defaults() -> Self {
        let config = Config::default();
        let ns = sized::nanoseconds;
        let class = |class: Class| {
            let c = config.class(class);
            mf_class_config {
                min_workers: c.min,
                max_workers: c.max,
                threads: c.threads,
                nice: 0,
                deadline_ns: 0,
                scheduler: MF_SCHEDULER_INHERIT,
                io_priority: MF_IO_INHERIT,
            }
        };
        Self {
            size: sized::size_field::<Self>(),
            flags: 0,
            name: ptr::null(),
            handler: None,
            handler_user: ptr::null_mut(),
            worker_argv: ptr::null(),
            inherit_fds: ptr::null(),
            inherit_count: 0,
            classes: Class::ALL.map(class),
            max_tasks: config.max_tasks,
            dispatch_policy: MF_DISPATCH_LEAST_LOADED,
            inline_payload: config.inline_payload,
            inline_result: config.inline_result,
            payload_arena: config.payload_arena,
            result_arena: config.result_arena,
            max_payload: config.max_payload,
            max_result: config.max_result,
            in_place_from: config.in_place_from,
            spin_ns: ns(config.spin),
            reply_wait_ns: ns(config.reply_wait),
            start_timeout_ns: ns(config.start_timeout),
            stop_grace_ns: ns(config.stop_grace),
            dispatch: None,
            dispatch_user: ptr::null_mut(),
            scaling: None,
            scaling_user: ptr::null_mut(),
            scaling_interval_ns: 0,
            scaling_max_wait_ns: 0,
            scaling_cooldown_ns: 0,
            scaling_policy: MF_SCALING_OFF,
            scaling_load_permille: 0,
            scaling_peak_permille: 0,
            scaling_cpu_permille: 0,
            scaling_idle_looks: 0,
            affinity: MF_AFFINITY_NONE,
            affinity_cpus: ptr::null(),
            affinity_count: 0,
            recycle_tasks: 0,
            recycle_rss: 0,
            default_deadline_ns: 0,
            default_attempts: 0,
            sandbox: 0,
            sandbox_memory: 0,
            sandbox_core: 0,
            sandbox_files: 0,
            sandbox_cpu_s: 0,
            kill_grace_ns: ns(config.kill_grace),
            stopped_grace_ns: ns(config.stopped_grace),
            hang_timeout_ns: ns(config.hang_timeout),
            affinity_node: 0,
            huge_pages: MF_HUGE_PAGES_OFF,
            class_affinity: [mf_class_affinity {
                affinity: MF_AFFINITY_NONE,
                node: 0,
                cpus: ptr::null(),
                count: 0,
            }; 2],
            memory_grow_permille: 0,
            memory_pressure_permille: 0,
            memory_shed_permille: 0,
            memory_refuse_permille: 0,
        }
    }

    /// A builder with these settings.
    ///
    /// # Safety
    /// The pointers are NULL or to what the fields' comments say.
    pub(crate) unsafe fn to_builder(self) -> Result<Builder> {
        none_set(self.flags & !MF_ZYGOTE, 0, "mf_config.flags")?;
        let mut builder = crate::Engine::builder()
            .max_tasks(self.max_tasks)
            .scaling(scaling::of(&self)?)
            .policy(policy::of(
                self.dispatch_policy,
                self.dispatch,
                self.dispatch_user,
            )?)
            .inline_payload(self.inline_payload)
            .inline_result(self.inline_result)
            .payload_arena(self.payload_arena)
            .result_arena(self.result_arena)
            .max_payload(self.max_payload)
            .max_result(self.max_result)
            .in_place_from(self.in_place_from)
            .spin(span(self.spin_ns, "spin_ns")?)
            .reply_wait(span(self.reply_wait_ns, "reply_wait_ns")?)
            .start_timeout(span(self.start_timeout_ns, "start_timeout_ns")?)
            .stop_grace(span(self.stop_grace_ns, "stop_grace_ns")?)
            .kill_grace(span(self.kill_grace_ns, "kill_grace_ns")?)
            .stopped_grace(span(self.stopped_grace_ns, "stopped_grace_ns")?)
            .hang_timeout(span(self.hang_timeout_ns, "hang_timeout_ns")?)
            .default_attempts(self.default_attempts.max(1))
            .recycle_after(or_never(self.recycle_tasks))
            .recycle_rss(or_never(self.recycle_rss))
            .sandbox(self.sandbox()?);
        for (class, c) in Class::ALL.into_iter().zip(self.classes) {
            builder = builder
                .workers_between(class, c.min_workers, c.max_workers)
                .threads(class, c.threads);
            let deadline = match c.deadline_ns {
                0 => self.default_deadline_ns,
                ns => ns,
            };
            if deadline > 0
                && let Some(deadline) = sized::timeout(deadline)
            {
                builder = builder.default_deadline(class, deadline);
            }
        }
        // SAFETY: the caller's word.
        builder = unsafe { placement::of(&self, builder) }?;
        if !self.name.is_null() {
            // SAFETY: a C string, by the caller's word.
            let name = unsafe { sized::text(self.name, "mf_config.name") }?;
            builder = match name {
                "" => builder.unnamed(),
                _ => builder.name(name),
            };
        }
        // SAFETY: the caller's word.
        let inherit = unsafe { self.inherited() }?;
        builder = builder.inherit(inherit);
        let is_zygote = self.flags & MF_ZYGOTE != 0;
        match (self.handler, self.worker_argv.is_null()) {
            (Some(_), true) if is_zygote => Err(Error::invalid(
                "mf_config.flags has MF_ZYGOTE, but there is no worker_argv",
            )),
            (Some(handler), true) => {
                let handler = ForeignHandler::new(handler, self.handler_user);
                Ok(builder.handler_object(std::sync::Arc::new(handler)))
            }
            (None, false) => {
                // SAFETY: the caller's word.
                let argv = unsafe { argv(self.worker_argv) }?;
                Ok(if is_zygote {
                    builder.zygote_program(argv)
                } else {
                    builder.program(argv)
                })
            }
            (None, true) => Err(Error::invalid(
                "mf_config has neither a handler nor worker_argv",
            )),
            (Some(_), false) => Err(Error::invalid(
                "mf_config has both a handler and worker_argv",
            )),
        }
    }

    /// The sandbox bits and fields.
    fn sandbox(&self) -> Result<Sandbox> {
        const KNOWN: u32 = MF_SANDBOX_NO_NEW_PRIVS
            | MF_SANDBOX_RLIMITS
            | MF_SANDBOX_SECCOMP
            | MF_SANDBOX_UNDUMPABLE_HOST;
        if self.sandbox & !KNOWN != 0 {
            return Err(Error::invalid(format!(
                "mf_config.sandbox has unknown bits: {:#x}",
                self.sandbox
            )));
        }
        let has = |bit| self.sandbox & bit != 0;
        let mut sandbox = Sandbox::new()
            .no_new_privs(has(MF_SANDBOX_NO_NEW_PRIVS))
            .seccomp(has(MF_SANDBOX_SECCOMP))
            .undumpable_host(has(MF_SANDBOX_UNDUMPABLE_HOST));
        if !has(MF_SANDBOX_RLIMITS) {
            let (large, small) = (
                [self.sandbox_memory, self.sandbox_core],
                [self.sandbox_files, self.sandbox_cpu_s],
            );
            if large != [0; 2] || small != [0; 2] {
                return Err(Error::invalid(
                    "mf_config has a sandbox_* limit without MF_SANDBOX_RLIMITS in sandbox",
                ));
            }
            return Ok(sandbox);
        }
        sandbox = sandbox.limit_core(self.sandbox_core);
        if self.sandbox_memory != 0 {
            sandbox = sandbox.limit_memory(self.sandbox_memory);
        }
        if self.sandbox_files != 0 {
            sandbox = sandbox.limit_files(self.sandbox_files.into());
        }
        if self.sandbox_cpu_s != 0 {
            sandbox = sandbox.limit_cpu(Duration::from_secs(self.sandbox_cpu_s.into()));
        }
        Ok(sandbox)
    }

    /// # Safety
    /// `inherit_fds` is NULL or an array of `inherit_count`.
    unsafe fn inherited(&self) -> Result<Vec<i32>> {
        const MOST: usize = 1024;
        if self.inherit_count > MOST {
            return Err(Error::invalid(format!(
                "mf_config.inherit_count is {}, more than {MOST}",
                self.inherit_count
            )));
        }
        let mut fds = Vec::with_capacity(self.inherit_count);
        for index in 0..self.inherit_count {
            let place = self.inherit_fds.wrapping_add(index);
            // SAFETY: an element of the caller's array; NULL is looked for.
            let fd = unsafe { sized::read(place, "mf_config.inherit_fds") }?;
            if fd < 0 {
                return Err(Error::invalid(format!(
                    "mf_config.inherit_fds has {fd}, which is no descriptor"
                )));
            }
            fds.push(fd);
        }
        Ok(fds)
    }
}

/// The strings of an argument list.
///
/// # Safety
/// `list` is a NULL-terminated array of C strings that nobody writes during `'a`.
unsafe fn argv<'a>(list: *const *const c_char) -> Result<Vec<&'a OsStr>> {
    let mut strings = Vec::new();
    loop {
        let place = list.wrapping_add(strings.len());
        // SAFETY: inside the array, whose end was not met yet.
        let string = unsafe { sized::read(place, "mf_config.worker_argv") }?;
        if string.is_null() {
            return Ok(strings);
        }
        // SAFETY: a C string, by the caller's word.
        strings.push(OsStr::from_bytes(
            unsafe { CStr::from_ptr(string) }.to_bytes(),
        ));
    }
}

/// 0 = never.
fn or_never(limit: u64) -> u64 {
    if limit == 0 { u64::MAX } else { limit }
}

fn span(ns: i64, what: &str) -> Result<Duration> {
    sized::timeout(ns).ok_or_else(|| Error::invalid(format!("mf_config.{what} is {ns}")))
}

#[cold]
fn unsupported(what: &str) -> Error {
    Error::Unsupported(format!("{what}, in this version"))
}

/// Refuses unknown bits as invalid and known ones as not supported.
#[inline]
pub(crate) fn none_set(bits: u32, known: u32, what: &str) -> Result<()> {
    if bits == 0 {
        return Ok(());
    }
    if bits & !known != 0 {
        return Err(Error::invalid(format!(
            "{what} has unknown bits: {bits:#x}"
        )));
    }
    Err(unsupported(what))
}

#[cold]
pub(crate) fn reserved(what: &str) -> Error {
    Error::invalid(format!("a reserved field of {what} is not 0"))
}

/// Fills `cfg` with the defaults, which differ with the machine: as many CPU-bound workers as
/// there are processors, one IO-bound worker, no handler.
///
/// - `cfg`: is written, at most `size` bytes.
/// - `size`: the caller's sizeof(mf_config).
///
/// Returns MF_OK, or MF_E_INVALID for NULL or a size that no version of mf_config has. Any thread,
/// also in a forked child. Since 0.1.
///
/// # Safety
/// `cfg` is NULL or valid for writes of `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_config_init(cfg: *mut mf_config, size: usize) -> i32 {
    guard(|| {
        sized::check(cfg, "the config")?;
        sized::check_size::<mf_config>(size, "mf_config")?;
        // SAFETY: checked, and valid for `size` bytes by the caller's word.
        unsafe { sized::write_sized(cfg, &mf_config::defaults(), size) };
        Ok(MF_OK)
    })
}

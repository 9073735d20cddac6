//! How an engine is set up.
#![forbid(unsafe_code)]

use std::ffi::{CString, OsStr};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::Engine;
use crate::engine::policy::{Custom, DispatchPolicy};
use crate::engine::scaling::Scaling;
use crate::error::{Error, Result};
use crate::placement::{Affinity, HugePages, IoPriority, Placement, Scheduler};
use crate::sandbox::Sandbox;
use crate::shm::control;
use crate::shm::layout::{CREDITS, INLINE_PAYLOAD, INLINE_RESULT};
use crate::sys::fork;
use crate::sys::process::cpus;
use crate::task::{Class, MAX_ATTEMPTS};
use crate::worker::Handler;
use crate::worker::zygote::Role;

/// How a worker is chosen among those that have room.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Policy {
    /// The one with the fewest tasks; ties go to workers that are awake, in turn.
    #[default]
    LeastLoaded,
    /// Each in turn.
    RoundRobin,
    /// The one with fewer tasks of two that are chosen at random; the least loaded one if neither
    /// has room.
    PowerOfTwo,
    /// As the host says; see [`Policy::custom`].
    Custom(Custom),
}

impl Policy {
    /// A policy of the host's own: an object, or a closure from a class and the workers with room to
    /// an index among these. See [`DispatchPolicy`] for what it must not do.
    #[must_use]
    pub fn custom(policy: impl DispatchPolicy + 'static) -> Self {
        let policy: Arc<dyn DispatchPolicy> = Arc::new(policy);
        Self::Custom(policy.into())
    }
}

/// Workers of one class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClassConfig {
    /// Workers at the start and at least.
    pub(crate) min: u32,
    /// Workers at most, also by `resize`.
    pub(crate) max: u32,
    pub(crate) threads: u32,
    /// Longest run of tasks that do not say.
    pub(crate) deadline: Option<Duration>,
    pub(crate) placement: Placement,
}

/// How an engine comes to its name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Naming {
    /// From program and process.
    #[default]
    Automatic,
    None,
    Given(String),
}

/// The settings of an engine, checked by [`Config::validate`].
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) name: Naming,
    pub(crate) role: Option<Role>,
    pub(crate) classes: [ClassConfig; 2],
    pub(crate) max_tasks: u32,
    pub(crate) payload_arena: u64,
    pub(crate) result_arena: u64,
    pub(crate) max_payload: u64,
    pub(crate) max_result: u64,
    pub(crate) inline_payload: u32,
    pub(crate) inline_result: u32,
    pub(crate) in_place_from: u64,
    pub(crate) policy: Policy,
    pub(crate) scaling: Scaling,
    pub(crate) spin: Duration,
    pub(crate) reply_wait: Duration,
    pub(crate) start_timeout: Duration,
    pub(crate) stop_grace: Duration,
    pub(crate) inherit: Vec<RawFd>,
    /// Starts of tasks that do not say.
    pub(crate) attempts: u32,
    pub(crate) kill_grace: Duration,
    pub(crate) stopped_grace: Duration,
    pub(crate) hang_timeout: Duration,
    /// Dispatches after which a worker is replaced; `u64::MAX` = never.
    pub(crate) recycle_after: u64,
    /// Resident bytes above which a worker is replaced; `u64::MAX` = never.
    pub(crate) recycle_rss: u64,
    pub(crate) huge_pages: HugePages,
    pub(crate) sandbox: Sandbox,
    /// Where `/proc` and `/sys` are: `/`, but for tests.
    pub(crate) system_root: PathBuf,
}

/// Most workers of an engine.
pub(crate) const MAX_WORKERS: u32 = 1024;
/// Most threads of a worker: there must be credits for as many tasks and some more.
pub(crate) const MAX_THREADS: u32 = 256;
const _: () = assert!(MAX_THREADS as usize * 2 <= CREDITS);
/// Most tasks in flight: the slot number has 20 bits of a task id.
pub(crate) const MAX_TASKS: u32 = 1 << 20;
/// Largest payload or result: lengths travel in 32 bits.
const MAX_BYTES: u64 = 1 << 31;

impl Default for Config {
    fn default() -> Self {
        let cpus = u32::try_from(cpus()).unwrap_or(1).min(MAX_WORKERS / 2);
        Self {
            name: Naming::Automatic,
            role: None,
            classes: [
                ClassConfig {
                    min: cpus,
                    max: cpus,
                    threads: 1,
                    deadline: None,
                    placement: Placement::default(),
                },
                ClassConfig {
                    min: 1,
                    max: 1,
                    threads: 16,
                    deadline: None,
                    placement: Placement::default(),
                },
            ],
            max_tasks: 65_536,
            payload_arena: 256 << 20,
            result_arena: 64 << 20,
            max_payload: 16 << 20,
            max_result: 16 << 20,
            inline_payload: u32::try_from(INLINE_PAYLOAD).unwrap_or(0),
            inline_result: u32::try_from(INLINE_RESULT).unwrap_or(0),
            in_place_from: 16 << 10,
            policy: Policy::default(),
            scaling: Scaling::off(),
            spin: Duration::from_micros(50),
            reply_wait: Duration::from_secs(5),
            start_timeout: Duration::from_secs(10),
            stop_grace: Duration::from_millis(500),
            inherit: Vec::new(),
            attempts: 1,
            kill_grace: Duration::from_millis(100),
            stopped_grace: Duration::from_secs(1),
            hang_timeout: Duration::from_secs(30),
            recycle_after: u64::MAX,
            recycle_rss: u64::MAX,
            huge_pages: HugePages::default(),
            sandbox: Sandbox::default(),
            system_root: PathBuf::from("/"),
        }
    }
}

impl Config {
    pub(crate) fn class(&self, class: Class) -> &ClassConfig {
        &self.classes[class.index()]
    }

    /// Whether the workers run a program of their own, executed by the zygote or before it forks them.
    pub(crate) fn is_program(&self) -> bool {
        matches!(self.role, Some(Role::Program(_))) || self.has_zygote_program()
    }

    /// Whether the zygote is a program.
    pub(crate) fn has_zygote_program(&self) -> bool {
        matches!(self.role, Some(Role::ZygoteProgram(_)))
    }

    pub(crate) fn max_workers(&self) -> u32 {
        self.classes.iter().map(|c| c.max).sum()
    }

    /// Checks every setting; the text of an error names the first bad one.
    pub(crate) fn validate(&self) -> Result<()> {
        if let Naming::Given(name) = &self.name
            && !control::valid_name(name)
        {
            return Err(Error::invalid(format!(
                "the name `{name}` is not 1 to 64 of A-Za-z0-9._-"
            )));
        }
        let Some(role) = &self.role else {
            return Err(Error::invalid(
                "the engine has neither a handler nor a worker program",
            ));
        };
        if let Role::Program(argv) | Role::ZygoteProgram(argv) = role
            && argv.is_empty()
        {
            return Err(Error::invalid("the program's argv is empty"));
        }
        // The number would come to mean one of the zygote's own.
        if let Some(fd) = self.inherit.iter().find(|&&fd| !fork::is_open(fd)) {
            return Err(Error::invalid(format!(
                "descriptor {fd}, which workers shall inherit, is not open"
            )));
        }
        for class in Class::ALL {
            let (c, name) = (self.class(class), class.name());
            let bad = |what: &str, value: u32, max: u32| {
                Err(Error::invalid(format!(
                    "{what} of class {name} is {value}, not in 1..={max}"
                )))
            };
            if c.min > c.max || c.max > MAX_WORKERS {
                return Err(Error::invalid(format!(
                    "workers of class {name}: min {} and max {} do not fit 0..={MAX_WORKERS}",
                    c.min, c.max
                )));
            }
            if c.max > 0 && (c.threads == 0 || c.threads > MAX_THREADS) {
                return bad("threads per worker", c.threads, MAX_THREADS);
            }
            c.placement.validate(name)?;
        }
        if self.max_workers() == 0 || self.max_workers() > MAX_WORKERS {
            return Err(Error::invalid(format!(
                "the classes have {} workers at most together, not 1..={MAX_WORKERS}",
                self.max_workers()
            )));
        }
        let range = |what: &str, value: u64, min: u64, max: u64| {
            if (min..=max).contains(&value) {
                Ok(())
            } else {
                Err(Error::invalid(format!(
                    "{what} is {value}, not in {min}..={max}"
                )))
            }
        };
        range(
            "max_tasks",
            u64::from(self.max_tasks),
            1,
            u64::from(MAX_TASKS),
        )?;
        range(
            "default_attempts",
            u64::from(self.attempts),
            1,
            u64::from(MAX_ATTEMPTS),
        )?;
        range("recycle_after", self.recycle_after, 1, u64::MAX)?;
        range("recycle_rss", self.recycle_rss, 1, u64::MAX)?;
        range("max_payload", self.max_payload, 1, MAX_BYTES)?;
        range("max_result", self.max_result, 1, MAX_BYTES)?;
        let most = 1 << 40;
        range(
            "payload_arena",
            self.payload_arena,
            self.max_payload.next_power_of_two(),
            most,
        )?;
        range(
            "result_arena",
            self.result_arena,
            self.max_result.next_power_of_two(),
            most,
        )?;
        range(
            "inline_payload",
            u64::from(self.inline_payload),
            0,
            INLINE_PAYLOAD as u64,
        )?;
        range(
            "inline_result",
            u64::from(self.inline_result),
            0,
            INLINE_RESULT as u64,
        )?;
        self.scaling.validate()?;
        self.sandbox
            .validate(self.payload_arena + self.result_arena)
    }
}

/// Collects the settings of an engine; [`Builder::start`] starts it.
///
/// ```
/// use miniflow::{Engine, Class};
///
/// let engine = Engine::builder()
///     .handler(|task| {
///         let sum: u32 = task.payload().iter().map(|&b| u32::from(b)).sum();
///         Ok(task.reply(&sum.to_le_bytes())?)
///     })
///     .workers(Class::CpuBound, 1)
///     .workers(Class::IoBound, 0)
///     .start()?;
/// let id = engine.submit(&[1, 2, 3])?;
/// let completion = engine.wait(id, None)?;
/// assert_eq!(completion.to_vec(), 6_u32.to_le_bytes());
/// # Ok::<(), miniflow::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "call `start`"]
pub struct Builder {
    pub(crate) config: Config,
    /// The first setting that could not even be stored.
    error: Option<String>,
}

impl Builder {
    /// Gives the engine a name by which others of this user on this machine can watch it: 1 to 64 of
    /// `A-Z a-z 0-9 . _ -`. The start fails if a living engine has it, or if there is no room for it in
    /// `/dev/shm`.
    ///
    /// Without this call the engine gets the name `<program>-<pid>`, and `-2` and so on behind that if
    /// it is taken; [`Engine::name`] tells it. If there is no room for that one the engine does without,
    /// and says so in its status.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.config.name = Naming::Given(name.into());
        self
    }

    /// No name: nobody can watch the engine, and it leaves nothing in `/dev/shm`.
    pub fn unnamed(mut self) -> Self {
        self.config.name = Naming::None;
        self
    }

    /// The function that the workers run. It runs in forked children of this process, made from a
    /// single-threaded copy of it as it is at [`Builder::start`]: what the handler captures is
    /// that copy's. Signals have their default dispositions there, SIGPIPE too; but handlers that
    /// this process has for SIGSEGV, SIGBUS, SIGILL, SIGFPE and SIGABRT stay, and run after the crash
    /// was reported.
    pub fn handler(
        self,
        handler: impl Fn(&mut crate::worker::Task<'_>) -> crate::worker::TaskResult
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.handler_object(Arc::new(handler))
    }

    /// [`Builder::handler`] for a [`Handler`] object.
    pub fn handler_object(mut self, handler: Arc<dyn Handler>) -> Self {
        self.config.role = Some(Role::Handler(handler));
        self
    }

    /// The program that the workers execute, found in `PATH`, with its arguments. It joins its
    /// lane by [`Worker::join`](crate::worker::Worker::join) or `mf_worker_join`.
    pub fn program(self, argv: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.executed(argv, Role::Program)
    }

    /// A program that is executed once, found in `PATH`, with its arguments, to fork the workers: a
    /// language runtime that loads what they need before. See [`Zygote`](crate::worker::Zygote) for
    /// what it does. If it ends or is killed, it is started again, and the workers that it had go on.
    ///
    /// Like a worker program it has its own process group, signals at their defaults (but for SIGHUP,
    /// which it ignores) and of this process's descriptors only 0 to 2 and [`Builder::inherit`].
    pub fn zygote_program(self, argv: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.executed(argv, Role::ZygoteProgram)
    }

    fn executed(
        mut self,
        argv: impl IntoIterator<Item = impl AsRef<OsStr>>,
        role: fn(Vec<CString>) -> Role,
    ) -> Self {
        let argv = argv
            .into_iter()
            .map(|a| CString::new(a.as_ref().as_bytes()));
        match argv.collect::<Result<Vec<_>, _>>() {
            Ok(argv) => self.config.role = Some(role(argv)),
            Err(_) => self.error = Some("the program's argv has a NUL byte".into()),
        }
        self
    }

    /// How many workers a class has, fixed. By default the CPU-bound class has one per processor
    /// and the IO-bound class has one.
    pub fn workers(self, class: Class, count: u32) -> Self {
        self.workers_between(class, count, count)
    }

    /// How many workers a class has at the start, at least by [`Builder::scaling`], and at most, also
    /// by [`Engine::resize`]. A class that begins without workers is not scaled until it is resized.
    pub fn workers_between(mut self, class: Class, min: u32, max: u32) -> Self {
        let c = &mut self.config.classes[class.index()];
        (c.min, c.max) = (min, max);
        self
    }

    /// How many threads each worker of a class has: 1 for CPU-bound, 16 for IO-bound by default.
    pub fn threads(mut self, class: Class, threads: u32) -> Self {
        self.config.classes[class.index()].threads = threads;
        self
    }

    /// Most tasks that are queued, running or not yet polled: 65 536 by default, at most 2^20.
    /// Beyond that, submits are [`Error::WouldBlock`].
    pub fn max_tasks(mut self, tasks: u32) -> Self {
        self.config.max_tasks = tasks;
        self
    }

    /// Bytes of shared memory for task payloads beyond 40 bytes, allocated as needed: 256 MiB by
    /// default.
    pub fn payload_arena(mut self, bytes: u64) -> Self {
        self.config.payload_arena = bytes;
        self
    }

    /// Bytes of shared memory *per worker* for results beyond 152 bytes, allocated as needed:
    /// 64 MiB by default.
    pub fn result_arena(mut self, bytes: u64) -> Self {
        self.config.result_arena = bytes;
        self
    }

    /// Largest payload in bytes: 16 MiB by default.
    pub fn max_payload(mut self, bytes: u64) -> Self {
        self.config.max_payload = bytes;
        self
    }

    /// Largest result in bytes: 16 MiB by default.
    pub fn max_result(mut self, bytes: u64) -> Self {
        self.config.max_result = bytes;
        self
    }

    /// Longest payload that travels in the descriptor instead of the arena, at most 40 bytes.
    pub fn inline_payload(mut self, bytes: u32) -> Self {
        self.config.inline_payload = bytes;
        self
    }

    /// Longest result that travels in the task slot instead of the arena, at most 152 bytes.
    pub fn inline_result(mut self, bytes: u32) -> Self {
        self.config.inline_result = bytes;
        self
    }

    /// Results from this size on are read in place and hold the worker's result memory until the
    /// [`Completion`](crate::Completion) is dropped; shorter ones are copied: 16 KiB by default.
    pub fn in_place_from(mut self, bytes: u64) -> Self {
        self.config.in_place_from = bytes;
        self
    }

    /// How a worker is chosen. [`Engine::set_policy`] changes it later.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.config.policy = policy;
        self
    }

    /// How the number of workers follows the load: not at all by default.
    pub fn scaling(mut self, scaling: Scaling) -> Self {
        self.config.scaling = scaling;
        self
    }

    /// How long a waiting thread, of the host or of a worker, may spin before it sleeps: 50 us by
    /// default. The engine spins less where that does not pay off; zero never spins.
    pub fn spin(mut self, budget: Duration) -> Self {
        self.config.spin = budget;
        self
    }

    /// How long a worker's reply waits for result memory before it fails: 5 s by default.
    pub fn reply_wait(mut self, wait: Duration) -> Self {
        self.config.reply_wait = wait;
        self
    }

    /// How long [`Builder::start`] waits for the workers: 10 s by default.
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.config.start_timeout = timeout;
        self
    }

    /// How long running tasks may take to notice that the engine stops, after the drain, before
    /// their workers are killed: 500 ms by default.
    pub fn stop_grace(mut self, grace: Duration) -> Self {
        self.config.stop_grace = grace;
        self
    }

    /// Leaves file descriptors of this process open in the workers, which otherwise have 0 to 2.
    pub fn inherit(mut self, fds: impl IntoIterator<Item = RawFd>) -> Self {
        self.config.inherit = fds.into_iter().collect();
        self
    }

    /// The longest run of tasks of this class that do not say
    /// ([`SubmitOptions::deadline`](crate::SubmitOptions::deadline)): no limit by default.
    pub fn default_deadline(mut self, class: Class, deadline: Duration) -> Self {
        self.config.classes[class.index()].deadline = Some(deadline);
        self
    }

    /// How many starts tasks allow that do not say: 1 by default, that is, at most once.
    pub fn default_attempts(mut self, attempts: u32) -> Self {
        self.config.attempts = attempts;
        self
    }

    /// How long a worker has to finish what it runs, from the SIGTERM that it gets because of a
    /// task beyond its deadline or cancelled by force, to the SIGKILL: 100 ms by default.
    pub fn kill_grace(mut self, grace: Duration) -> Self {
        self.config.kill_grace = grace;
        self
    }

    /// How long a worker with tasks may be stopped (SIGSTOP) before it is killed: 1 s by default.
    /// One that a debugger has stopped is left alone.
    pub fn stopped_grace(mut self, grace: Duration) -> Self {
        self.config.stopped_grace = grace;
        self
    }

    /// How long a worker may leave tasks unstarted although it has a free thread before it is taken
    /// for hung and killed: 30 s by default. Of a worker program only that it runs nothing shows that
    /// it is free.
    pub fn hang_timeout(mut self, timeout: Duration) -> Self {
        self.config.hang_timeout = timeout;
        self
    }

    /// Replaces a worker after it was given so many tasks, when it has finished them; never by
    /// default.
    pub fn recycle_after(mut self, tasks: u64) -> Self {
        self.config.recycle_after = tasks;
        self
    }

    /// Replaces a worker that has grown beyond so many bytes of resident memory, when it has
    /// finished what it runs; never by default. Looked at once per second.
    pub fn recycle_rss(mut self, bytes: u64) -> Self {
        self.config.recycle_rss = bytes;
        self
    }

    /// Which processors the workers of a class run on. A worker keeps its place, and a replacement gets
    /// the place of its predecessor. What this machine does not have is left out, and noted in the
    /// engine's status (`docs/placement.md`).
    pub fn affinity(mut self, class: Class, affinity: Affinity) -> Self {
        self.config.classes[class.index()].placement.affinity = affinity;
        self
    }

    /// Added to the niceness of the workers of a class, which is that of this thread: -20 to 19, 0 by
    /// default. Less than 0 needs `CAP_SYS_NICE` or a raised `RLIMIT_NICE`; without, it is noted in the
    /// engine's status, and the workers run as nice as they are.
    pub fn nice(mut self, class: Class, nice: i32) -> Self {
        self.config.classes[class.index()].placement.nice = nice;
        self
    }

    /// How the kernel's scheduler treats the workers of a class.
    pub fn scheduler(mut self, class: Class, scheduler: Scheduler) -> Self {
        self.config.classes[class.index()].placement.scheduler = scheduler;
        self
    }

    /// When the disk serves the workers of a class.
    pub fn io_priority(mut self, class: Class, priority: IoPriority) -> Self {
        self.config.classes[class.index()].placement.io_priority = priority;
        self
    }

    /// Whether payloads and results in shared memory lie in huge pages: worth a try if they are large.
    pub fn huge_pages(mut self, pages: HugePages) -> Self {
        self.config.huge_pages = pages;
        self
    }

    /// What workers are forbidden to do: nothing by default.
    pub fn sandbox(mut self, sandbox: Sandbox) -> Self {
        self.config.sandbox = sandbox;
        self
    }

    /// For tests: where the engine finds `/proc` and `/sys` when it looks at processors and memory.
    #[doc(hidden)]
    pub fn system_root(mut self, root: impl Into<PathBuf>) -> Self {
        self.config.system_root = root.into();
        self
    }

    /// Starts the engine: returns when the minimum of workers is ready.
    ///
    /// The engine forks its zygote here. If this process has other threads (a second engine's
    /// supervisor is one), a handler may use only what survives a fork: memory allocation does,
    /// locks that another thread holds at this moment do not. Start engines early.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad setting or a name in use, or if a zygote program says that it
    /// cannot start workers (with its reason), [`Error::Unsupported`] if the kernel
    /// lacks something (the text says what), [`Error::Timeout`] if the workers are not ready in
    /// time, [`Error::System`] or [`Error::NoMemory`] if the operating system refuses.
    pub fn start(self) -> Result<Engine> {
        match self.error {
            Some(text) => Err(Error::Invalid(text)),
            None => Engine::start(self.config),
        }
    }
}

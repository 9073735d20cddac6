//! What workers are forbidden to do: settings only, `sys::sandbox` applies them.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::error::{Error, Result};

/// Fewer descriptors than this do not even carry a worker's lane.
const LEAST_FILES: u64 = 16;

/// What the workers of an engine are forbidden to do. Nothing by default; each setting adds one
/// restriction, and [`Sandbox::strict`] is those that cost a well-behaved worker nothing.
///
/// A worker applies them to itself after the fork, before it runs the handler or executes its
/// program. Neither it nor its children can take them back (a worker with `CAP_SYS_RESOURCE` can
/// raise its limits again). If one cannot be applied, the worker does not run, and
/// [`Builder::start`](crate::Builder::start) says which one failed.
///
/// It makes it harder for hostile *code* in a worker to get at the host and at other workers. It
/// is not a container: files, the network and the rest of the system calls stay open. What exactly
/// is covered and what is not is in `docs/sandbox.md`.
///
/// ```
/// use std::time::Duration;
/// use miniflow::{Engine, Sandbox};
///
/// let sandbox = Sandbox::new()
///     .seccomp(true)
///     .limit_cpu(Duration::from_secs(600))
///     .limit_core(0);
/// let engine = Engine::builder()
///     .handler(|task| Ok(task.reply(b"done")?))
///     .sandbox(sandbox)
///     .start()?;
/// # drop(engine);
/// # Ok::<(), miniflow::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "give it to `Builder::sandbox`"]
pub struct Sandbox {
    pub(crate) no_new_privs: bool,
    pub(crate) seccomp: bool,
    pub(crate) undumpable_host: bool,
    pub(crate) memory: Option<u64>,
    pub(crate) files: Option<u64>,
    pub(crate) cpu: Option<Duration>,
    pub(crate) core: Option<u64>,
}

impl Sandbox {
    /// No restriction.
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything but the limits whose right size only the caller knows: no new privileges, the
    /// system call filter, no core files, and a host that cannot be dumped or traced. Mind what
    /// [`Sandbox::undumpable_host`] says about the host process.
    pub fn strict() -> Self {
        Self::default()
            .no_new_privs(true)
            .seccomp(true)
            .undumpable_host(true)
            .limit_core(0)
    }

    /// Workers, and what they execute, gain no privileges from set-user-ID or set-group-ID bits
    /// or from file capabilities.
    pub fn no_new_privs(mut self, on: bool) -> Self {
        self.no_new_privs = on;
        self
    }

    /// Workers have a system call filter, which implies [`Sandbox::no_new_privs`]. What it denies
    /// fails with `EPERM`: to trace, read or write another process (`ptrace`, `process_vm_*`,
    /// `pidfd_getfd` and the like), to signal any process but itself, to move waiters from one
    /// futex to another across processes. System calls of the 32-bit interface kill the worker.
    ///
    /// Children of a worker inherit the filter of their parent, so that they cannot signal
    /// themselves, and the worker cannot signal them.
    pub fn seccomp(mut self, on: bool) -> Self {
        self.seccomp = on;
        self
    }

    /// Makes the *host* process "not dumpable" before the workers exist, so that processes of the
    /// same user cannot trace it or open its memory in `/proc`. The zygote and handler workers
    /// inherit that; an executed worker program does not.
    ///
    /// This is a property of the whole host process and stays when the engine stops: it writes no
    /// core files any more, a debugger of the same user cannot attach, and the files of its
    /// `/proc/PID` belong to root (of those, `environ` and a few more cannot be read even by
    /// itself). Processes with `CAP_SYS_PTRACE`, root among them, are not stopped by it.
    pub fn undumpable_host(mut self, on: bool) -> Self {
        self.undumpable_host = on;
        self
    }

    /// Limits the address space of each worker (`RLIMIT_AS`). Beyond it, allocations fail; Rust
    /// code that does not expect that aborts.
    ///
    /// It counts everything that is mapped, used or not: the engine's payload arena, a result
    /// arena and a stack per thread, and in handler workers all that the host had mapped when the
    /// engine was started.
    pub fn limit_memory(mut self, bytes: u64) -> Self {
        self.memory = Some(bytes);
        self
    }

    /// Limits the descriptors that each worker has open (`RLIMIT_NOFILE`), at least 16. About ten
    /// are the engine's own.
    pub fn limit_files(mut self, files: u64) -> Self {
        self.files = Some(files);
        self
    }

    /// Limits the processor time of each worker process over its *whole* life (`RLIMIT_CPU`), in
    /// whole seconds, rounded up. Then it gets `SIGXCPU`, which ends it, and a second later
    /// `SIGKILL`; its tasks are crashed and it is replaced.
    pub fn limit_cpu(mut self, time: Duration) -> Self {
        self.cpu = Some(time);
        self
    }

    /// Limits the size of core files (`RLIMIT_CORE`); 0: none. A `core_pattern` that is a pipe
    /// may ignore it.
    pub fn limit_core(mut self, bytes: u64) -> Self {
        self.core = Some(bytes);
        self
    }

    /// Refuses limits under which no worker can run. Each worker maps `shared` bytes of the
    /// engine's.
    pub(crate) fn validate(&self, shared: u64) -> Result<()> {
        if let Some(bytes) = self.memory
            && bytes <= shared
        {
            return Err(Error::invalid(format!(
                "the sandbox's memory limit is {bytes}, but every worker maps the payload arena \
                 and a result arena, {shared} bytes together: raise the limit by far, or lower \
                 payload_arena and result_arena"
            )));
        }
        if let Some(files) = self.files
            && files < LEAST_FILES
        {
            return Err(Error::invalid(format!(
                "the sandbox's limit of open files is {files}, less than {LEAST_FILES}"
            )));
        }
        if self.cpu == Some(Duration::ZERO) {
            return Err(Error::invalid("the sandbox's processor time limit is 0"));
        }
        Ok(())
    }

    /// What a worker applies to itself, for another process of this library: without commas.
    pub(crate) fn to_wire(&self) -> String {
        let limit = |limit: Option<u64>| limit.map_or("-".to_owned(), |n| n.to_string());
        format!(
            "{}:{}:{}:{}:{}:{}",
            u8::from(self.no_new_privs),
            u8::from(self.seccomp),
            limit(self.memory),
            limit(self.files),
            limit(self.cpu_seconds()),
            limit(self.core),
        )
    }

    /// The reverse of [`Sandbox::to_wire`].
    pub(crate) fn from_wire(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.split(':').collect();
        let [no_new_privs, seccomp, memory, files, cpu, core] = fields[..] else {
            return None;
        };
        let switch = |field: &str| match field {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        };
        let limit = |field: &str| match field {
            "-" => Some(None),
            number => number.parse().ok().map(Some),
        };
        Some(Self {
            no_new_privs: switch(no_new_privs)?,
            seccomp: switch(seccomp)?,
            undumpable_host: false, // not a worker's business
            memory: limit(memory)?,
            files: limit(files)?,
            cpu: limit(cpu)?.map(Duration::from_secs),
            core: limit(core)?,
        })
    }

    /// The processor time limit in whole seconds, rounded up.
    pub(crate) fn cpu_seconds(&self) -> Option<u64> {
        self.cpu
            .map(|t| t.as_secs().saturating_add(u64::from(t.subsec_nanos() > 0)))
    }

    /// For the text about a worker that did not start: which limits may be to blame, or nothing.
    pub(crate) fn hint(&self) -> String {
        let limits: Vec<String> = [
            self.memory.map(|n| format!("{n} bytes of memory")),
            self.files.map(|n| format!("{n} open files")),
            self.cpu_seconds()
                .map(|n| format!("{n} s of processor time")),
        ]
        .into_iter()
        .flatten()
        .collect();
        if limits.is_empty() {
            return String::new();
        }
        format!(
            " (the sandbox allows a worker {}: if that is too little, raise it)",
            limits.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_no_worker_can_live_with_are_refused() {
        let refused = |sandbox: Sandbox, word: &str| {
            let text = sandbox.validate(1000).unwrap_err().to_string();
            assert!(text.contains(word), "{text}");
        };
        refused(Sandbox::new().limit_memory(1000), "memory");
        refused(Sandbox::new().limit_files(15), "files");
        refused(Sandbox::new().limit_cpu(Duration::ZERO), "processor");
        assert!(Sandbox::strict().validate(1000).is_ok());
        assert!(Sandbox::new().limit_memory(1001).validate(1000).is_ok());
    }

    #[test]
    fn what_a_worker_applies_arrives_as_it_was_sent() {
        let all = Sandbox::new()
            .seccomp(true)
            .limit_memory(u64::MAX)
            .limit_files(20)
            .limit_cpu(Duration::from_secs(3))
            .limit_core(0);
        for sandbox in [Sandbox::new(), Sandbox::new().no_new_privs(true), all] {
            let wire = sandbox.to_wire();
            assert!(!wire.contains(','));
            assert_eq!(Sandbox::from_wire(&wire), Some(sandbox));
        }
        for bad in [
            "",
            "1:1:-:-:-",
            "1:2:-:-:-:-",
            "1:1:-:x:-:-",
            "1:1:-:-:-:-:-",
        ] {
            assert_eq!(Sandbox::from_wire(bad), None, "{bad}");
        }
    }

    #[test]
    fn processor_time_is_rounded_up() {
        let seconds = |ms| {
            Sandbox::new()
                .limit_cpu(Duration::from_millis(ms))
                .cpu_seconds()
        };
        assert_eq!(seconds(1), Some(1));
        assert_eq!(seconds(2000), Some(2));
        assert_eq!(seconds(2001), Some(3));
    }

    #[test]
    fn the_hint_names_what_is_limited() {
        assert_eq!(Sandbox::strict().hint(), "");
        let hint = Sandbox::new().limit_memory(77).limit_files(20).hint();
        assert!(hint.contains("77 bytes of memory, 20 open files"), "{hint}");
    }
}

//! Restricting this process: resource limits, no_new_privs, a seccomp filter, dumpability.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, setrlimit};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, sock_filter,
};

use crate::error::{Error, Result};
use crate::sandbox::Sandbox;

/// What a worker could not restrict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    NoNewPrivs,
    Seccomp,
    Memory,
    Files,
    Cpu,
    Core,
    Threads,
}

impl Step {
    pub(crate) const ALL: [Self; 7] = [
        Self::NoNewPrivs,
        Self::Seccomp,
        Self::Memory,
        Self::Files,
        Self::Cpu,
        Self::Core,
        Self::Threads,
    ];

    /// Why a worker does not run, for the host.
    pub(crate) fn error(self, errno: i32) -> Error {
        let (call, what) = match self {
            Self::NoNewPrivs => (
                "prctl(PR_SET_NO_NEW_PRIVS)",
                "forbid a worker new privileges",
            ),
            Self::Seccomp => (
                "seccomp(SECCOMP_SET_MODE_FILTER)",
                "filter a worker's system calls",
            ),
            Self::Memory => ("setrlimit(RLIMIT_AS)", "limit a worker's memory"),
            Self::Files => ("setrlimit(RLIMIT_NOFILE)", "limit a worker's open files"),
            Self::Cpu => ("setrlimit(RLIMIT_CPU)", "limit a worker's processor time"),
            Self::Core => ("setrlimit(RLIMIT_CORE)", "limit a worker's core files"),
            Self::Threads => {
                return Error::invalid(
                    "sandbox: cannot be applied to a child of the zygote program that has \
                     started threads already: it must join first",
                );
            }
        };
        match (self, errno) {
            (Self::Seccomp, libc::ENOSYS | libc::EINVAL) => Error::Unsupported(format!(
                "{call}, needed to {what}: this kernel has no CONFIG_SECCOMP_FILTER, or does not \
                 let this process use it (start the engine without seccomp)"
            )),
            _ => Error::system(
                call,
                format!("sandbox: cannot {what}"),
                std::io::Error::from_raw_os_error(errno),
            ),
        }
    }
}

/// Makes this process one that others of its user cannot trace or read through `/proc`. Children
/// inherit it until they execute a program.
pub(crate) fn make_undumpable() -> Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|e| {
        Error::system(
            "prctl(PR_SET_DUMPABLE)",
            "sandbox: cannot make the host undumpable",
            e,
        )
    })
}

/// Restricts this process, which must be single-threaded, for good. A step that fails leaves
/// those before it in force: the caller must end this process.
pub(crate) fn apply(sandbox: &Sandbox) -> Result<(), (Step, i32)> {
    if sandbox.no_new_privs || sandbox.seccomp {
        rustix::thread::set_no_new_privs(true).map_err(|e| (Step::NoNewPrivs, e.raw_os_error()))?;
    }
    // Before the limits, with which its memory might not be had.
    if sandbox.seccomp {
        apply_filter().map_err(|errno| (Step::Seccomp, errno))?;
    }
    let limits = [
        (Step::Core, Resource::Core, sandbox.core, 0),
        // After a second in which SIGXCPU was ignored comes SIGKILL.
        (Step::Cpu, Resource::Cpu, sandbox.cpu_seconds(), 1),
        (Step::Files, Resource::Nofile, sandbox.files, 0),
        (Step::Memory, Resource::As, sandbox.memory, 0),
    ];
    for (step, resource, limit, slack) in limits {
        if let Some(limit) = limit {
            lower(resource, limit, slack).map_err(|e| (step, e.raw_os_error()))?;
        }
    }
    Ok(())
}

/// Lowers the limits of a resource to `soft` and `soft + slack`; those that are lower stay.
fn lower(resource: Resource, soft: u64, slack: u64) -> Result<(), Errno> {
    let now = getrlimit(resource);
    let lower = |now: Option<u64>, wanted: u64| Some(now.map_or(wanted, |now| now.min(wanted)));
    let new = Rlimit {
        current: lower(now.current, soft),
        maximum: lower(now.maximum, soft.saturating_add(slack)),
    };
    setrlimit(resource, new)
}

// ---- the filter ----

/// `futex_requeue`, the same on every architecture; `libc` does not have it everywhere.
const SYS_FUTEX_REQUEUE: i64 = 456;
// From linux/futex.h, asm-generic/fcntl.h, asm-generic/sockios.h and asm-generic/ioctls.h.
const FUTEX_CLOCK_REALTIME: u64 = 256;
const FUTEX_REQUEUES: [u64; 3] = [3, 4, 12]; // REQUEUE, CMP_REQUEUE, CMP_REQUEUE_PI
const F_SETOWN: u64 = 8;
const F_SETOWN_EX: u64 = 15;
const FIOSETOWN: u64 = 0x8901;
const SIOCSPGRP: u64 = 0x8902;
const TIOCSTI: u64 = 0x5412;
const TIOCLINUX: u64 = 0x541c;

/// "Argument `index`, of 32 bits as the kernel takes it, compares so with `value`."
fn if_arg(index: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value)
}

/// A rule for each of several values of one argument.
fn any_of(index: u8, values: &[u64]) -> Result<Vec<SeccompRule>, BackendError> {
    values
        .iter()
        .map(|&value| SeccompRule::new(vec![if_arg(index, SeccompCmpOp::Eq, value)?]))
        .collect()
}

/// What is denied to the process `pid`: by system call, any of several rules; none = always.
///
/// What is not a matter of the call's registers alone (whose `/proc/PID/mem` a path names, say)
/// cannot be decided here.
fn denied(pid: u64) -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    let mut rules = BTreeMap::new();
    for call in [
        // To see or change another process's memory, registers or descriptors.
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_process_madvise,
        libc::SYS_pidfd_getfd,
        libc::SYS_kcmp,
        // Its target is a descriptor, which a filter cannot look behind.
        libc::SYS_pidfd_send_signal,
        // Its flags are in memory, which a filter cannot read; no libc calls it.
        SYS_FUTEX_REQUEUE,
    ] {
        rules.insert(call, Vec::new());
    }
    // Signals go to this process only: `raise`, `abort` and `pthread_kill` are `tgkill` of the own
    // pid in glibc, `tkill` of the own thread in some musl (here: of the first thread only). 0 and
    // negative numbers are groups.
    for call in [
        libc::SYS_kill,
        libc::SYS_tgkill,
        libc::SYS_tkill,
        libc::SYS_rt_sigqueueinfo,
        libc::SYS_rt_tgsigqueueinfo,
    ] {
        let other = if_arg(0, SeccompCmpOp::Ne, pid)?;
        rules.insert(call, vec![SeccompRule::new(vec![other])?]);
    }
    // 0 is this process too. An RLIMIT_CPU of 0 is as good as a signal; perf reads stacks.
    for (call, index) in [(libc::SYS_prlimit64, 0), (libc::SYS_perf_event_open, 1)] {
        let other = vec![
            if_arg(index, SeccompCmpOp::Ne, 0)?,
            if_arg(index, SeccompCmpOp::Ne, pid)?,
        ];
        rules.insert(call, vec![SeccompRule::new(other)?]);
    }
    // Signals by way of a descriptor's owner (with F_SETSIG: any), and keys put into the host's
    // terminal, of which Ctrl-C is one.
    rules.insert(libc::SYS_fcntl, any_of(1, &[F_SETOWN, F_SETOWN_EX])?);
    rules.insert(
        libc::SYS_ioctl,
        any_of(1, &[FIOSETOWN, SIOCSPGRP, TIOCSTI, TIOCLINUX])?,
    );
    // Requeueing takes the host's waiters away from the word that they wait on, even through a
    // read-only mapping. Private futexes are of this process alone, and condition variables of
    // musl need it: the mask leaves the private flag in the comparison.
    let operation = SeccompCmpOp::MaskedEq(u64::from(u32::MAX) & !FUTEX_CLOCK_REALTIME);
    let requeues = FUTEX_REQUEUES
        .iter()
        .map(|&code| SeccompRule::new(vec![if_arg(1, operation.clone(), code)?]))
        .collect::<Result<_, BackendError>>()?;
    rules.insert(libc::SYS_futex, requeues);
    Ok(rules)
}

/// The filter for the process `pid`.
fn compile(pid: u64) -> Result<BpfProgram, BackendError> {
    let filter = SeccompFilter::new(
        denied(pid)?,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM.cast_unsigned()),
        std::env::consts::ARCH.try_into()?,
    )?;
    // Kills on a system call of another architecture (32-bit), whose numbers mean other things.
    let denials: BpfProgram = filter.try_into()?;
    let mut program = no_x32();
    program.extend(denials);
    Ok(program)
}

/// On x86-64, the statements that refuse the x32 interface, where the same calls have other
/// numbers: those with bit 30 set, and 512 to 547, which old kernels took without that bit too.
/// (As for numbers that do not exist: ENOSYS.) For what follows they change nothing.
fn no_x32() -> BpfProgram {
    const LOAD_NUMBER: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS, offset 0 of seccomp_data
    const JUMP_IF_GE: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    if !cfg!(target_arch = "x86_64") {
        return Vec::new();
    }
    let statement = |code, k, jt, jf| sock_filter { code, jt, jf, k };
    let refuse = u32::from(SeccompAction::Errno(libc::ENOSYS.cast_unsigned()));
    vec![
        statement(LOAD_NUMBER, 0, 0, 0),
        statement(JUMP_IF_GE, 0x4000_0000, 2, 0),
        statement(JUMP_IF_GE, 548, 2, 0),
        statement(JUMP_IF_GE, 512, 0, 1),
        statement(RETURN, refuse, 0, 0),
    ]
}

/// Compiles and installs the filter; on failure, the error number.
fn apply_filter() -> Result<(), i32> {
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    // An architecture that `seccompiler` does not know, or a fault in the table above.
    let program = compile(u64::from(pid.unsigned_abs())).map_err(|_| libc::ENOSYS)?;
    seccompiler::apply_filter(&program).map_err(|e| match e {
        seccompiler::Error::Prctl(e) | seccompiler::Error::Seccomp(e) => {
            e.raw_os_error().unwrap_or(libc::EINVAL)
        }
        _ => libc::EINVAL,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a filter as the kernel does: its answer to a system call.
    fn answer(program: &[sock_filter], number: u32, arch: u32, args: [u64; 6]) -> u32 {
        let mut data = vec![number, arch, 0, 0];
        for arg in args {
            data.extend([arg & 0xffff_ffff, arg >> 32].map(|w| u32::try_from(w).unwrap()));
        }
        let (mut at, mut a) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            let jump = |yes: bool| usize::from(if yes { jt } else { jf });
            match code {
                0x20 => a = data[k as usize / 4],
                0x54 => a &= k,
                0x05 => at += k as usize,
                0x15 => at += jump(a == k),
                0x25 => at += jump(a > k),
                0x35 => at += jump(a >= k),
                0x06 => return k,
                other => panic!("{other:#x}"),
            }
        }
    }

    const ARCH: u32 = if cfg!(target_arch = "x86_64") {
        0xc000_003e
    } else {
        0xc000_00b7
    };
    const ALLOW: u32 = 0x7fff_0000;
    const KILL: u32 = 0x8000_0000;

    fn errno(number: i32) -> u32 {
        0x0005_0000 | number.cast_unsigned()
    }

    #[test]
    fn the_filter_denies_what_it_should_and_no_more() {
        let program = compile(1000).unwrap();
        let call = |number: i64, args: &[u64]| {
            let mut all = [0; 6];
            all[..args.len()].copy_from_slice(args);
            answer(&program, u32::try_from(number).unwrap(), ARCH, all)
        };
        let eperm = errno(libc::EPERM);
        // -1 as a 32-bit argument may come with its upper half set or not.
        for others in [1, 1001, 0, u64::MAX, 0xffff_ffff, 0xffff_fc18] {
            for number in [
                libc::SYS_kill,
                libc::SYS_tgkill,
                libc::SYS_tkill,
                libc::SYS_rt_sigqueueinfo,
                libc::SYS_rt_tgsigqueueinfo,
            ] {
                assert_eq!(call(number, &[others, 9]), eperm);
            }
            let itself = others == 0;
            assert_eq!(call(libc::SYS_prlimit64, &[others]) == ALLOW, itself);
            let perf = call(libc::SYS_perf_event_open, &[7, others]);
            assert_eq!(perf == ALLOW, itself);
        }
        assert_eq!(call(libc::SYS_kill, &[1000, 9]), ALLOW);
        // The kernel takes 32 bits of it.
        assert_eq!(call(libc::SYS_kill, &[5 << 32 | 1000, 9]), ALLOW);
        assert_eq!(call(libc::SYS_prlimit64, &[1000]), ALLOW);
        for operation in [3, 4, 12] {
            assert_eq!(call(libc::SYS_futex, &[0, operation]), eperm);
            assert_eq!(call(libc::SYS_futex, &[0, operation | 256]), eperm);
            assert_eq!(call(libc::SYS_futex, &[0, operation | 7 << 32]), eperm);
            assert_eq!(call(libc::SYS_futex, &[0, operation | 128]), ALLOW);
        }
        for operation in [0, 1, 5, 6, 7, 9, 9 | 256, 10, 11] {
            assert_eq!(call(libc::SYS_futex, &[0, operation]), ALLOW);
        }
        assert_eq!(call(SYS_FUTEX_REQUEUE, &[]), eperm);
        assert_eq!(call(libc::SYS_ptrace, &[0]), eperm);
        assert_eq!(call(libc::SYS_fcntl, &[0, F_SETOWN, 1]), eperm);
        assert_eq!(call(libc::SYS_fcntl, &[0, 3]), ALLOW);
        assert_eq!(call(libc::SYS_ioctl, &[0, TIOCSTI]), eperm);
        assert_eq!(call(libc::SYS_ioctl, &[0, 0x5413]), ALLOW);
        for number in [libc::SYS_read, libc::SYS_openat, libc::SYS_execve, 455, 457] {
            assert_eq!(call(number, &[]), ALLOW);
        }
    }

    #[test]
    fn the_filter_has_no_side_entrance() {
        let program = compile(1000).unwrap();
        assert_eq!(answer(&program, 26, 0x4000_0003, [0; 6]), KILL); // i386
        if cfg!(target_arch = "x86_64") {
            for number in [
                101 | 1 << 30,
                202 | 1 << 30,
                521 | 1 << 30,
                512,
                521,
                547,
                u32::MAX,
            ] {
                let refused = answer(&program, number, ARCH, [0, 4, 0, 0, 0, 0]);
                assert_eq!(refused, errno(libc::ENOSYS), "{number}");
            }
            for number in [511, 548] {
                assert_eq!(answer(&program, number, ARCH, [0; 6]), ALLOW, "{number}");
            }
        }
    }

    #[test]
    fn a_failing_step_is_named() {
        for step in Step::ALL {
            let text = step.error(libc::EPERM).to_string();
            assert!(text.contains("sandbox: cannot"), "{text}");
        }
        let text = Step::Memory.error(libc::EPERM).to_string();
        assert!(text.contains("setrlimit(RLIMIT_AS)"), "{text}");
        for errno in [libc::ENOSYS, libc::EINVAL] {
            let error = Step::Seccomp.error(errno);
            assert!(matches!(error, Error::Unsupported(text) if text.contains("seccomp")));
        }
    }
}

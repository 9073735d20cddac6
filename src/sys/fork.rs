//! Forking, what a fresh child has to undo, and how a forked child is told from its parent.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal};

use crate::error::{Error, Result};

/// Which side of a fork this is.
#[derive(Debug)]
pub(crate) enum Fork {
    Parent(Pid),
    Child,
}

/// Forks this process by libc's `fork`, whose handlers keep `malloc` usable in the child (a raw
/// `clone` does not).
///
/// # Safety
/// If this process has more than one thread, the child may call only what survives a fork: locks
/// that other threads held stay locked for ever. The child must leave by [`exit`] or exec, never
/// by returning into the caller's program.
pub(crate) unsafe fn fork() -> Result<Fork> {
    // SAFETY: the caller accepts the rules above.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(Error::system(
            "fork",
            "cannot start a process",
            std::io::Error::last_os_error(),
        )),
        0 => Ok(Fork::Child),
        pid => Pid::from_raw(pid)
            .map(Fork::Parent)
            .ok_or_else(|| Error::Internal("fork returned no pid".into())),
    }
}

/// Kills and reaps a child that was just forked and cannot be kept (no descriptor for its pidfd).
pub(crate) fn take_back(child: Pid) {
    // Not reaped by us yet, so that the pid is still its own; a host that reaps every child itself
    // has at most the moment since the fork for it.
    let _ = rustix::process::kill_process(child, Signal::KILL);
    let _ = rustix::io::retry_on_intr(|| {
        rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty())
    });
}

/// Ends this process at once, without running anybody's exit handlers.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Blocks every signal in this thread until dropped; around a fork, so that no handler of the host's
/// runs in the child before [`reset_signals`], which unblocks them there.
#[derive(Debug)]
pub(crate) struct SignalsBlocked(libc::sigset_t);

impl SignalsBlocked {
    pub(crate) fn new() -> Self {
        // SAFETY: a signal set is plain memory; both are filled below.
        let [mut all, mut old]: [libc::sigset_t; 2] = unsafe { std::mem::zeroed() };
        // SAFETY: a valid place for a set.
        unsafe { libc::sigfillset(&raw mut all) };
        // SAFETY: `all` was filled above, and `old` is a valid place for the answer.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut old) };
        Self(old)
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: the mask that `new` was given; the old one is not asked for.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut())
        };
    }
}

/// Resets every signal's disposition and the mask, which a child inherits, to the defaults.
pub(crate) fn reset_signals() {
    for signal in 1..=64 {
        if matches!(signal, libc::SIGKILL | libc::SIGSTOP | 32 | 33) {
            continue;
        }
        // SAFETY: an all-zero `sigaction` is SIG_DFL with an empty mask and no flags.
        let default: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: `default` is valid and the old action is not asked for.
        unsafe { libc::sigaction(signal, &raw const default, std::ptr::null_mut()) };
    }
    let mut empty = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` initialises the set that it is given.
    unsafe { libc::sigemptyset(empty.as_mut_ptr()) };
    // SAFETY: the set was initialised above; the old mask is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, empty.as_ptr(), std::ptr::null_mut()) };
}

/// What a hang-up does to this process: nothing, or what it does by default, ending it.
pub(crate) fn ignore_hangup(ignore: bool) {
    let action = if ignore { libc::SIG_IGN } else { libc::SIG_DFL };
    // SAFETY: both are valid dispositions, and no handler of anybody's is replaced: this is called
    // after `reset_signals`, or where the signal is ignored.
    unsafe { libc::signal(libc::SIGHUP, action) };
}

/// Has a hang-up end this process if it is ignored. A runtime's own handler stays.
pub(crate) fn heed_hangup() {
    // SAFETY: all zeros is a valid `sigaction`.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: asks for the present action only.
    unsafe { libc::sigaction(libc::SIGHUP, std::ptr::null(), &raw mut action) };
    if action.sa_sigaction == libc::SIG_IGN {
        ignore_hangup(false);
    }
}

/// Closes every descriptor above 2 that is not in `keep`.
pub(crate) fn close_all_but(keep: &[BorrowedFd<'_>]) {
    let mut keep: Vec<u32> = keep
        .iter()
        .map(|fd| fd.as_raw_fd().cast_unsigned())
        .collect();
    keep.sort_unstable();
    let mut first = 3;
    for fd in keep {
        if fd > first {
            close_range(first, fd - 1);
        }
        first = first.max(fd + 1);
    }
    close_range(first, u32::MAX);
}

fn close_range(first: u32, last: u32) {
    // SAFETY: closing is memory-safe; the caller (a fresh child that never returns into the
    // program it was forked from) uses none of these descriptors any more.
    let rc = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0_u32) };
    if rc != 0 {
        // Before Linux 5.9: one by one, up to the limit.
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile)
            .current
            .unwrap_or(1 << 16);
        let last = last.min(u32::try_from(limit).unwrap_or(1 << 16));
        for fd in first..=last {
            // SAFETY: as above.
            unsafe { libc::close(fd.cast_signed()) };
        }
    }
}

/// Has the kernel kill this process when its parent's (single) thread ends; fails if the parent
/// is not `parent` any more.
pub(crate) fn die_with_parent(parent: Pid) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|e| Error::system("prctl(PR_SET_PDEATHSIG)", "cannot follow the parent", e))?;
    // The parent may have died before the call above.
    if rustix::process::getppid() == Some(parent) {
        Ok(())
    } else {
        Err(Error::Closed)
    }
}

/// Takes back [`die_with_parent`], which was called in this process's first thread, before or after
/// an exec. The kernel keeps that wish per *thread*: if this is another one, the first is interrupted
/// by a signal (SIGURG, which by default does nothing) to take it back itself.
pub(crate) fn outlive_parent() {
    const PATIENCE: Duration = Duration::from_secs(1);
    static DONE: AtomicBool = AtomicBool::new(false);
    extern "C" fn take_back(_: libc::c_int) {
        // SAFETY: a system call without pointers; it is async-signal-safe, and errno stays as it is
        // because it cannot fail.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, 0) };
        DONE.store(true, Ordering::Release); // Release: pairs with the Acquire load below.
    }
    let process = rustix::process::getpid();
    if rustix::thread::gettid() == process {
        return outlive_parent_here();
    }
    // SAFETY: all zeros is a valid `sigaction`.
    let [mut action, mut old]: [libc::sigaction; 2] = unsafe { std::mem::zeroed() };
    action.sa_sigaction = take_back as *const () as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: `take_back` is a handler without SA_SIGINFO and does only what is async-signal-safe.
    unsafe { libc::sigaction(libc::SIGURG, &raw const action, &raw mut old) };
    let first = process.as_raw_nonzero().get();
    // SAFETY: signals a thread of this process.
    unsafe { libc::syscall(libc::SYS_tgkill, first, first, libc::SIGURG) };
    let start = Instant::now();
    // Acquire: pairs with the Release store above. A first thread that blocks the signal, or has
    // ended, is waited for in vain: then this process ends with the zygote, as if it had not joined.
    while !DONE.load(Ordering::Acquire) && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_micros(50));
    }
    // SAFETY: the action that was there.
    unsafe { libc::sigaction(libc::SIGURG, &raw const old, std::ptr::null_mut()) };
}

/// Takes back [`die_with_parent`], which was called in this thread.
pub(crate) fn outlive_parent_here() {
    let _ = rustix::process::set_parent_process_death_signal(None);
}

/// Lets an executed program inherit a descriptor.
pub(crate) fn keep_across_exec(fd: BorrowedFd<'_>) -> Result<()> {
    fcntl_setfd(fd, FdFlags::empty())
        .map_err(|e| Error::system("fcntl(F_SETFD)", "cannot hand down a descriptor", e))
}

/// Whether a number is that of an open descriptor.
pub(crate) fn is_open(fd: i32) -> bool {
    // SAFETY: F_GETFD takes any number.
    unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 }
}

/// Which open file a descriptor's number means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    /// `None` if the number means none.
    pub(crate) fn of(fd: i32) -> Option<Self> {
        let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
        // SAFETY: `fstat` takes any number, and `stat` is a valid place for its answer.
        if unsafe { libc::fstat(fd, stat.as_mut_ptr()) } != 0 {
            return None;
        }
        // SAFETY: filled by the call above, which succeeded.
        let stat = unsafe { stat.assume_init() };
        Some(Self {
            device: stat.st_dev,
            inode: stat.st_ino,
        })
    }
}

/// Replaces this process by a program found in `PATH`, with `extra` added to the environment.
/// Returns only if that fails.
pub(crate) fn execute(argv: &[CString], extra: &[(CString, CString)]) -> std::io::Error {
    for (name, value) in extra {
        // SAFETY: both are valid C strings, and this process is single-threaded (a fresh child of
        // the zygote), so nobody reads the environment meanwhile.
        unsafe { libc::setenv(name.as_ptr(), value.as_ptr(), 1) };
    }
    let mut pointers: Vec<*const libc::c_char> = argv.iter().map(|a| a.as_ptr()).collect();
    pointers.push(std::ptr::null());
    let Some(program) = argv.first() else {
        return std::io::Error::from_raw_os_error(libc::ENOENT);
    };
    // SAFETY: `pointers` is a null-terminated array of C strings that outlive the call.
    unsafe { libc::execvp(program.as_ptr(), pointers.as_ptr()) };
    std::io::Error::last_os_error()
}

/// Names this process for `ps` and `top`.
pub(crate) fn set_name(name: &CStr) {
    let _ = rustix::thread::set_name(name);
}

/// Tells the process that made the guard from a forked child of it.
///
/// A page with `MADV_WIPEONFORK` reads 0 in a child; one load instead of a `getpid` per call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ForkGuard {
    word: &'static AtomicU32,
    made_by: u32,
}

impl ForkGuard {
    /// A guard of this process.
    pub(crate) fn new() -> Result<Self> {
        static PAGE: OnceLock<Option<&'static AtomicU32>> = OnceLock::new();
        let word = (*PAGE.get_or_init(map_wiped_page)).ok_or_else(|| {
            Error::Unsupported("madvise(MADV_WIPEONFORK), needed to notice a fork".into())
        })?;
        // Relaxed, here and below: every process reads its own page, and all its threads store
        // the same number.
        let mut made_by = word.load(Ordering::Relaxed);
        if made_by == 0 {
            made_by = rustix::process::getpid()
                .as_raw_nonzero()
                .get()
                .cast_unsigned();
            word.store(made_by, Ordering::Relaxed);
        }
        Ok(Self { word, made_by })
    }

    /// Whether this is a forked child of the process that made the guard.
    #[inline]
    pub(crate) fn is_child(self) -> bool {
        self.word.load(Ordering::Relaxed) != self.made_by // Relaxed: see `new`.
    }
}

fn map_wiped_page() -> Option<&'static AtomicU32> {
    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
    const PAGE: usize = 4096;
    let flags = MapFlags::PRIVATE;
    // SAFETY: a fresh anonymous mapping at an address of the kernel's choice.
    let page = unsafe {
        mmap_anonymous(
            std::ptr::null_mut(),
            PAGE,
            ProtFlags::READ | ProtFlags::WRITE,
            flags,
        )
    };
    let page = NonNull::new(page.ok()?)?;
    // SAFETY: the range is the mapping made above and is used by nobody yet.
    unsafe { madvise(page.as_ptr(), PAGE, Advice::LinuxWipeOnFork) }.ok()?;
    // SAFETY: page-aligned, zero-initialised, never unmapped, accessed as an atomic only.
    Some(unsafe { page.cast::<AtomicU32>().as_ref() })
}

/// For tests: how a forked child of this process ends that runs `child`, which may allocate and take
/// no lock, and exits with its answer.
#[cfg(test)]
pub(crate) fn end_of_a_child(child: impl FnOnce() -> i32) -> crate::sys::process::Exit {
    // SAFETY: the child does what is said above, and leaves by `exit`.
    match unsafe { fork() }.expect("fork") {
        Fork::Child => exit(child()),
        Fork::Parent(pid) => {
            let child = crate::sys::process::Process::of_child(pid).expect("pidfd_open");
            assert!(child.wait_end(Duration::from_secs(10)), "the child hangs");
            child.reap()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::Exit;

    #[test]
    fn a_forked_child_is_told_from_its_parent() {
        let guard = ForkGuard::new().unwrap();
        assert!(!guard.is_child());
        let answer = end_of_a_child(|| i32::from(!guard.is_child()));
        assert_eq!(answer, Exit::Code(0));
    }
}

//! What the engine asks of the kernel, tried out: a filter or an emulation may refuse what the version
//! promises.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::AtomicU32;

use memmap2::{Advice, MmapOptions, MmapRaw};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll};
use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create,
};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};
use rustix::thread::futex;

use super::check::Check;

const PAGE: usize = 4096;
/// Do not wait.
const NOW: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// What a failure calls for.
const BLOCKED: &str = "the engine cannot start: an old kernel, or a seccomp filter (of a container) that refuses the call";

pub(super) fn checks() -> Vec<Check> {
    vec![
        of("memory files", memory_files()),
        of("futex", shared_futex()),
        of("pidfd", pidfds()),
        of("eventfd, epoll", events()),
        of("fork advice", fork_advice()),
    ]
}

/// What an attempt came to: what was seen, or what went wrong where.
type Attempt = Result<&'static str, Failure>;

#[derive(Debug)]
struct Failure {
    what: &'static str,
    errno: Option<Errno>,
}

fn of(name: &'static str, attempt: Attempt) -> Check {
    attempt.map_or_else(
        |failure| failure.check(name),
        |found| Check::ok(name, found),
    )
}

impl Failure {
    fn check(self, name: &'static str) -> Check {
        let Some(errno) = self.errno else {
            return Check::fail(name, self.what, BLOCKED);
        };
        let advice = match errno {
            Errno::MFILE => "raise RLIMIT_NOFILE (ulimit -n)",
            Errno::NFILE => "raise fs.file-max (sysctl)",
            Errno::NOMEM | Errno::NOSPC => "free memory",
            _ => BLOCKED,
        };
        Check::fail(name, format!("{}: {errno}", self.what), advice)
    }
}

/// For `map_err`.
fn failed<E: Into<std::io::Error>>(what: &'static str) -> impl FnOnce(E) -> Failure {
    move |error| Failure {
        what,
        errno: Errno::from_io_error(&error.into()),
    }
}

fn wrong(what: &'static str) -> Failure {
    Failure { what, errno: None }
}

/// A memory file of one page that cannot be resized.
fn page() -> Result<File, Failure> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = memfd_create("miniflow-doctor", flags).map_err(failed("memfd_create"))?;
    ftruncate(&fd, PAGE as u64).map_err(failed("ftruncate"))?;
    let none = FallocateFlags::empty();
    fallocate(&fd, none, 0, PAGE as u64).map_err(failed("fallocate"))?;
    fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW)
        .map_err(failed("F_SEAL_SHRINK, F_SEAL_GROW"))?;
    Ok(fd.into())
}

fn map(file: &File) -> std::io::Result<MmapRaw> {
    MmapOptions::new().len(PAGE).map_raw(file)
}

fn memory_files() -> Attempt {
    let file = page()?;
    let _writer = map(&file).map_err(failed("mmap"))?;
    fcntl_add_seals(&file, SealFlags::FUTURE_WRITE | SealFlags::SEAL)
        .map_err(failed("F_SEAL_FUTURE_WRITE"))?;
    if ftruncate(&file, 0).is_ok() {
        return Err(wrong("F_SEAL_SHRINK does not stop a truncation"));
    }
    match map(&file) {
        Ok(_) => Err(wrong("F_SEAL_FUTURE_WRITE does not stop a second writer")),
        Err(_) => Ok("memfd_create, sealed against resizing and later writers"),
    }
}

/// A worker sleeps on a word in memory that it may only read. Whether wake-ups cross from one process
/// to another is seen when an engine runs.
fn shared_futex() -> Attempt {
    let file = page()?;
    let map = MmapOptions::new().len(PAGE).map_raw_read_only(&file);
    let map = map.map_err(failed("mmap"))?;
    // SAFETY: a page that is mapped until the end of this function, aligned for everything, and nobody
    // stores into it.
    let word = unsafe { AtomicU32::from_ptr(map.as_mut_ptr().cast()) };
    let shared = futex::Flags::empty();
    match futex::wait(word, shared, 1, Some(&NOW)) {
        Err(Errno::AGAIN) => {} // the word is 0, not 1
        Err(errno) => return Err(failed("FUTEX_WAIT on a read-only page")(errno)),
        Ok(()) => return Err(wrong("FUTEX_WAIT does not compare")),
    }
    match futex::wait(word, shared, 0, Some(&NOW)) {
        Err(Errno::TIMEDOUT) => {}
        Err(errno) => return Err(failed("FUTEX_WAIT on a read-only page")(errno)),
        Ok(()) => return Err(wrong("FUTEX_WAIT returns without a wake-up")),
    }
    futex::wake(word, shared, u32::MAX >> 1).map_err(failed("FUTEX_WAKE"))?;
    Ok("waits on read-only shared memory")
}

fn readable(fd: &OwnedFd) -> Result<bool, Failure> {
    let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)];
    Ok(poll(&mut fds, Some(&NOW)).map_err(failed("poll"))? == 1)
}

fn pidfds() -> Attempt {
    let me = pidfd_open(getpid(), PidfdFlags::empty()).map_err(failed("pidfd_open"))?;
    if readable(&me)? {
        return Err(wrong("a pidfd is readable although its process lives"));
    }
    // A signal that does nothing by default.
    pidfd_send_signal(&me, Signal::URG).map_err(failed("pidfd_send_signal"))?;
    Ok("pidfd_open, poll, pidfd_send_signal")
}

fn events() -> Attempt {
    let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
    let event = event.map_err(failed("eventfd"))?;
    let set = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed("epoll_create1"))?;
    let data = epoll::EventData::new_u64(0);
    epoll::add(&set, &event, data, epoll::EventFlags::IN).map_err(failed("epoll_ctl"))?;
    if readable(&set)? {
        return Err(wrong("an epoll set is readable although nothing in it is"));
    }
    rustix::io::write(&event, &1_u64.to_ne_bytes()).map_err(failed("write to an eventfd"))?;
    match readable(&set)? {
        true => Ok("a set of eventfds can itself be polled"),
        false => Err(wrong(
            "an epoll set is not readable although an eventfd in it is",
        )),
    }
}

/// By these a forked child of the host is kept off the engine's memory.
fn fork_advice() -> Attempt {
    let map = MmapOptions::new().len(PAGE).map_anon();
    let map = MmapRaw::from(map.map_err(failed("mmap"))?);
    let wipe = rustix::mm::Advice::LinuxWipeOnFork;
    // SAFETY: just the private mapping made above; what it changes happens in forked children.
    unsafe { rustix::mm::madvise(map.as_mut_ptr().cast(), PAGE, wipe) }
        .map_err(failed("MADV_WIPEONFORK"))?;
    map.advise(Advice::DontFork)
        .map_err(failed("MADV_DONTFORK"))?;
    Ok("MADV_DONTFORK, MADV_WIPEONFORK")
}

#[cfg(test)]
mod tests {
    use super::super::check::State;
    use super::*;

    #[test]
    fn a_kernel_that_runs_these_tests_has_all_of_them() {
        for check in checks() {
            assert_eq!(check.state, State::Ok, "{check:?}");
        }
    }

    #[test]
    fn a_limit_is_told_from_a_missing_feature() {
        let check = |errno| of("x", Err(failed("memfd_create")(errno)));
        assert!(
            check(Errno::MFILE)
                .advice
                .unwrap()
                .contains("RLIMIT_NOFILE")
        );
        let refused = check(Errno::PERM);
        assert_eq!(refused.state, State::Fail);
        assert!(refused.advice.unwrap().contains("seccomp"));
        assert!(refused.found.starts_with("memfd_create: "));
    }
}

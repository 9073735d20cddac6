//! The start-up test of the kernel features that the engine rests on.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::sys::event::Event;
use crate::sys::futex::FutexWord;
use crate::sys::memfd::{self, Access, Segment, SharedLayout};
use crate::sys::process::wait_readable;

/// A futex word in a page of its own.
#[repr(C)]
struct Word(FutexWord);
// SAFETY: `FutexWord` is a transparent `AtomicU32`.
unsafe impl SharedLayout for Word {}

const PAGE: u64 = 4096;
/// How long the kernel has to wake a sleeper. Generous: a busy machine is no missing feature.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tests every feature, once per process if they are all there; the error names the first that is
/// missing, or what was scarce just now.
pub(crate) fn run() -> Result<()> {
    static PASSED: AtomicBool = AtomicBool::new(false);
    // Relaxed: nothing else is published by it; at worst two threads test.
    if !PASSED.load(Ordering::Relaxed) {
        feature("sealed memory files", "5.1", sealed_memory())?;
        feature(
            "futexes in read-only shared mappings",
            "3.0",
            read_only_futex(),
        )?;
        feature("pidfd_open and polling a pidfd", "5.3", pidfd())?;
        feature("eventfd", "2.6.27", event())?;
        PASSED.store(true, Ordering::Relaxed);
    }
    Ok(())
}

/// What the failure of a test means: that the feature is missing, unless a limit was reached.
fn feature(name: &str, needs: &str, outcome: Result<()>) -> Result<()> {
    outcome.map_err(|error| match &error {
        Error::NoMemory(_) => error,
        Error::System { source, .. }
            if matches!(
                source.raw_os_error(),
                Some(libc::EMFILE | libc::ENFILE | libc::EAGAIN)
            ) =>
        {
            error
        }
        _ => Error::Unsupported(format!(
            "this kernel lacks {name} (Linux {needs} or newer, and no filter): {error}"
        )),
    })
}

fn wrong(what: &str) -> Error {
    Error::Internal(what.into())
}

/// A second descriptor of the same file.
fn duplicate(fd: &OwnedFd) -> Result<OwnedFd> {
    fd.try_clone()
        .map_err(|e| Error::system("fcntl(F_DUPFD)", "cannot duplicate a descriptor", e))
}

fn sealed_memory() -> Result<()> {
    let fd = memfd::create("miniflow-selftest", PAGE)?;
    memfd::commit(fd.as_fd(), 0, PAGE)?;
    let again = duplicate(&fd)?;
    let _writer = Segment::<Word>::map(fd, PAGE, Access::Write)?;
    memfd::seal_writers(again.as_fd())?;
    memfd::verify(again.as_fd(), PAGE)?;
    match Segment::<Word>::map(again, PAGE, Access::Write) {
        Err(_) => Ok(()),
        Ok(_) => Err(wrong("F_SEAL_FUTURE_WRITE does not stop a second writer")),
    }
}

fn read_only_futex() -> Result<()> {
    let fd = memfd::create("miniflow-selftest", PAGE)?;
    let again = duplicate(&fd)?;
    let reader = Segment::<Word>::map(again, PAGE, Access::Read)?;
    let writer = Segment::<Word>::map(fd, PAGE, Access::Write)?;
    let woken = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sleeper = std::thread::Builder::new().spawn_scoped(scope, || {
            let deadline = std::time::Instant::now() + PATIENCE;
            while reader.layout().0.load() == 0 && std::time::Instant::now() < deadline {
                reader.layout().0.wait(0, PATIENCE);
            }
            woken.store(reader.layout().0.load() == 1, Ordering::Relaxed); // Relaxed: joined below.
        });
        writer.layout().0.publish(1);
        writer.layout().0.wake_all();
        sleeper
            .map(drop)
            .map_err(|e| Error::system("pthread_create", "cannot start a thread", e))
    })?;
    if woken.into_inner() {
        Ok(())
    } else {
        Err(wrong("the sleeper was not woken"))
    }
}

fn pidfd() -> Result<()> {
    use rustix::process::{PidfdFlags, getpid, pidfd_open};
    let me = pidfd_open(getpid(), PidfdFlags::empty())
        .map_err(|e| Error::system("pidfd_open", "cannot watch this process", e))?;
    if wait_readable(me.as_fd(), Duration::ZERO) {
        return Err(wrong("a pidfd is readable although its process lives"));
    }
    Ok(())
}

fn event() -> Result<()> {
    let event = Event::new()?;
    event.signal();
    if !wait_readable(event.as_fd(), Duration::ZERO) {
        return Err(wrong("a signalled eventfd is not readable"));
    }
    event.drain();
    if wait_readable(event.as_fd(), Duration::ZERO) {
        return Err(wrong("a drained eventfd is readable"));
    }
    Ok(())
}

//! The start-up test of the kernel features that the engine rests on.

use std::os::fd::AsFd;
use std::sync::OnceLock;
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

/// Tests every feature, once per process; the error names the first that is missing.
pub(crate) fn run() -> Result<()> {
    static FAILURE: OnceLock<Option<String>> = OnceLock::new();
    let failure = FAILURE.get_or_init(|| check().err());
    failure
        .as_ref()
        .map_or(Ok(()), |missing| Err(Error::Unsupported(missing.clone())))
}

fn check() -> Result<(), String> {
    let missing = |feature: &str, needs: &str, e: &dyn std::fmt::Display| {
        format!("this kernel lacks {feature} (Linux {needs} or newer, and no filter): {e}")
    };
    sealed_memory().map_err(|e| missing("sealed memory files", "5.1", &e))?;
    read_only_futex().map_err(|e| missing("futexes in read-only shared mappings", "3.0", &e))?;
    pidfd().map_err(|e| missing("pidfd_open and polling a pidfd", "5.3", &e))?;
    event().map_err(|e| missing("eventfd", "2.6.27", &e))
}

fn sealed_memory() -> Result<(), String> {
    let fd = memfd::create("miniflow-selftest", PAGE).map_err(|e| e.to_string())?;
    memfd::commit(fd.as_fd(), 0, PAGE).map_err(|e| e.to_string())?;
    let again = fd.try_clone().map_err(|e| e.to_string())?;
    let _writer = Segment::<Word>::map(fd, PAGE, Access::Write).map_err(|e| e.to_string())?;
    memfd::seal_writers(again.as_fd()).map_err(|e| e.to_string())?;
    memfd::verify(again.as_fd(), PAGE).map_err(|e| e.to_string())?;
    match Segment::<Word>::map(again, PAGE, Access::Write) {
        Err(_) => Ok(()),
        Ok(_) => Err("F_SEAL_FUTURE_WRITE does not stop a second writer".into()),
    }
}

fn read_only_futex() -> Result<(), String> {
    let fd = memfd::create("miniflow-selftest", PAGE).map_err(|e| e.to_string())?;
    let again = fd.try_clone().map_err(|e| e.to_string())?;
    let reader = Segment::<Word>::map(again, PAGE, Access::Read).map_err(|e| e.to_string())?;
    let writer = Segment::<Word>::map(fd, PAGE, Access::Write).map_err(|e| e.to_string())?;
    let woken = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let deadline = std::time::Instant::now() + PATIENCE;
            while reader.layout().0.load() == 0 && std::time::Instant::now() < deadline {
                reader.layout().0.wait(0, PATIENCE);
            }
            woken.store(reader.layout().0.load() == 1, Ordering::Relaxed); // Relaxed: joined below.
        });
        writer.layout().0.publish(1);
        writer.layout().0.wake_all();
    });
    if woken.into_inner() {
        Ok(())
    } else {
        Err("the sleeper was not woken".into())
    }
}

fn pidfd() -> Result<(), String> {
    use rustix::process::{PidfdFlags, getpid, pidfd_open};
    let me = pidfd_open(getpid(), PidfdFlags::empty()).map_err(|e| e.to_string())?;
    if wait_readable(me.as_fd(), Duration::ZERO) {
        return Err("a pidfd is readable although its process lives".into());
    }
    Ok(())
}

fn event() -> Result<(), String> {
    let event = Event::new().map_err(|e| e.to_string())?;
    event.signal();
    if !wait_readable(event.as_fd(), Duration::ZERO) {
        return Err("a signalled eventfd is not readable".into());
    }
    event.drain();
    if wait_readable(event.as_fd(), Duration::ZERO) {
        return Err("a drained eventfd is readable".into());
    }
    Ok(())
}

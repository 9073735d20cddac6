//! Ctrl-C and SIGTERM: once is a wish, twice an order.

use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::Relaxed};
use std::thread;

use super::bell::Bell;
use crate::error::{Error, Result};

/// The signals of this process that ask it to end, blocked in every thread that is started later.
#[derive(Debug)]
pub(crate) struct Signals {
    set: libc::sigset_t,
    state: Arc<State>,
}

/// Facts that guard no data: every access is Relaxed.
#[derive(Debug, Default)]
struct State {
    /// There is something to be ended in good order.
    working: AtomicBool,
    /// The first signal; 0 if there was none.
    seen: AtomicI32,
}

impl Signals {
    /// Blocks the signals. Before any thread is started, and before the engine forks.
    pub(crate) fn block() -> Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `sigemptyset` initialises the set that it is given.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        // SAFETY: initialised by the call above, which cannot fail for a valid pointer.
        let mut set = unsafe { set.assume_init() };
        for signal in [libc::SIGINT, libc::SIGTERM] {
            if !is_ignored(signal) {
                // SAFETY: an initialised set and a signal that there is.
                unsafe { libc::sigaddset(&raw mut set, signal) };
            }
        }
        // SAFETY: a valid set; the old mask is not asked for.
        let rc =
            unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        if rc != 0 {
            let error = std::io::Error::from_raw_os_error(rc);
            return Err(Error::system("pthread_sigmask")(error));
        }
        Ok(Self {
            set,
            state: Arc::default(),
        })
    }

    /// Starts the thread that waits for the signals. The first one rings `bell`; the second, or one
    /// before [`working`](Self::working), ends this process at once: its zygote takes the workers
    /// along.
    pub(crate) fn watch(&self, bell: Arc<Bell>) -> Result<()> {
        let (set, state) = (self.set, Arc::clone(&self.state));
        thread::Builder::new()
            .name("mf-signals".into())
            .spawn(move || {
                loop {
                    let signal = wait_for(&set);
                    let working = state.working.load(Relaxed);
                    if state.seen.swap(signal, Relaxed) != 0 || !working {
                        std::process::exit(128 + signal);
                    }
                    bell.ring();
                }
            })
            .map(drop)
            .map_err(Error::system("pthread_create"))
    }

    /// Waits for a signal.
    pub(crate) fn wait(&self) {
        wait_for(&self.set);
    }

    /// From now on there is something to be ended in good order.
    pub(crate) fn working(&self) {
        self.state.working.store(true, Relaxed);
    }

    /// The signal that came, if any.
    pub(crate) fn seen(&self) -> Option<i32> {
        Some(self.state.seen.load(Relaxed)).filter(|&signal| signal != 0)
    }
}

/// Whether whoever started this process does not want it to be ended by this signal (nohup, a
/// background job of a script).
fn is_ignored(signal: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: only asks; `action` is a valid place for the answer.
    if unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: filled by the call above, which succeeded.
    let action = unsafe { action.assume_init() };
    action.sa_sigaction == libc::SIG_IGN
}

fn wait_for(set: &libc::sigset_t) -> i32 {
    let mut signal = 0;
    loop {
        // SAFETY: an initialised set, and a valid place for the answer.
        if unsafe { libc::sigwait(&raw const *set, &raw mut signal) } == 0 {
            return signal;
        }
    }
}

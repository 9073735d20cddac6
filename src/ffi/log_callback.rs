//! The log, told to a function of the host's: on a thread of our own, under none of our locks.

use std::cell::Cell;
use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::{self, JoinHandle};

use crate::error::{Error, Result};
use crate::ffi::log::describe;
use crate::ffi::log_queue::Queue;
use crate::ffi::sized;
use crate::ffi::types::mf_log_record;

/// Told each message of the log, one at a time, on a thread of the library's own that holds none of its
/// locks: it may take its time (messages that come meanwhile wait, see mf_log_read()), may wait for
/// other threads, and may use the library, but for mf_set_log(). It must not throw a C++ exception or
/// longjmp out. The record is valid until it returns.
pub type mf_log_fn = Option<unsafe extern "C" fn(user: *mut c_void, record: *const mf_log_record)>;

type Function = unsafe extern "C" fn(*mut c_void, *const mf_log_record);

/// A function of the host's with its argument.
struct Callback {
    function: Function,
    user: *mut c_void,
}

// SAFETY: the library only passes `user` on; the contract of `mf_log_fn` says that the function is
// called on a thread of the library's, so what it points to is the caller's to guard.
unsafe impl Send for Callback {}

impl Callback {
    fn tell(&mut self, queue: &Queue, over: &AtomicBool) {
        TELLING.set(true);
        while let Some(message) = queue.next(over) {
            let mut record = describe(&message);
            record.size = sized::size_field::<mf_log_record>();
            // SAFETY: a function of this type until `Teller::end` has returned (`Teller::start`), which
            // waits for this thread; with its own argument, and a record that stays until it returns.
            unsafe { (self.function)(self.user, &raw const record) };
        }
    }
}

/// The thread that calls the function.
pub(crate) struct Teller {
    over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
    queue: &'static Queue,
}

impl Teller {
    /// # Safety
    /// `function` is what [`mf_log_fn`] says, with this `user`, until [`Teller::end`] has returned.
    pub(crate) unsafe fn start(
        queue: &'static Queue,
        function: Function,
        user: *mut c_void,
    ) -> Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&over);
        let mut callback = Callback { function, user };
        let thread = thread::Builder::new()
            .name("mf-log".into())
            .spawn(move || callback.tell(queue, &theirs))
            .map_err(|e| Error::system("pthread_create", "cannot start the log's thread", e))?;
        Ok(Self {
            over,
            thread,
            queue,
        })
    }

    /// Returns when what waits has been told and the function is not called any more.
    pub(crate) fn end(self) {
        self.queue.finish(&self.over);
        let _ = self.thread.join(); // it does not panic
    }
}

thread_local! {
    static TELLING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this is the thread that calls the function: it cannot wait for itself to end.
pub(crate) fn is_telling() -> bool {
    TELLING.get()
}

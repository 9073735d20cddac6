//! A C function as a handler.

use std::ffi::c_void;

use crate::ffi::task::InHand;
use crate::ffi::types::mf_task;
use crate::worker::{Failure, Handler, Task, TaskResult};

type Function = unsafe extern "C" fn(user: *mut c_void, task: *mut mf_task) -> i32;

/// An `mf_handler` with its argument.
pub(crate) struct ForeignHandler {
    function: Function,
    user: *mut c_void,
}

// SAFETY: the library only passes `user` on; the contract of `mf_handler` says that the function
// is called on several threads at once, so what it points to is the caller's to guard.
unsafe impl Send for ForeignHandler {}
// SAFETY: as above.
unsafe impl Sync for ForeignHandler {}

impl ForeignHandler {
    pub(crate) fn new(function: Function, user: *mut c_void) -> Self {
        Self { function, user }
    }
}

impl Handler for ForeignHandler {
    #[inline]
    fn run(&self, task: &mut Task<'_>) -> TaskResult {
        let in_hand = InHand::lend(task)?;
        // SAFETY: a function of this type by the word of whoever called `mf_engine_start`, with
        // its own argument and a task that stays valid until the call returns.
        let code = unsafe { (self.function)(self.user, in_hand.token()) };
        drop(in_hand);
        match code {
            0 => Ok(()),
            code => Err(Failure::new(code, format!("the handler returned {code}"))),
        }
    }
}

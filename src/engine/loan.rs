//! Payloads that are written in place.
#![forbid(unsafe_code)]

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::engine::payload;
use crate::engine::shared::Shared;
use crate::error::Result;
use crate::shm::arena::Block;
use crate::task::{SubmitOptions, TaskId};

/// Payload memory on loan from an engine: write it, then [`Loan::submit`] it without a copy.
///
/// Dereferences to its bytes, whose contents are undefined at first. Dropped, it goes back.
pub struct Loan {
    shared: Arc<Shared>,
    /// `None` once submitted.
    block: Option<Block>,
    len: usize,
}

impl Loan {
    pub(crate) fn new(shared: Arc<Shared>, block: Block, len: usize) -> Self {
        Self {
            shared,
            block: Some(block),
            len,
        }
    }

    /// The block, where its memory is mapped: not in a forked child.
    fn present(&self) -> Option<Block> {
        self.block.filter(|_| !self.shared.is_childs_copy())
    }

    /// Submits the bytes as a task's payload.
    ///
    /// # Errors
    /// As for [`Engine::submit_with`](crate::Engine::submit_with); the loan is lost then. Use
    /// [`Loan::try_submit`] to keep it.
    pub fn submit(mut self, options: &SubmitOptions) -> Result<TaskId> {
        self.try_submit(options)
    }

    /// [`Loan::submit`] that leaves the loan as it is if the task is refused. After a success the
    /// loan is empty.
    ///
    /// # Errors
    /// As for [`Engine::submit_with`](crate::Engine::submit_with).
    pub fn try_submit(&mut self, options: &SubmitOptions) -> Result<TaskId> {
        self.shared.check_process()?;
        let Some(block) = self.block else {
            return Err(crate::Error::invalid("the loan was submitted already"));
        };
        let mut core = self.shared.lock();
        let id = core.submit_block(block, self.len, options)?;
        self.block = None;
        core.announce();
        self.shared.note_submit(&mut core);
        Ok(id)
    }
}

impl Deref for Loan {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self.present() {
            Some(block) => payload::bytes_mut(&self.shared.inputs, block, self.len)
                .map_or(&[], |bytes| &*bytes),
            None => &[],
        }
    }
}

impl DerefMut for Loan {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self.present() {
            Some(block) => {
                payload::bytes_mut(&self.shared.inputs, block, self.len).unwrap_or(&mut [])
            }
            None => &mut [],
        }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let Some(block) = self.block.take()
            && !self.shared.is_childs_copy()
        {
            let mut core = self.shared.lock();
            core.payloads.free(block);
            self.shared.note_room(&mut core);
        }
    }
}

impl fmt::Debug for Loan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loan")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

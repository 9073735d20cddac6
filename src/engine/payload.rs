//! Payloads that do not fit in a descriptor: blocks of the `inputs` arena.

use std::ptr::NonNull;

use crate::error::{Error, Full, Result};
use crate::shm::arena::{Arena, Block};
use crate::shm::commit::CommitMark;
use crate::shm::segments::HostInputs;

/// Pages are allocated in steps of this many bytes.
const CHUNK: u64 = 1 << 20;

/// The allocator of the arena; under the engine's lock.
#[derive(Debug)]
pub(crate) struct Payloads {
    arena: Arena,
    committed: CommitMark,
    max: u64,
}

impl Payloads {
    pub(crate) fn new(capacity: u64, max: u64) -> Self {
        Self {
            arena: Arena::new(capacity, max),
            committed: CommitMark::new(CHUNK, capacity),
            max,
        }
    }

    /// A block for `len` bytes whose pages are there.
    pub(crate) fn allocate(&mut self, inputs: &HostInputs, len: usize) -> Result<Block> {
        if len as u64 > self.max {
            let max = usize::try_from(self.max).unwrap_or(usize::MAX);
            return Err(Error::TooLarge { len, max });
        }
        let block = self
            .arena
            .allocate(len as u64)
            .ok_or(Error::WouldBlock(Full::Payloads))?;
        if let Some(range) = self.committed.needed(block.offset + block.size()) {
            if let Err(e) = inputs.commit(&range) {
                self.arena.free(block);
                return Err(e);
            }
            self.committed.done(range);
        }
        Ok(block)
    }

    /// Whether a block for `len` bytes is free.
    pub(crate) fn has_room(&mut self, len: usize) -> bool {
        match self.arena.allocate(len as u64) {
            Some(block) => {
                self.arena.free(block);
                true
            }
            None => false,
        }
    }

    pub(crate) fn free(&mut self, block: Block) {
        self.arena.free(block);
    }

    pub(crate) fn in_use(&self) -> u64 {
        self.arena.in_use()
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.arena.capacity()
    }
}

/// Address of the block's first byte.
pub(crate) fn address(inputs: &HostInputs, block: Block, len: usize) -> Result<NonNull<u8>> {
    inputs
        .block(block.offset, len as u64)
        .ok_or_else(|| Error::Internal("a payload block lies outside its arena".into()))
}

/// The block's bytes, for its owner to write.
///
/// The caller owns the block: [`Payloads::allocate`] gave it out and it is neither submitted nor
/// freed.
#[expect(
    clippy::mut_from_ref,
    reason = "the block's ownership is the allocator's to give"
)]
pub(crate) fn bytes_mut(inputs: &HostInputs, block: Block, len: usize) -> Result<&mut [u8]> {
    let start = address(inputs, block, len)?;
    // SAFETY: inside the mapping (checked by `address`), its pages are allocated, and only this
    // process can write them (sealed); within it the block's one owner calls this. Workers read
    // the block only after it was submitted.
    Ok(unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), len) })
}

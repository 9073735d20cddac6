//! Engine handles: tokens in the guise of pointers.
//!
//! A token is `"mf" << 48 | generation << 16 | index` and points nowhere: it names a cell of a
//! static table, whatever C hands in is looked up and nothing that C hands in is dereferenced. So
//! NULL, garbage and the handle of a freed engine are all found out.

use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::Engine;
use crate::error::{Error, Result};
use crate::ffi::types::mf_engine;
use crate::sys::fork::ForkGuard;

/// Engines that one process can have at a time.
const ENGINES: usize = 1024;

/// Marks the tokens of one kind in their upper 16 bits; no address of x86-64 or AArch64 user space
/// looks like it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Kind {
    Engine = 0x6D66,
    Task = 0x6D74,
    Worker = 0x6D77,
}

/// The token for a generation of a cell.
#[inline]
pub(crate) fn token<T>(kind: Kind, index: u16, generation: u32) -> *mut T {
    let bits = (kind as usize) << 48 | (generation as usize) << 16 | usize::from(index);
    ptr::without_provenance_mut(bits)
}

/// Index and generation, if this is a token of that kind.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "cut into its parts")]
pub(crate) fn parse<T>(kind: Kind, token: *const T) -> Option<(u16, u32)> {
    let bits = token.addr();
    (bits >> 48 == kind as usize).then_some((bits as u16, (bits >> 16) as u32))
}

/// One place for an engine.
struct EngineCell {
    /// `generation << 32 | FREE..=CLOSING | calls in progress`.
    state: AtomicU64,
    /// There while the cell is `LIVE`, and until the last call has left.
    content: UnsafeCell<Option<(Engine, ForkGuard)>>,
}

// SAFETY: `content` is written only by whoever moved `state` out of `FREE` or found it `CLOSING`
// without calls in progress; it is read only between `enter` and `leave`.
unsafe impl Sync for EngineCell {}

const FREE: u64 = 0;
const FILLING: u64 = 1 << 30;
const LIVE: u64 = 2 << 30;
const CLOSING: u64 = 3 << 30;
const PHASE: u64 = 3 << 30;
const CALLS: u64 = (1 << 30) - 1;

static ENGINE_CELLS: [EngineCell; ENGINES] = [const {
    EngineCell {
        state: AtomicU64::new(1 << 32),
        content: UnsafeCell::new(None),
    }
}; ENGINES];

/// An engine that a call is using: it is not dropped meanwhile.
pub(crate) struct EngineRef {
    cell: &'static EngineCell,
}

impl EngineCell {
    /// Counts a call in; the engine stays until it leaves.
    #[inline]
    fn enter(&'static self, generation: u32) -> Option<EngineRef> {
        // Acquire: pairs with the Release store of `LIVE` in `adopt`; the content is visible.
        let state = self.state.fetch_add(1, Ordering::Acquire);
        let call = EngineRef { cell: self }; // leaves when dropped
        (state >> 32 == u64::from(generation) && state & PHASE == LIVE).then_some(call)
    }
}

impl std::ops::Deref for EngineRef {
    type Target = Engine;

    #[inline]
    fn deref(&self) -> &Engine {
        // SAFETY: `find` entered while the cell was `LIVE`, so the content was filled before, and
        // `free` empties it only after this call has left.
        match unsafe { &*self.cell.content.get() } {
            Some((engine, _)) => engine,
            None => unreachable!("a live cell has an engine"),
        }
    }
}

impl Drop for EngineRef {
    #[inline]
    fn drop(&mut self) {
        // Release: pairs with the Acquire load in `free`; our use of the engine is over.
        self.cell.state.fetch_sub(1, Ordering::Release);
    }
}

#[cold]
fn not_an_engine(handle: *const mf_engine) -> Error {
    Error::invalid(if handle.is_null() {
        "the engine is NULL"
    } else {
        "this is not an engine, or one that was freed"
    })
}

/// Finds the engine of a handle, for one call.
#[inline]
pub(crate) fn find(handle: *const mf_engine) -> Result<EngineRef> {
    let Some((index, generation)) = parse(Kind::Engine, handle) else {
        return Err(not_an_engine(handle));
    };
    let call = ENGINE_CELLS
        .get(usize::from(index))
        .and_then(|cell| cell.enter(generation))
        .ok_or_else(|| not_an_engine(handle))?;
    // SAFETY: as in `deref`.
    let content = unsafe { &*call.cell.content.get() };
    if content.as_ref().is_some_and(|(_, guard)| guard.is_child()) {
        return Err(in_child());
    }
    Ok(call)
}

#[cold]
pub(crate) fn in_child() -> Error {
    Error::invalid("this belongs to the process that made it, not to its forked child")
}

/// Gives an engine a handle.
pub(crate) fn adopt(engine: Engine) -> Result<*mut mf_engine> {
    let guard = ForkGuard::new()?;
    for (index, cell) in (0_u16..).zip(&ENGINE_CELLS) {
        // Relaxed: only a candidate.
        let state = cell.state.load(Ordering::Relaxed);
        if state & PHASE != FREE || state & CALLS != 0 {
            continue;
        }
        // Acquire: pairs with the Release in `free`; the content is empty.
        if cell
            .state
            .compare_exchange(state, state | FILLING, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            continue;
        }
        // SAFETY: `FILLING` is ours alone, and calls that enter now leave without looking.
        unsafe { *cell.content.get() = Some((engine, guard)) };
        // Release: publishes the content. An addition, so that stray calls stay counted.
        cell.state.fetch_add(LIVE - FILLING, Ordering::Release);
        let generation = u32::try_from(state >> 32).unwrap_or(0);
        return Ok(token(Kind::Engine, index, generation));
    }
    Err(Error::NoMemory(format!(
        "this process has {ENGINES} engines already"
    )))
}

/// Stops and drops the engine of a handle. Calls of other threads end first.
pub(crate) fn free(handle: *const mf_engine) -> Result<()> {
    let call = find(handle)?;
    let cell = call.cell;
    // Relaxed: only one caller can move `LIVE` on, and the content is ours to use already.
    let closing = cell
        .state
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |state| {
            (state & PHASE == LIVE).then_some(state | CLOSING)
        });
    if closing.is_err() {
        return Err(not_an_engine(handle)); // another thread is freeing it
    }
    // Whoever waits inside is woken by this; an engine that is stopped already says so.
    let _ = call.stop(Some(Duration::ZERO));
    drop(call);
    // Acquire: pairs with the Release in `EngineRef::drop`; the others have done with the engine.
    while cell.state.load(Ordering::Acquire) & CALLS != 0 {
        std::thread::sleep(Duration::from_micros(50));
    }
    // SAFETY: `CLOSING` is ours alone, everybody who used the content has left, and calls that
    // enter now leave without looking.
    let content = unsafe { (*cell.content.get()).take() };
    drop(content);
    // A new generation makes the handle stale. Release: pairs with the Acquire in `adopt`. One
    // addition does it all: CLOSING is the highest phase, and 2^32 - CLOSING makes the carry.
    cell.state.fetch_add((1 << 32) - CLOSING, Ordering::Release);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_kind_its_cell_and_its_generation() {
        let token: *mut mf_engine = token(Kind::Engine, 1023, u32::MAX);
        assert_eq!(parse(Kind::Engine, token), Some((1023, u32::MAX)));
        assert_eq!(parse(Kind::Task, token), None);
        assert_eq!(parse::<mf_engine>(Kind::Engine, ptr::null()), None);
        let on_the_stack = 0_u8;
        assert_eq!(parse(Kind::Engine, &raw const on_the_stack), None);
    }

    #[test]
    fn garbage_is_not_an_engine() {
        for handle in [
            ptr::null_mut(),
            ptr::without_provenance_mut(usize::MAX),
            token(Kind::Engine, u16::MAX, 1),
            token(Kind::Engine, 1000, 1),
            token(Kind::Task, 0, 1),
        ] {
            assert!(find(handle).is_err());
            assert!(free(handle).is_err());
        }
    }
}

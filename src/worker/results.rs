//! The worker's result arena: who writes a large result allocates here.
#![forbid(unsafe_code)]

use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::shm::arena::{Arena, Block};
use crate::shm::layout::RELEASES;
use crate::shm::segments::WorkerLane;
use crate::sys::kill_point::kill_point;
use crate::sys::socket::Socket;
use crate::sys::sync::lock;
use crate::worker::link::FromWorker;

/// How long a reply waits before it looks at the released blocks again.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// The allocator of the result arena, private to this process.
#[derive(Debug)]
pub(crate) struct Results {
    state: Mutex<State>,
    grown: Condvar,
    max: u64,
    wait: Duration,
}

#[derive(Debug)]
struct State {
    arena: Arena,
    /// Entries of the release ring that were read.
    read: u64,
    /// Goes up with every answer of the host to `NeedResults`.
    answers: u64,
}

impl Results {
    pub(crate) fn new(capacity: u64, max: u64, wait: Duration) -> Self {
        Self {
            state: Mutex::new(State {
                arena: Arena::new(capacity, max),
                read: 0,
                answers: 0,
            }),
            grown: Condvar::new(),
            max,
            wait,
        }
    }

    /// A block for `len` bytes. If the arena is full, asks the host to grow it, then waits for
    /// releases.
    pub(crate) fn allocate(&self, lane: &WorkerLane, host: &Socket, len: usize) -> Result<Block> {
        if len as u64 > self.max {
            let max = usize::try_from(self.max).unwrap_or(usize::MAX);
            return Err(Error::TooLarge { len, max });
        }
        let mut deadline = None;
        let mut state = lock(&self.state);
        loop {
            state.reclaim(lane);
            let mut wanted = 0;
            if state.arena.blocks() < RELEASES
                && let Some(block) = state.arena.allocate(len as u64)
            {
                let end = block.offset + len as u64;
                if end <= lane.committed() {
                    kill_point!("results.allocated");
                    return Ok(block);
                }
                state.arena.free(block);
                wanted = end;
            }
            let now = Instant::now();
            let deadline = *deadline.get_or_insert(now + self.wait);
            if now >= deadline {
                return Err(Error::NoMemory(format!(
                    "no room for a result of {len} bytes: the host holds the results of this \
                     worker (release completions, or raise result_arena)"
                )));
            }
            kill_point!("results.before-ask");
            // If the host is gone the watcher ends this process.
            let _ = FromWorker::NeedResults { len: wanted }.send(host);
            kill_point!("results.after-ask");
            let before = state.answers;
            while state.answers == before {
                let (next, timeout) = self
                    .grown
                    .wait_timeout(state, LOOK_AGAIN)
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                state = next;
                if timeout.timed_out() {
                    break;
                }
            }
            if wanted == 0 {
                // Full: the host was asked to move what nobody fetches; give it time.
                state = self
                    .grown
                    .wait_timeout(state, LOOK_AGAIN)
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .0;
            }
        }
    }

    /// Gives back a block that was not sent after all.
    pub(crate) fn free(&self, block: Block) {
        lock(&self.state).arena.free(block);
    }

    /// The host has answered.
    pub(crate) fn answered(&self) {
        lock(&self.state).answers += 1;
        kill_point!("results.answered");
        self.grown.notify_all();
    }
}

impl State {
    fn reclaim(&mut self, lane: &WorkerLane) {
        while let Some(offset) = lane.released(self.read) {
            self.read += 1;
            self.arena.free_at(offset);
            kill_point!("results.reclaimed");
        }
    }
}

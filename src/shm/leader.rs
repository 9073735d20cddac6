//! One thread of a worker watches the doorbell; the others wait for its place.
//!
//! A leader gives up its place *before* it runs user code, and wakes exactly one follower, which
//! takes the place and looks at the ring before it sleeps. So whenever a thread of the pool is
//! free, one of them watches the doorbell, and a wake-up never reaches more than one.

use std::time::Duration;

use crate::sys::kill_point::kill_point;
use crate::sys::sync::{Condvar, Mutex, lock};

/// The place of the leader, and what only the leader may touch.
#[derive(Debug)]
pub(crate) struct Leadership<T> {
    state: Mutex<State>,
    vacant: Condvar,
    /// Locked by the leader only, so never contended.
    tools: Mutex<T>,
}

#[derive(Debug)]
struct State {
    taken: bool,
    followers: u32,
}

impl<T> Leadership<T> {
    pub(crate) fn new(tools: T) -> Self {
        Self {
            state: Mutex::new(State {
                taken: false,
                followers: 0,
            }),
            vacant: Condvar::new(),
            tools: Mutex::new(tools),
        }
    }

    /// Runs `watch` as the leader. If there is a leader already, first waits for its place for at
    /// most `timeout`, and returns without having run `watch` if `idle` turns false meanwhile.
    ///
    /// With `shared` false the caller is the only thread, and there is nobody to wait for.
    pub(crate) fn lead(
        &self,
        shared: bool,
        timeout: Duration,
        idle: impl Fn() -> bool,
        watch: impl FnOnce(&mut T),
    ) {
        if !shared {
            watch(&mut lock(&self.tools));
            return;
        }
        if !self.take_place(timeout, idle) {
            return;
        }
        kill_point!("lead.taken");
        watch(&mut lock(&self.tools));
        kill_point!("lead.before-leave");
        let mut state = lock(&self.state);
        state.taken = false;
        kill_point!("lead.before-hand-on");
        self.hand_on(&state);
        kill_point!("lead.left");
    }

    fn take_place(&self, timeout: Duration, idle: impl Fn() -> bool) -> bool {
        let mut state = lock(&self.state);
        while state.taken {
            state.followers += 1;
            let (next, expired) = self.follow(state, timeout);
            state = next;
            state.followers -= 1;
            kill_point!("follow.woken");
            if expired || !idle() {
                // The wake-up that ended the wait may have been the one for a successor.
                if !state.taken {
                    self.hand_on(&state);
                }
                return false;
            }
        }
        state.taken = true;
        true
    }

    /// Wakes one follower to take the vacant place.
    fn hand_on(&self, state: &State) {
        if state.followers > 0 {
            self.vacant.notify_one();
        }
    }

    #[cfg(not(loom))]
    fn follow<'a>(
        &self,
        state: std::sync::MutexGuard<'a, State>,
        timeout: Duration,
    ) -> (std::sync::MutexGuard<'a, State>, bool) {
        let (state, timeout) = self
            .vacant
            .wait_timeout(state, timeout)
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        (state, timeout.timed_out())
    }

    #[cfg(loom)]
    fn follow<'a>(
        &self,
        state: loom::sync::MutexGuard<'a, State>,
        _timeout: Duration,
    ) -> (loom::sync::MutexGuard<'a, State>, bool) {
        (
            self.vacant
                .wait(state)
                .expect("loom locks are not poisoned"),
            false,
        )
    }

    /// Makes every follower look again.
    pub(crate) fn wake_all(&self) {
        drop(lock(&self.state));
        self.vacant.notify_all();
    }
}

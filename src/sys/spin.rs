//! How long to spin before sleeping.
//!
//! Waking a sleeper costs tens of microseconds, spinning a fraction of one, so spinning for about
//! the price of a sleep-and-wake pair never costs more than twice the optimum: *if* the peer can
//! run meanwhile. When it cannot (more runnable threads than CPUs), a spinner holds up the very
//! thread that it waits for. So spin only while !spinning has lately paid off, and try it anew only
//! now and then.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::sys::clock::Clock;
use crate::sys::sync::spin_hint;

/// Spins that failed in a row before spinning is given up.
const PATIENCE: u32 = 3;
/// While it is given up, one wait in so many tries again, for a quarter of the budget.
const PROBE_EVERY: u32 = 64;

/// A budget and its recent success; shared by the threads of one process. All accesses are
/// Relaxed: the numbers are advice, and a lost update costs one spin at most.
#[derive(Debug)]
pub(crate) struct Spin {
    budget: u64,
    failures: AtomicU32,
}

impl Spin {
    /// `budget` is in ticks of the clock; 0 never spins.
    pub(crate) fn new(budget: u64) -> Self {
        Self {
            budget,
            failures: AtomicU32::new(0),
        }
    }

    /// Spins until `found`; false if the budget ran out first.
    ///
    /// The clock is read between any two looks, which takes about as long as a PAUSE.
    #[inline]
    pub(crate) fn until(&self, clock: Clock, mut found: impl FnMut() -> bool) -> bool {
        if self.budget == 0 {
            return false;
        }
        let failures = self.failures.load(Relaxed);
        let budget = if failures < PATIENCE {
            self.budget
        } else if failures.is_multiple_of(PROBE_EVERY) {
            self.budget / 4
        } else {
            self.failures
                .store(failures.wrapping_add(1).max(PATIENCE), Relaxed);
            return false;
        };
        let start = clock.now();
        loop {
            if found() {
                if failures != 0 {
                    self.failures.store(0, Relaxed);
                }
                return true;
            }
            let spent = clock.now().wrapping_sub(start);
            if spent > budget {
                self.failures.store(failures.wrapping_add(1), Relaxed);
                return false;
            }
            if spent > budget / 16 {
                spin_hint(); // it takes long: be kind to a sibling thread of this core
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spinning_that_never_pays_off_is_given_up_and_tried_again_rarely() {
        let clock = Clock::from_wire(0);
        let spin = Spin::new(1_000);
        let mut spins = 0;
        for _ in 0..640 {
            let mut spun = false;
            spin.until(clock, || {
                spun = true;
                false
            });
            spins += u32::from(spun);
        }
        assert!((4..=14).contains(&spins), "{spins} of 640");
        // One that pays off restores it.
        while !spin.until(clock, || true) {}
        assert!(spin.until(clock, || true));
    }
}

//! The clock of the measurements, and the watchdog of every loop that spins.

use std::hint;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// How long the other side may be silent before a measurement gives up.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(5);

/// Spins between two looks at the watchdog: about a millisecond, so that its cost disappears.
const SPINS_PER_LOOK: u32 = 1 << 14;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The time stamp counter, where it runs at one rate on all cores and in all sleep states.
    #[cfg(target_arch = "x86_64")]
    Tsc,
    /// `CLOCK_MONOTONIC`, in nanoseconds.
    Monotonic,
}

/// Time in ticks: cheap to read, and its own cost known.
#[derive(Debug, Clone)]
pub(super) struct Clock {
    source: Source,
    origin: Instant,
    ns_per_tick: f64,
    read_ticks: u64,
}

impl Clock {
    /// Picks the best source of this machine and measures its rate and its cost.
    pub(super) fn calibrated() -> Self {
        let mut clock = Self {
            source: best_source(),
            origin: Instant::now(),
            ns_per_tick: 1.0,
            read_ticks: 0,
        };
        if clock.source != Source::Monotonic {
            clock.ns_per_tick = clock.measured_scale();
        }
        clock.read_ticks = clock.measured_cost();
        clock
    }

    /// Now, in ticks since some moment before the clock was made.
    #[inline]
    pub(super) fn now(&self) -> u64 {
        match self.source {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: every x86-64 processor has the instruction, and Linux leaves it enabled for
            // user code (a process must ask for the opposite by PR_SET_TSC).
            Source::Tsc => unsafe { core::arch::x86_64::_rdtsc() },
            Source::Monotonic => {
                // 584 years of nanoseconds fit.
                u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
            }
        }
    }

    /// Ticks between two readings, without what one reading costs.
    #[inline]
    pub(super) fn between(&self, start: u64, end: u64) -> u64 {
        end.saturating_sub(start).saturating_sub(self.read_ticks)
    }

    /// The number of ticks in `time`.
    pub(super) fn ticks(&self, time: Duration) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "positive, and a cast from f64 saturates"
        )]
        {
            (time.as_secs_f64() * 1e9 / self.ns_per_tick) as u64
        }
    }

    pub(super) fn ns_per_tick(&self) -> f64 {
        self.ns_per_tick
    }

    /// What one reading costs, in nanoseconds.
    pub(super) fn read_ns(&self) -> f64 {
        as_f64(self.read_ticks) * self.ns_per_tick
    }

    pub(super) fn source_name(&self) -> &'static str {
        match self.source {
            #[cfg(target_arch = "x86_64")]
            Source::Tsc => "tsc",
            Source::Monotonic => "clock_monotonic",
        }
    }

    /// Nanoseconds per tick, by comparison with `CLOCK_MONOTONIC` over 50 ms.
    fn measured_scale(&self) -> f64 {
        let (ticks, time) = (self.now(), Instant::now());
        while time.elapsed() < Duration::from_millis(50) {
            hint::spin_loop();
        }
        let (ticks, time) = (self.now() - ticks, time.elapsed());
        time.as_secs_f64() * 1e9 / as_f64(ticks.max(1))
    }

    /// Ticks between two readings with nothing in between: the median of many.
    fn measured_cost(&self) -> u64 {
        let mut costs: Vec<u64> = (0..1_001)
            .map(|_| {
                let start = self.now();
                self.now() - start
            })
            .collect();
        costs.sort_unstable();
        costs[costs.len() / 2]
    }
}

/// The time stamp counter if the kernel says that it is invariant.
fn best_source() -> Source {
    #[cfg(target_arch = "x86_64")]
    if ["constant_tsc", "nonstop_tsc"]
        .iter()
        .all(|flag| super::host::cpu_has(flag))
    {
        return Source::Tsc;
    }
    Source::Monotonic
}

/// Counts as measured values: exact below 2^53, and nothing here counts further.
pub(super) fn as_f64(count: u64) -> f64 {
    count as f64
}

/// Spins until `ready` says so, or gives up with an error that names `what`.
#[inline]
pub(super) fn spin_until(what: &'static str, mut ready: impl FnMut() -> bool) -> Result<()> {
    let mut spins = 0_u32;
    let mut since = None;
    while !ready() {
        hint::spin_loop();
        spins = spins.wrapping_add(1);
        if spins.is_multiple_of(SPINS_PER_LOOK) {
            bark(what, &mut since)?;
        }
    }
    Ok(())
}

/// The slow half of [`spin_until`].
#[cold]
fn bark(what: &'static str, since: &mut Option<Instant>) -> Result<()> {
    let since = since.get_or_insert_with(Instant::now);
    if since.elapsed() > WATCHDOG {
        return Err(Error::Silent(what));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_a_second_of_ticks() {
        let clock = Clock::calibrated();
        let ticks = clock.ticks(Duration::from_secs(1));
        let ns = as_f64(ticks) * clock.ns_per_tick();
        assert!((ns - 1e9).abs() < 10.0, "{ns}");
    }

    #[test]
    fn the_clock_agrees_with_the_standard_library() {
        let clock = Clock::calibrated();
        let (start, time) = (clock.now(), Instant::now());
        std::thread::sleep(Duration::from_millis(30));
        let ns = as_f64(clock.now() - start) * clock.ns_per_tick();
        let expected = time.elapsed().as_secs_f64() * 1e9;
        assert!((ns / expected - 1.0).abs() < 0.05, "{ns} for {expected}");
    }

    #[test]
    fn its_own_cost_is_taken_off_and_never_below_zero() {
        let clock = Clock::calibrated();
        let cost = clock.read_ticks;
        assert_eq!(clock.between(10, 1_000_010 + cost), 1_000_000);
        assert_eq!(clock.between(10, 10), 0);
        assert_eq!(clock.between(10, 5), 0);
    }
}

//! The time stamps of tasks: the raw time-stamp counter where it is invariant, else
//! `CLOCK_MONOTONIC`.
//!
//! Reading `CLOCK_MONOTONIC` costs about 28 ns on the machines that we develop on, the raw counter
//! about 10. Kind and scale are made once by the host and travel to every worker, so that both
//! sides mean the same by a tick.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A monotonic clock that all processes of one engine share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Clock {
    /// Nanoseconds per tick in 32.32 fixed point; 0 = ticks are nanoseconds of `CLOCK_MONOTONIC`.
    scale: u64,
}

impl Clock {
    /// Chooses the clock of this machine; takes about 2 ms if the counter has to be calibrated.
    pub(crate) fn calibrate() -> Self {
        static CLOCK: std::sync::OnceLock<Clock> = std::sync::OnceLock::new();
        *CLOCK.get_or_init(|| Self {
            scale: counter::scale().unwrap_or(0),
        })
    }

    /// The clock that a host described by [`Clock::to_wire`].
    pub(crate) fn from_wire(scale: u64) -> Self {
        Self { scale }
    }

    pub(crate) fn to_wire(self) -> u64 {
        self.scale
    }

    /// Now, in ticks.
    #[inline]
    pub(crate) fn now(self) -> u64 {
        if self.scale == 0 {
            monotonic_ns()
        } else {
            counter::read()
        }
    }

    /// A span of ticks in nanoseconds. Saturates; a span that ends before it begins should be
    /// given as 0 by the caller.
    #[inline]
    pub(crate) fn ns(self, ticks: u64) -> u64 {
        if self.scale == 0 {
            return ticks;
        }
        let ns = (u128::from(ticks) * u128::from(self.scale)) >> 32;
        u64::try_from(ns).unwrap_or(u64::MAX)
    }

    /// A span of time in ticks.
    pub(crate) fn ticks(self, span: Duration) -> u64 {
        let ns = span.as_nanos();
        let ticks = if self.scale == 0 {
            ns
        } else {
            (ns << 32) / u128::from(self.scale)
        };
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }
}

/// Milliseconds since 1970, from ticks: asks the kernel only once in a while.
#[derive(Debug, Default)]
pub(crate) struct Calendar {
    ms: u64,
    asked_at: u64,
    ask_again: u64,
}

impl Calendar {
    /// How long an answer is good for. The kernel's coarse clock itself moves every 1 to 10 ms.
    const GOOD_FOR: Duration = Duration::from_millis(1);

    /// The time at tick `now`.
    #[inline]
    pub(crate) fn unix_ms(&mut self, clock: Clock, now: u64) -> u64 {
        if now.wrapping_sub(self.asked_at) >= self.ask_again {
            self.ms = unix_ms();
            self.asked_at = now;
            self.ask_again = clock.ticks(Self::GOOD_FOR);
        }
        self.ms
    }
}

/// `CLOCK_MONOTONIC` in ns: the same for all processes of the machine.
pub(crate) fn monotonic_ns() -> u64 {
    let t = kernel_time(libc::CLOCK_MONOTONIC);
    t.tv_sec.cast_unsigned() * 1_000_000_000 + t.tv_nsec.cast_unsigned()
}

/// Milliseconds since 1970 from the kernel's coarse clock (one tick of a few ms, no system call).
pub(crate) fn unix_ms() -> u64 {
    let t = kernel_time(libc::CLOCK_REALTIME_COARSE);
    t.tv_sec.cast_unsigned() * 1_000 + t.tv_nsec.cast_unsigned() / 1_000_000
}

/// A time in milliseconds since 1970.
pub(crate) fn unix_ms_of(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// libc's, not rustix's, which finds the kernel's vDSO by itself and fails under valgrind.
fn kernel_time(clock: libc::clockid_t) -> libc::timespec {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid place for the answer. The call cannot fail for these clocks; if it
    // did, the time would be 0.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time
}

#[cfg(target_arch = "x86_64")]
mod counter {
    use core::arch::x86_64::{__cpuid, _rdtsc};
    use std::time::{Duration, Instant};

    #[inline]
    pub(super) fn read() -> u64 {
        // SAFETY: RDTSC is part of x86-64 and is not disabled for user mode on Linux unless a
        // process asks for it by prctl(PR_SET_TSC), which we do not.
        unsafe { _rdtsc() }
    }

    /// Nanoseconds per tick in 32.32 fixed point, or `None` where the counter cannot be trusted.
    pub(super) fn scale() -> Option<u64> {
        const INVARIANT_TSC: u32 = 1 << 8;
        if __cpuid(0x8000_0000).eax < 0x8000_0007 {
            return None;
        }
        if __cpuid(0x8000_0007).edx & INVARIANT_TSC == 0 {
            return None;
        }
        // The kernel gives up the TSC as its own clock when it finds the cores out of step.
        let source = std::fs::read_to_string(
            "/sys/devices/system/clocksource/clocksource0/current_clocksource",
        )
        .unwrap_or_default();
        if !matches!(
            source.trim(),
            "tsc" | "kvm-clock" | "hyperv_clocksource_tsc_page"
        ) {
            return None;
        }
        let (t0, c0) = sample();
        while t0.elapsed() < Duration::from_millis(2) {
            std::hint::spin_loop();
        }
        let (t1, c1) = sample();
        let ns = (t1 - t0).as_nanos();
        let ticks = u128::from(c1.checked_sub(c0).filter(|&d| d > 0)?);
        u64::try_from((ns << 32) / ticks).ok().filter(|&s| s > 0)
    }

    /// The pair of readings, of a few tries, whose counter reading took the shortest time: a
    /// sample that was interrupted in the middle is not taken.
    fn sample() -> (Instant, u64) {
        let mut best = (Instant::now(), read());
        let mut shortest = u64::MAX;
        for _ in 0..8 {
            let before = read();
            let time = Instant::now();
            let after = read();
            if after.wrapping_sub(before) < shortest {
                shortest = after.wrapping_sub(before);
                best = (time, before + (after - before) / 2);
            }
        }
        best
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod counter {
    pub(super) fn read() -> u64 {
        super::monotonic_ns()
    }

    pub(super) fn scale() -> Option<u64> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn the_counter_agrees_with_the_monotonic_clock() {
        let clock = Clock::calibrate();
        let (t0, c0) = (Instant::now(), clock.now());
        std::thread::sleep(Duration::from_millis(50));
        let (ns, ticks) = (t0.elapsed().as_nanos(), clock.now() - c0);
        let measured = u128::from(clock.ns(ticks));
        assert!(
            measured.abs_diff(ns) < ns / 100,
            "{measured} ns against {ns} ns"
        );
    }

    #[test]
    fn ticks_and_nanoseconds_are_inverse() {
        let clock = Clock::calibrate();
        let span = Duration::from_millis(1);
        let ns = clock.ns(clock.ticks(span));
        assert!(ns.abs_diff(1_000_000) < 100, "{ns}");
    }
}

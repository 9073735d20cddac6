//! How busy the processors are: those that this process may use, and the share of them that its
//! control group (cgroup v2) may use.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Measures from one reading to the next.
#[derive(Debug)]
pub(crate) struct CpuMeter {
    group: Option<PathBuf>,
    last: Option<Reading>,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Instant,
    machine: Option<Ticks>,
    /// Microseconds that the group has used, and the processors that it may use.
    group: Option<(u64, f32)>,
}

/// Time of the whole machine, in ticks of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ticks {
    busy: u64,
    all: u64,
}

impl CpuMeter {
    pub(crate) fn new() -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self {
            group: group_of(&own).map(|path| Path::new("/sys/fs/cgroup").join(path)),
            last: None,
        }
    }

    /// The share in use since the last call, 0 to 1; `None` at the first, or if nothing can be read.
    pub(crate) fn measure(&mut self) -> Option<f32> {
        let now = Reading {
            at: Instant::now(),
            machine: (fs::read_to_string("/proc/stat").ok()).and_then(|text| ticks_of(&text)),
            group: self.group.as_deref().and_then(group_use),
        };
        let before = self.last.replace(now)?;
        let machine = (before.machine.zip(now.machine)).and_then(|(a, b)| share(a, b));
        let elapsed = now.at.duration_since(before.at).as_secs_f32();
        let group = (before.group.zip(now.group)).and_then(|((a, _), (b, quota))| {
            let used = b.saturating_sub(a) as f32 / 1e6;
            (elapsed > 0.0).then(|| (used / elapsed / quota).min(1.0))
        });
        [machine, group].into_iter().flatten().reduce(f32::max)
    }
}

/// The path of the control group below the mount, from `/proc/self/cgroup`.
fn group_of(text: &str) -> Option<&str> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(path)
}

/// What the group has used, if its time is limited.
fn group_use(group: &Path) -> Option<(u64, f32)> {
    let quota = quota_of(&fs::read_to_string(group.join("cpu.max")).ok()?)?;
    Some((
        usage_of(&fs::read_to_string(group.join("cpu.stat")).ok()?)?,
        quota,
    ))
}

/// The processors that `cpu.max` allows; `None` for no limit.
fn quota_of(text: &str) -> Option<f32> {
    let mut words = text.split_ascii_whitespace();
    let quota: f32 = words.next()?.parse().ok()?; // `max` is no number
    let period: f32 = words.next()?.parse().ok()?;
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

fn usage_of(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("usage_usec "))?;
    line.trim().parse().ok()
}

/// The first line of `/proc/stat`: user nice system idle iowait irq softirq steal ...
fn ticks_of(text: &str) -> Option<Ticks> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let times: Vec<u64> = line
        .split_ascii_whitespace()
        .take(8) // guest time is part of user time
        .map_while(|word| word.parse().ok())
        .collect();
    let all = times.iter().sum();
    let idle = times.get(3)? + times.get(4)?;
    Some(Ticks {
        busy: all - idle,
        all,
    })
}

fn share(before: Ticks, now: Ticks) -> Option<f32> {
    let all = now.all.checked_sub(before.all)?;
    // Idle time may seem to run backwards (proc(5)).
    (all > 0).then(|| (now.busy.saturating_sub(before.busy) as f32 / all as f32).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lines_are_understood_and_others_refused() {
        let stat = "cpu  100 20 30 800 50 1 2 3 70 0\ncpu0 1 2 3 4\n";
        let ticks = Ticks {
            busy: 156,
            all: 1006,
        };
        assert_eq!(ticks_of(stat), Some(ticks));
        assert_eq!(ticks_of("cpu  1 2"), None);
        assert_eq!(ticks_of(""), None);
        assert_eq!(quota_of("150000 100000\n"), Some(1.5));
        assert_eq!(quota_of("max 100000\n"), None);
        assert_eq!(usage_of("usage_usec 4711\nuser_usec 1\n"), Some(4711));
        assert_eq!(group_of("1:cpu:/x\n0::/a/b\n"), Some("a/b"));
        assert_eq!(group_of("1:cpu:/x\n"), None);
    }

    #[test]
    fn the_share_is_of_the_time_between_two_readings() {
        let at = |busy, all| Ticks { busy, all };
        assert_eq!(share(at(10, 100), at(60, 200)), Some(0.5));
        assert_eq!(share(at(10, 100), at(10, 100)), None);
        assert_eq!(share(at(10, 100), at(5, 200)), Some(0.0));
    }

    #[test]
    fn a_meter_measures_something_on_this_machine() {
        let mut meter = CpuMeter::new();
        assert_eq!(meter.measure(), None);
        let start = Instant::now();
        let share = loop {
            if let Some(share) = meter.measure() {
                break share;
            }
            assert!(
                start.elapsed().as_secs() < 20,
                "the clock of /proc/stat stands"
            );
        };
        assert!((0.0..=1.0).contains(&share), "{share}");
    }
}

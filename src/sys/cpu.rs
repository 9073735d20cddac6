//! How busy the processors are: those that this process may use, and the share of them that its
//! control group (cgroup v2) may use.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::sys::cgroup::{Group, Groups, value_of};
use crate::sys::cpuset::Cpus;

/// Measures from one reading to the next.
#[derive(Debug)]
pub(crate) struct CpuMeter {
    stat: PathBuf,
    cpus: Cpus,
    groups: Groups,
    last: Option<Reading>,
}

#[derive(Debug, Clone)]
struct Reading {
    at: Instant,
    machine: Option<Ticks>,
    /// Of each group that is limited: microseconds that it has used, and the processors that it may use.
    groups: Vec<Option<(u64, f32)>>,
}

/// Time of all those processors together, in ticks of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ticks {
    busy: u64,
    all: u64,
}

impl CpuMeter {
    /// `root` is where `/proc` and `/sys` are: `/`, but for tests.
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            stat: root.join("proc/stat"),
            cpus: Cpus::allowed(None).unwrap_or_default(),
            groups: Groups::of_this_process(root),
            last: None,
        }
    }

    /// The share in use since the last call, 0 to 1; `None` at the first, or if nothing can be read.
    pub(crate) fn measure(&mut self) -> Option<f32> {
        let now = Reading {
            at: Instant::now(),
            machine: (fs::read_to_string(&self.stat).ok())
                .and_then(|text| ticks_of(&text, &self.cpus)),
            groups: self.groups.iter().map(group_use).collect(),
        };
        let before = self.last.replace(now.clone())?;
        let machine = (before.machine.zip(now.machine)).and_then(|(a, b)| share(a, b));
        let elapsed = now.at.duration_since(before.at).as_secs_f32();
        let groups = (before.groups.iter().zip(&now.groups)).filter_map(|(before, now)| {
            let ((before, _), (now, quota)) = before.zip(*now)?;
            let used = now.saturating_sub(before) as f32 / 1e6;
            (elapsed > 0.0).then(|| (used / elapsed / quota).min(1.0))
        });
        machine.into_iter().chain(groups).reduce(f32::max)
    }
}

/// What the group has used, if its time is limited.
fn group_use(group: &Group) -> Option<(u64, f32)> {
    let quota = quota_of(&group.read("cpu.max")?)?;
    Some((value_of(&group.read("cpu.stat")?, "usage_usec")?, quota))
}

/// The processors that `cpu.max` allows; `None` for no limit.
fn quota_of(text: &str) -> Option<f32> {
    let mut words = text.split_ascii_whitespace();
    let quota: f32 = words.next()?.parse().ok()?; // `max` is no number
    let period: f32 = words.next()?.parse().ok()?;
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

/// What `/proc/stat` says of these processors; of all, if it has no line for any of them.
fn ticks_of(text: &str, cpus: &Cpus) -> Option<Ticks> {
    let mut lines = text.lines();
    let all = ticks_in(lines.next()?.strip_prefix("cpu ")?)?;
    let own = lines
        .map_while(|line| line.strip_prefix("cpu")?.split_once(' '))
        .filter(|(number, _)| number.parse().is_ok_and(|cpu| cpus.contains(cpu)))
        .filter_map(|(_, times)| ticks_in(times))
        .reduce(|a, b| Ticks {
            busy: a.busy + b.busy,
            all: a.all + b.all,
        });
    Some(own.unwrap_or(all))
}

/// user nice system idle iowait irq softirq steal ...
fn ticks_in(times: &str) -> Option<Ticks> {
    let times: Vec<u64> = times
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
        let every = Cpus::parse("0-7");
        assert_eq!(ticks_of(stat, &every), Some(ticks));
        assert_eq!(ticks_of("cpu  1 2", &every), None);
        assert_eq!(ticks_of("", &every), None);
        assert_eq!(quota_of("150000 100000\n"), Some(1.5));
        assert_eq!(quota_of("max 100000\n"), None);
    }

    #[test]
    fn only_the_processors_that_this_process_may_use_are_counted() {
        let stat = "cpu  6 0 0 600 0 0\ncpu0 1 0 0 100 0 0\ncpu1 2 0 0 200 0 0\n\
                    cpu10 3 0 0 300 0 0\nintr 1 2 3\ncpu1 a line of another kind\n";
        let of = |list| ticks_of(stat, &Cpus::parse(list)).unwrap();
        let ticks = |busy, all| Ticks { busy, all };
        assert_eq!(of("1"), ticks(2, 202));
        assert_eq!(of("0,10"), ticks(4, 404));
        assert_eq!(of("0-63"), ticks(6, 606));
        assert_eq!(of("5"), ticks(6, 606), "it says nothing of that one");
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
        let mut meter = CpuMeter::new(Path::new("/"));
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

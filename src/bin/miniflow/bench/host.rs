//! What the figures were measured on.

#![forbid(unsafe_code)]

use std::env;
use std::fs;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::clock::Clock;
use super::pin::{Cpu, Cpus};
use super::stats::rounded;

/// The machine, the moment and the command of a run.
#[derive(Debug, Serialize)]
pub(super) struct Host {
    pub(super) kernel: String,
    pub(super) arch: &'static str,
    pub(super) cpu: String,
    /// Whether the processor says that it is a virtual machine's.
    pub(super) virtual_machine: bool,
    /// Processors that the run was allowed to use.
    pub(super) cpus: u32,
    pub(super) host_cpu: Cpu,
    pub(super) other_cpu: Option<Cpu>,
    /// Whether the two are hardware threads of one core.
    pub(super) same_core: bool,
    pub(super) clock: &'static str,
    /// What one reading of the clock costs; it is taken off every time.
    pub(super) clock_read_ns: f64,
    /// The load average over the minute before the run: whatever else runs disturbs it.
    pub(super) load_before: f64,
    /// UTC, ISO 8601.
    pub(super) date: String,
    pub(super) command: Vec<String>,
}

impl Host {
    pub(super) fn describe(cpus: &Cpus, clock: &Clock) -> Self {
        Self {
            kernel: first_line("/proc/sys/kernel/osrelease"),
            arch: env::consts::ARCH,
            cpu: cpu_field("model name").unwrap_or_else(|| "unknown".into()),
            virtual_machine: cpu_has("hypervisor"),
            cpus: cpus.allowed.count(),
            host_cpu: cpus.host,
            other_cpu: cpus.other,
            same_core: cpus.siblings,
            clock: clock.source_name(),
            clock_read_ns: rounded(clock.read_ns(), 1),
            load_before: load_average(),
            date: utc(SystemTime::now()),
            command: env::args_os()
                .map(|arg| arg.to_string_lossy().into_owned())
                .collect(),
        }
    }
}

/// Whether the first processor has the feature `flag`, by the kernel's account.
pub(super) fn cpu_has(flag: &str) -> bool {
    cpu_field("flags").is_some_and(|flags| flags.split_whitespace().any(|word| word == flag))
}

/// A field of the first processor in `/proc/cpuinfo`.
fn cpu_field(name: &str) -> Option<String> {
    let info = fs::read_to_string("/proc/cpuinfo").ok()?;
    info.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

/// Runnable processes, averaged over the last minute; 0 where the kernel does not tell.
fn load_average() -> f64 {
    let text = first_line("/proc/loadavg");
    let first = text.split_whitespace().next();
    first.and_then(|load| load.parse().ok()).unwrap_or_default()
}

fn first_line(path: &str) -> String {
    fs::read_to_string(path)
        .ok()
        .and_then(|text| text.lines().next().map(str::to_owned))
        .unwrap_or_else(|| "unknown".into())
}

/// `time` in the form `2026-11-21T22:46:00Z`.
fn utc(time: SystemTime) -> String {
    let seconds = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date_of(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        second / 3_600,
        second / 60 % 60,
        second % 60
    )
}

/// The Gregorian date `days` after 1970-01-01.
///
/// Counts in years that begin in March, so that the leap day is the last of its year, and in eras
/// of 400 years, all of one length (H. Hinnant, "chrono-compatible low-level date algorithms").
fn date_of(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // since 0000-03-01
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = (march_month + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_the_calendars() {
        let at = |seconds| utc(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(951_868_799), "2000-02-29T23:59:59Z");
        assert_eq!(at(1_000_000_000), "2001-09-09T01:46:40Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn this_machine_has_a_kernel() {
        assert_ne!(first_line("/proc/sys/kernel/osrelease"), "unknown");
        assert_eq!(first_line("/does/not/exist"), "unknown");
        assert!(!cpu_has("no such flag"));
    }
}

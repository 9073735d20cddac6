//! What the figures were measured on.

#![forbid(unsafe_code)]

use std::env;
use std::fs;
use std::time::SystemTime;

use serde::Serialize;

use super::clock::Clock;
use super::pin::{Cpu, Cpus};
use super::stats::rounded;
use crate::calendar::utc;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_kernel() {
        assert_ne!(first_line("/proc/sys/kernel/osrelease"), "unknown");
        assert_eq!(first_line("/does/not/exist"), "unknown");
        assert!(!cpu_has("no such flag"));
    }
}

//! Which processors the two sides run on.

#![forbid(unsafe_code)]

use std::fmt;
use std::fs;

use rustix::process::Pid;
use rustix::thread::{self, sched_getaffinity, sched_setaffinity};
use serde::Serialize;

use crate::cpu_list;
use crate::error::{Error, Result};

/// The number of a processor, as Linux counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Cpu(pub(super) u16);

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Cpu {
    /// The set of this one.
    pub(super) fn alone(self) -> CpuSet {
        CpuSet(thread::CpuSet::new()).with(self)
    }
}

/// Processors that a thread may run on.
#[derive(Debug, Clone, Copy)]
pub(super) struct CpuSet(thread::CpuSet);

impl CpuSet {
    /// The set with `cpu` added.
    pub(super) fn with(mut self, cpu: Cpu) -> Self {
        self.0.set(usize::from(cpu.0));
        self
    }

    /// How many they are.
    pub(super) fn count(self) -> u32 {
        self.0.count()
    }

    /// Binds the calling thread to these; its future threads and children inherit that.
    pub(super) fn bind_this_thread(self) -> Result<()> {
        sched_setaffinity(None, &self.0).map_err(Error::system("sched_setaffinity"))
    }

    /// Binds all threads that the process `pid` has at present.
    pub(super) fn bind_process(self, pid: u32) -> Result<()> {
        let threads = fs::read_dir(format!("/proc/{pid}/task"))
            .map_err(Error::system("reading /proc/PID/task"))?;
        for thread in threads {
            let name = thread
                .map_err(Error::system("reading /proc/PID/task"))?
                .file_name();
            let id = name.to_str().and_then(|name| name.parse().ok());
            if let Some(id) = id.and_then(Pid::from_raw) {
                sched_setaffinity(Some(id), &self.0).map_err(Error::system("sched_setaffinity"))?;
            }
        }
        Ok(())
    }
}

/// The processors of a run: one for the host, and one for the other side if there are two.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cpus {
    pub(super) host: Cpu,
    pub(super) other: Option<Cpu>,
    /// All that the process may use.
    pub(super) allowed: CpuSet,
    /// Whether the two are hardware threads of one core, for want of a second core.
    pub(super) siblings: bool,
}

impl Cpus {
    /// Picks two of the processors that this process may use, on two cores where it can.
    pub(super) fn pick() -> Result<Self> {
        let set = sched_getaffinity(None).map_err(Error::system("sched_getaffinity"))?;
        let allowed: Vec<Cpu> = (0..thread::CpuSet::MAX_CPU)
            .filter(|cpu| set.is_set(*cpu))
            .filter_map(|cpu| u16::try_from(cpu).ok().map(Cpu))
            .collect();
        let (host, rest) = allowed
            .split_first()
            .ok_or_else(|| Error::Unfit("this process may not run on any processor".into()))?;
        let siblings = siblings(*host);
        let apart = rest.iter().find(|cpu| !siblings.contains(cpu));
        Ok(Self {
            host: *host,
            other: apart.or(rest.first()).copied(),
            allowed: CpuSet(set),
            siblings: apart.is_none() && !rest.is_empty(),
        })
    }
}

/// The hardware threads of the core that `cpu` belongs to; empty where the kernel does not tell.
fn siblings(cpu: Cpu) -> Vec<Cpu> {
    let path = format!(
        "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list",
        cpu.0
    );
    fs::read_to_string(path)
        .map(|list| cpu_list::parse(&list).into_iter().map(Cpu).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_processors_are_two() {
        let cpus = Cpus::pick().unwrap();
        assert_ne!(Some(cpus.host), cpus.other);
        assert_eq!(cpus.other.is_some(), cpus.allowed.count() > 1);
    }
}

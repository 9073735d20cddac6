//! The system calls, each behind a safe type, and the loom shim of atomics.

pub(crate) mod futex;
pub(crate) mod kill_point;
#[cfg(all(test, loom))]
pub(crate) mod model;
pub(crate) mod prefetch;
pub(crate) mod sync;

#[cfg(not(loom))]
pub(crate) mod cgroup;
#[cfg(not(loom))]
pub(crate) mod clock;
#[cfg(not(loom))]
pub(crate) mod cpu;
#[cfg(not(loom))]
pub(crate) mod cpuset;
#[cfg(not(loom))]
pub(crate) mod crash;
#[cfg(not(loom))]
pub(crate) mod event;
#[cfg(not(loom))]
pub(crate) mod fork;
#[cfg(not(loom))]
pub(crate) mod hugepages;
#[cfg(not(loom))]
pub(crate) mod memfd;
#[cfg(not(loom))]
pub(crate) mod memory;
#[cfg(not(loom))]
pub(crate) mod numa;
#[cfg(not(loom))]
pub(crate) mod placement;
#[cfg(not(loom))]
pub(crate) mod proc_stat;
#[cfg(not(loom))]
pub(crate) mod process;
#[cfg(not(loom))]
pub(crate) mod sandbox;
#[cfg(not(loom))]
pub(crate) mod selftest;
#[cfg(not(loom))]
pub(crate) mod sigstack;
#[cfg(not(loom))]
pub(crate) mod socket;
#[cfg(not(loom))]
pub(crate) mod spin;
#[cfg(not(loom))]
pub(crate) mod term;
#[cfg(not(loom))]
pub(crate) mod topology;
#[cfg(not(loom))]
pub(crate) mod unwind;
#[cfg(not(loom))]
pub(crate) mod view;

//! What lies in shared memory, and the protocols over it. Knows nothing of what a task means or of
//! processes.
//!
//! Every structure here has one writing process; the other side maps it read-only and the kernel
//! enforces that. See [`layout`] for the map of the segments.

pub(crate) mod arena;
pub(crate) mod commit;
#[cfg(not(loom))]
pub(crate) mod control;
pub(crate) mod crash;
pub(crate) mod doorbell;
pub(crate) mod hostbell;
pub(crate) mod layout;
pub(crate) mod leader;
#[cfg(not(loom))]
pub(crate) mod load_table;
pub(crate) mod ring;
#[cfg(not(loom))]
pub(crate) mod segments;
pub(crate) mod slot;

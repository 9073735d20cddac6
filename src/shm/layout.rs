//! The map of the segments that a host and one worker share.
//!
//! | segment | offset | what | written by |
//! |---|---|---|---|
//! | `inputs` | 0 | [`Inputs`]: host sleep epoch `H` | host |
//! | | 4 096 | arena of task payloads | host |
//! | `down[k]` | 0 | [`Down`]: lane constants, tail `T`, cancel tickets, descriptors, task information, released blocks | host |
//! | `up[k]` | 0 | [`Up`]: consumed index, sleep epoch `Z`, done bitmap, task slots, crash report | worker k |
//! | | [`RESULTS_OFFSET`] | arena of task results | worker k |
//!
//! Only offsets, sequence numbers and atomics with one writing process lie here; each hot word has
//! its own pair of cache lines (adjacent lines are prefetched together). A change of any size or
//! offset is a new [`LAYOUT_VERSION`]; the test at the end pins them.

use crate::shm::crash::CrashReport;
use crate::shm::doorbell::{SleepEpoch, Tail};
use crate::shm::hostbell::HostEpoch;
use crate::shm::ring::{Head, Ring};
use crate::shm::slot::{DoneBitmap, TaskSlot};
use crate::sys::sync::{AtomicU32, AtomicU64};

/// Goes up with every change of the structures below.
pub(crate) const LAYOUT_VERSION: u32 = 3;
/// First word of every `down` segment.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"miniflow");

/// Task slots of a lane: the most dispatches that can be out at a time.
#[cfg(not(loom))]
pub(crate) const CREDITS: usize = 512;
/// Words of payload in a descriptor, which fills one cache line.
#[cfg(not(loom))]
pub(crate) const PAYLOAD_WORDS: usize = 5;
/// Words of result in a task slot, which fills four cache lines.
#[cfg(not(loom))]
pub(crate) const RESULT_WORDS: usize = 19;

#[cfg(loom)]
pub(crate) const CREDITS: usize = 2;
#[cfg(loom)]
pub(crate) const PAYLOAD_WORDS: usize = 1;
#[cfg(loom)]
pub(crate) const RESULT_WORDS: usize = 1;

/// Longest payload that travels in the descriptor itself.
pub(crate) const INLINE_PAYLOAD: usize = PAYLOAD_WORDS * 8;
/// Longest result that travels in the task slot itself.
pub(crate) const INLINE_RESULT: usize = RESULT_WORDS * 8;
/// Words of the done bitmap.
pub(crate) const BITMAP_WORDS: usize = CREDITS.div_ceil(64);
/// Frames of the backtrace in a crash report.
pub(crate) const FRAMES: usize = 32;
/// Result blocks of one lane that may be held by the host at a time.
pub(crate) const RELEASES: usize = 1024;

/// Where the payload arena begins in `inputs`.
pub(crate) const PAYLOADS_OFFSET: u64 = 4096;
/// Where the result arena begins in `up[k]`.
pub(crate) const RESULTS_OFFSET: u64 = (size_of::<Up>() as u64).next_multiple_of(4096);

/// A word that is alone on its pair of cache lines.
#[repr(C, align(128))]
#[derive(Debug)]
pub(crate) struct Line<T>(pub(crate) T);

/// The start of the `inputs` segment.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Inputs {
    pub(crate) host_epoch: HostEpoch,
}

/// What a worker has to know about its lane; written before the worker exists.
#[repr(C, align(128))]
#[derive(Debug)]
pub(crate) struct LaneConstants {
    pub(crate) magic: AtomicU64,
    pub(crate) layout_version: AtomicU32,
    pub(crate) worker: AtomicU32,
    pub(crate) incarnation: AtomicU64,
    pub(crate) threads: AtomicU32,
    pub(crate) class: AtomicU32,
    pub(crate) clock_scale: AtomicU64,
    pub(crate) inputs_size: AtomicU64,
    pub(crate) up_size: AtomicU64,
    pub(crate) max_result: AtomicU64,
    pub(crate) inline_result: AtomicU32,
    pub(crate) host_pid: AtomicU32,
    pub(crate) spin_ns: AtomicU64,
    pub(crate) reply_wait_ns: AtomicU64,
}

/// What a worker may want to know about a task; valid while the task holds the slot.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct TaskInfo {
    pub(crate) id: [AtomicU64; 2],
    pub(crate) label: [AtomicU64; 2],
    pub(crate) user_data: AtomicU64,
}

/// A `down[k]` segment: host to worker.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Down {
    pub(crate) constants: LaneConstants,
    /// The doorbell word.
    pub(crate) tail: Tail,
    /// Bytes of the result arena that are allocated and may be used.
    pub(crate) committed: Line<AtomicU64>,
    /// Released result blocks so far: entries of `released` below this are valid.
    pub(crate) released_tail: Line<AtomicU64>,
    /// By slot: the ticket whose task should stop.
    pub(crate) cancel: [AtomicU64; CREDITS],
    pub(crate) ring: Ring,
    pub(crate) info: [TaskInfo; CREDITS],
    /// Arena offsets of result blocks that the host does not need any more.
    pub(crate) released: [AtomicU64; RELEASES],
}

/// The start of an `up[k]` segment: worker to host.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Up {
    pub(crate) head: Head,
    pub(crate) sleep_epoch: SleepEpoch,
    pub(crate) bitmap: DoneBitmap,
    pub(crate) slots: [TaskSlot; CREDITS],
    /// Last, so that it moved nothing when it came.
    pub(crate) crash: CrashReport,
}

#[cfg(not(loom))]
mod shared {
    use super::{Down, Inputs, Up};
    use crate::sys::memfd::SharedLayout;

    // SAFETY: repr(C), atomics and padding only.
    unsafe impl SharedLayout for Inputs {}
    // SAFETY: repr(C), atomics and padding only.
    unsafe impl SharedLayout for Down {}
    // SAFETY: repr(C), atomics and padding only.
    unsafe impl SharedLayout for Up {}
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    // tests/hostile.rs and engine/hostile/double.rs write to these offsets: change them there, too.
    fn the_layout_is_that_of_version_3() {
        assert_eq!(LAYOUT_VERSION, 3);
        assert_eq!(size_of::<Inputs>(), 128);
        assert_eq!(offset_of!(Inputs, host_epoch), 0);

        assert_eq!(size_of::<LaneConstants>(), 128);
        assert_eq!(offset_of!(LaneConstants, magic), 0);
        assert_eq!(offset_of!(LaneConstants, layout_version), 8);
        assert_eq!(offset_of!(LaneConstants, worker), 12);
        assert_eq!(offset_of!(LaneConstants, incarnation), 16);
        assert_eq!(offset_of!(LaneConstants, threads), 24);
        assert_eq!(offset_of!(LaneConstants, class), 28);
        assert_eq!(offset_of!(LaneConstants, clock_scale), 32);
        assert_eq!(offset_of!(LaneConstants, inputs_size), 40);
        assert_eq!(offset_of!(LaneConstants, up_size), 48);
        assert_eq!(offset_of!(LaneConstants, max_result), 56);
        assert_eq!(offset_of!(LaneConstants, inline_result), 64);
        assert_eq!(offset_of!(LaneConstants, host_pid), 68);
        assert_eq!(offset_of!(LaneConstants, spin_ns), 72);
        assert_eq!(offset_of!(LaneConstants, reply_wait_ns), 80);

        assert_eq!(size_of::<TaskInfo>(), 64);
        assert_eq!(size_of::<Ring>(), 64 * CREDITS);
        assert_eq!(size_of::<TaskSlot>(), 256);
        assert_eq!(size_of::<DoneBitmap>(), 64);

        assert_eq!(offset_of!(Down, constants), 0);
        assert_eq!(offset_of!(Down, tail), 128);
        assert_eq!(offset_of!(Down, committed), 256);
        assert_eq!(offset_of!(Down, released_tail), 384);
        assert_eq!(offset_of!(Down, cancel), 512);
        assert_eq!(offset_of!(Down, ring), 512 + 4096);
        assert_eq!(offset_of!(Down, info), 4608 + 32768);
        assert_eq!(offset_of!(Down, released), 37376 + 32768);
        assert_eq!(size_of::<Down>(), 70144 + 8192);

        assert_eq!(offset_of!(Up, head), 0);
        assert_eq!(offset_of!(Up, sleep_epoch), 128);
        assert_eq!(offset_of!(Up, bitmap), 256);
        assert_eq!(offset_of!(Up, slots), 320);
        assert_eq!(offset_of!(Up, crash), 131_392);
        assert_eq!(size_of::<CrashReport>(), 320);
        assert_eq!(size_of::<Up>(), 131_712);
        assert_eq!(RESULTS_OFFSET, 135_168);
    }
}

//! What an engine says about itself.

use std::ffi::c_char;

use crate::ffi::error::guard;
use crate::ffi::handle;
use crate::ffi::host::put_text;
use crate::ffi::sized;
use crate::ffi::types::*;
use crate::{Stats, WorkerRow};

impl From<Stats> for mf_engine_stats {
    fn from(stats: Stats) -> Self {
        Self {
            size: 0, // set by `write_growable`
            degraded: u32::from(stats.degraded),
            submitted: stats.submitted,
            completed: stats.completed,
            failed: stats.failed,
            crashed: stats.crashed,
            timed_out: stats.timed_out,
            cancelled: stats.cancelled,
            would_block: stats.would_block,
            recalled: stats.recalled,
            redispatched: stats.redispatched,
            spawned: stats.spawned,
            died: stats.died,
            violations: stats.violations,
            queued: stats.queued,
            on_workers: stats.on_workers,
            unpolled: stats.unpolled,
            workers: stats.workers,
            payload_bytes: stats.payload_bytes,
            payload_capacity: stats.payload_capacity,
            retried: stats.retried,
            killed: stats.killed,
            recycled: stats.recycled,
            policy_failures: stats.policy_failures,
        }
    }
}

impl From<WorkerRow> for mf_worker_row {
    fn from(row: WorkerRow) -> Self {
        Self {
            size: 0, // set by `write_sized`
            slot: row.slot,
            pid: row.pid,
            task_class: row.class as i32,
            state: row.state as i32,
            threads: row.threads,
            depth: row.depth,
            queued: row.queued,
            running: row.running,
            cpu_permille: row.cpu_permille,
            incarnation: row.incarnation,
            completed: row.completed,
            failed: row.failed,
            crashed: row.crashed,
            busy_ns: row.busy_ns,
            service_ns: row.service_ns,
            rss_bytes: row.rss_bytes,
        }
    }
}

/// Counters of an engine.
///
/// - `engine`: the engine; also after mf_engine_stop().
/// - `stats`: receives them; its `size` is set by the caller.
///
/// Returns MF_OK, or MF_E_INVALID: not an engine, NULL, or a size that no version of
/// mf_engine_stats has. Any thread. Forked child: MF_E_INVALID. Since 0.1.
///
/// # Safety
/// `stats` is NULL or valid for as many bytes as its size says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_stats(engine: *mut mf_engine, stats: *mut mf_engine_stats) -> i32 {
    guard(|| {
        let engine = handle::find(engine)?;
        // SAFETY: the caller's word.
        unsafe { sized::write_growable(stats, &engine.stats().into(), "mf_engine_stats") }?;
        Ok(MF_OK)
    })
}

/// One row for each worker process.
///
/// - `engine`: the engine.
/// - `rows`: receives the rows, an array of elements of `row_size` bytes; may be NULL if `max` is 0.
/// - `row_size`: the caller's sizeof(mf_worker_row).
/// - `max`: the length of the array.
///
/// Returns how many workers there are: if that is more than `max`, only the first `max` rows were
/// written. Or MF_E_INVALID: not an engine, NULL, or a size that no version of mf_worker_row has.
/// Any thread. Forked child: MF_E_INVALID. Since 0.1.
///
/// # Safety
/// `rows` is NULL or valid for writes of `max * row_size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_worker_stats(
    engine: *mut mf_engine,
    rows: *mut mf_worker_row,
    row_size: usize,
    max: usize,
) -> i32 {
    guard(|| {
        let engine = handle::find(engine)?;
        sized::check_size::<mf_worker_row>(row_size, "mf_worker_row")?;
        if max > 0 {
            sized::check(rows, "rows")?;
        }
        let workers = engine.workers();
        for (index, row) in workers.iter().take(max).enumerate() {
            let place = rows.wrapping_byte_add(index * row_size);
            // SAFETY: one of the `max` elements of the caller's array; aligned, since `row_size`
            // was checked to be a multiple of the alignment.
            unsafe { sized::write_sized(place, &(*row).into(), row_size) };
        }
        Ok(i32::try_from(workers.len()).unwrap_or(i32::MAX))
    })
}

/// What the engine's parts do, as JSON: an object with the engine's state, counters, classes, workers,
/// histograms, crashes and decisions, which docs/status.md describes.
///
/// - `engine`: the engine.
/// - `buf`: receives as much of the text as fits, cut at a character, and a NUL; may be NULL if
///   `cap` is 0.
/// - `cap`: bytes at `buf`.
///
/// Returns the length of the whole text in bytes without the NUL: it was cut if that is not below
/// `cap`. Or MF_E_INVALID: not an engine, or NULL. Any thread. Forked child: MF_E_INVALID.
/// Since 0.1.
///
/// # Safety
/// `buf` is NULL or valid for writes of `cap` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_status_json(
    engine: *mut mf_engine,
    buf: *mut c_char,
    cap: usize,
) -> i32 {
    guard(|| {
        let text = handle::find(engine)?.status_json();
        // SAFETY: the caller's word.
        unsafe { put_text(&text, buf.cast(), cap) }
    })
}

/// The name by which others can watch the engine: the one in mf_config, or an automatic one.
///
/// - `engine`, `buf`, `cap`: as for mf_status_json().
///
/// Returns the length of the name in bytes without the NUL, at most 64; 0 if it has none. Or
/// MF_E_INVALID: not an engine, or NULL. Any thread. Forked child: MF_E_INVALID. Since 0.1.
///
/// # Safety
/// `buf` is NULL or valid for writes of `cap` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_engine_name(
    engine: *mut mf_engine,
    buf: *mut c_char,
    cap: usize,
) -> i32 {
    guard(|| {
        let engine = handle::find(engine)?;
        // SAFETY: the caller's word.
        unsafe { put_text(engine.name().unwrap_or_default(), buf.cast(), cap) }
    })
}

/// The engine's counters, gauges and histograms in the text format of Prometheus (0.0.4).
///
/// - `engine`, `buf`, `cap`: as for mf_status_json().
///
/// Returns the length of the whole text in bytes without the NUL: it was cut if that is not below
/// `cap`, and is of no use then. Leave room beyond that when asking again: every text is of its own
/// moment. Or MF_E_INVALID: not an engine, or NULL. Any thread. Forked child: MF_E_INVALID. Since 0.1.
///
/// # Safety
/// `buf` is NULL or valid for writes of `cap` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_metrics_text(
    engine: *mut mf_engine,
    buf: *mut c_char,
    cap: usize,
) -> i32 {
    guard(|| {
        let text = handle::find(engine)?.metrics_text();
        // SAFETY: the caller's word.
        unsafe { put_text(&text, buf.cast(), cap) }
    })
}

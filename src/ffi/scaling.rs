//! Scaling policies and their decisions, from C.

use std::ffi::{c_char, c_void};
use std::time::{Duration, SystemTime};

use crate::engine::scaling::log::{Action, Decision};
use crate::engine::scaling::{Proposal, Scaling, ScalingPolicy, Snapshot};
use crate::error::{Error, Result};
use crate::ffi::config::{
    MF_SCALING_ADAPTIVE, MF_SCALING_COMPATIBLE, MF_SCALING_CUSTOM, MF_SCALING_DEFAULT,
    MF_SCALING_FAILED, MF_SCALING_OFF, mf_config,
};
use crate::ffi::error::guard;
use crate::ffi::handle;
use crate::ffi::sized;
use crate::ffi::types::*;
use crate::status::MemoryState;

/// The scaling that a configuration asks for.
pub(crate) fn of(cfg: &mf_config) -> Result<Scaling> {
    let times = [
        cfg.scaling_interval_ns,
        cfg.scaling_max_wait_ns,
        cfg.scaling_cooldown_ns,
    ];
    let numbers = [
        cfg.scaling_load_permille,
        cfg.scaling_peak_permille,
        cfg.scaling_cpu_permille,
        cfg.scaling_idle_looks,
        cfg.memory_grow_permille,
        cfg.memory_pressure_permille,
        cfg.memory_shed_permille,
    ];
    if times.iter().any(|&t| t < 0) {
        return Err(Error::invalid("an mf_config.scaling_*_ns is negative"));
    }
    let is_custom = cfg.scaling_policy == MF_SCALING_CUSTOM;
    let mut scaling = match (cfg.scaling_policy, cfg.scaling) {
        (MF_SCALING_OFF, _) if times != [0; 3] || numbers != [0; 7] => {
            return Err(Error::invalid(
                "mf_config has a threshold of scaling without a scaling_policy",
            ));
        }
        (MF_SCALING_OFF, _) => Scaling::off(),
        (MF_SCALING_DEFAULT, _) => Scaling::by_load(),
        (MF_SCALING_COMPATIBLE, _) => Scaling::compatible(),
        (MF_SCALING_ADAPTIVE, _) => Scaling::adaptive(),
        (MF_SCALING_CUSTOM, Some(function)) => Scaling::custom(ForeignScaling {
            function,
            user: cfg.scaling_user,
        }),
        (MF_SCALING_CUSTOM, None) => {
            return Err(Error::invalid(
                "mf_config has MF_SCALING_CUSTOM, but no scaling function",
            ));
        }
        (other, _) => {
            return Err(Error::invalid(format!(
                "mf_config.scaling_policy is {other}, which is unknown"
            )));
        }
    };
    if cfg.scaling.is_some() && !is_custom {
        return Err(Error::invalid(
            "mf_config has a scaling function without MF_SCALING_CUSTOM",
        ));
    }
    // 0 = the default.
    if cfg.scaling_interval_ns != 0 {
        scaling = scaling.interval(time(cfg.scaling_interval_ns));
    }
    if cfg.scaling_max_wait_ns != 0 {
        scaling = scaling.max_wait(time(cfg.scaling_max_wait_ns));
    }
    if cfg.scaling_cooldown_ns != 0 {
        scaling = scaling.cooldown(time(cfg.scaling_cooldown_ns));
    }
    if cfg.scaling_load_permille != 0 {
        scaling = scaling.load(share(cfg.scaling_load_permille));
    }
    if cfg.scaling_peak_permille != 0 {
        scaling = scaling.peak(share(cfg.scaling_peak_permille));
    }
    if cfg.scaling_cpu_permille != 0 {
        scaling = scaling.cpu(share(cfg.scaling_cpu_permille));
    }
    if cfg.scaling_idle_looks != 0 {
        scaling = scaling.idle_looks(cfg.scaling_idle_looks);
    }
    if cfg.memory_grow_permille != 0 {
        scaling = scaling.memory(share(cfg.memory_grow_permille));
    }
    if cfg.memory_pressure_permille != 0 {
        scaling = scaling.memory_pressure(share(cfg.memory_pressure_permille));
    }
    if cfg.memory_shed_permille != 0 {
        scaling = scaling.memory_shed(share(cfg.memory_shed_permille));
    }
    if cfg.memory_refuse_permille != 0 {
        scaling = scaling.memory_refuse(share(cfg.memory_refuse_permille));
    }
    Ok(scaling)
}

fn time(ns: i64) -> Duration {
    sized::timeout(ns).unwrap_or(Duration::MAX) // negative ones are refused above
}

fn share(permille: u32) -> f32 {
    permille as f32 / 1000.0
}

type Function =
    unsafe extern "C" fn(user: *mut c_void, snapshot: *const mf_scaling_snapshot) -> i32;

/// An `mf_scaling_fn` with its argument.
struct ForeignScaling {
    function: Function,
    user: *mut c_void,
}

// SAFETY: the library only passes `user` on; the contract of `mf_scaling_fn` says that the function
// is called on a thread of the engine's, so what it points to is the caller's to guard.
unsafe impl Send for ForeignScaling {}

impl ScalingPolicy for ForeignScaling {
    fn decide(&mut self, snapshot: &Snapshot) -> Option<Proposal> {
        let mut stats = mf_engine_stats::from(snapshot.stats);
        stats.size = sized::size_field::<mf_engine_stats>();
        let snapshot = shown(snapshot, &raw const stats);
        // SAFETY: a function of this type by the word of whoever called `mf_engine_start`, with its
        // own argument, and a snapshot and counters that stay until it returns.
        let answer = unsafe { (self.function)(self.user, &raw const snapshot) };
        if answer == MF_SCALING_FAILED {
            // Not `panic!`: that would write to stderr first.
            std::panic::resume_unwind(Box::new("the scaling function says that it failed"));
        }
        let workers = u32::try_from(answer).ok()?;
        Some(Proposal::new(workers, "the scaling function says so"))
    }
}

fn shown(seen: &Snapshot, stats: *const mf_engine_stats) -> mf_scaling_snapshot {
    mf_scaling_snapshot {
        size: sized::size_field::<mf_scaling_snapshot>(),
        task_class: seen.class as i32,
        now_ns: ns(seen.now),
        min_workers: seen.min,
        max_workers: seen.max,
        target: seen.target,
        ready: seen.ready,
        starting: seen.starting,
        threads: seen.threads,
        peak: seen.peak,
        memory_state: match seen.memory_state {
            MemoryState::Ample => MF_MEMORY_AMPLE,
            MemoryState::NoGrowth => MF_MEMORY_NO_GROWTH,
            MemoryState::Shedding => MF_MEMORY_SHEDDING,
            MemoryState::Refusing => MF_MEMORY_REFUSING,
        },
        queued: seen.queued,
        on_workers: seen.on_workers,
        oldest_ns: ns(seen.oldest),
        service_ns: ns(seen.service),
        ended: seen.ended,
        cpu_permille: permille(seen.cpu),
        memory_permille: permille(seen.memory),
        pressure_permille: permille(seen.memory_pressure),
        reserved0: 0,
        stats,
    }
}

fn ns(time: Duration) -> u64 {
    sized::nanoseconds(time).cast_unsigned()
}

impl From<&Decision> for mf_scaling_decision {
    fn from(decision: &Decision) -> Self {
        let seen = &decision.snapshot;
        let since_1970 = decision.at.duration_since(SystemTime::UNIX_EPOCH);
        Self {
            size: 0, // set by `write_sized`
            task_class: seen.class as i32,
            time_ns: since_1970.map_or(0, ns),
            action: match decision.action {
                Action::Grow => MF_DECISION_GROW,
                Action::Shrink => MF_DECISION_SHRINK,
                Action::Resize => MF_DECISION_RESIZE,
                Action::Failure => MF_DECISION_FAILURE,
            },
            before: decision.before,
            after: decision.after,
            ready: seen.ready,
            starting: seen.starting,
            threads: seen.threads,
            queued: seen.queued,
            on_workers: seen.on_workers,
            oldest_ns: ns(seen.oldest),
            service_ns: ns(seen.service),
            cpu_permille: permille(seen.cpu),
            memory_permille: permille(seen.memory),
            reason: text(&decision.reason),
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the cast saturates")]
fn permille(share: Option<f32>) -> i32 {
    share.map_or(-1, |share| (share * 1000.0) as i32)
}

/// As much of a text as fits with the NUL behind it.
fn text<const N: usize>(text: &str) -> [c_char; N] {
    let mut end = text.len().min(N - 1);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut chars = [0; N];
    for (place, byte) in chars.iter_mut().zip(text[..end].bytes()) {
        *place = c_char::from_ne_bytes([byte]);
    }
    chars
}

/// The last decisions about numbers of workers, from the oldest to the newest.
///
/// - `engine`: the engine; also after mf_engine_stop().
/// - `decisions`: receives them, an array of elements of `decision_size` bytes; may be NULL if `max` is 0.
/// - `decision_size`: the caller's sizeof(mf_scaling_decision).
/// - `max`: the length of the array.
///
/// Returns how many are kept, at most 1000: if that is more than `max`, only the newest `max` were
/// written. Or MF_E_INVALID: not an engine, NULL, or a size that no version of mf_scaling_decision has.
/// Any thread. Forked child: MF_E_INVALID. Since 0.1.
///
/// # Safety
/// `decisions` is NULL or valid for writes of `max * decision_size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mf_scaling_decisions(
    engine: *mut mf_engine,
    decisions: *mut mf_scaling_decision,
    decision_size: usize,
    max: usize,
) -> i32 {
    guard(|| {
        let engine = handle::find(engine)?;
        sized::check_size::<mf_scaling_decision>(decision_size, "mf_scaling_decision")?;
        if max > 0 {
            sized::check(decisions, "decisions")?;
        }
        let kept = engine.scaling_decisions();
        let first = kept.len().saturating_sub(max);
        for (index, decision) in kept[first..].iter().enumerate() {
            let place = decisions.wrapping_byte_add(index * decision_size);
            // SAFETY: one of the `max` elements of the caller's array; aligned, since `decision_size`
            // was checked to be a multiple of the alignment.
            unsafe { sized::write_sized(place, &decision.into(), decision_size) };
        }
        Ok(i32::try_from(kept.len()).unwrap_or(i32::MAX))
    })
}

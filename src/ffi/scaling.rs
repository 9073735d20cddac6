//! Scaling policies, from C.

use std::ffi::c_void;
use std::time::Duration;

use crate::engine::scaling::{Proposal, Scaling, ScalingPolicy, Snapshot};
use crate::error::{Error, Result};
use crate::ffi::config::{
    MF_SCALING_ADAPTIVE, MF_SCALING_COMPATIBLE, MF_SCALING_CUSTOM, MF_SCALING_DEFAULT,
    MF_SCALING_OFF, mf_config,
};
use crate::ffi::sized;
use crate::ffi::types::*;

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
    ];
    if times.iter().any(|&t| t < 0) {
        return Err(Error::invalid("an mf_config.scaling_*_ns is negative"));
    }
    let is_custom = cfg.scaling_policy == MF_SCALING_CUSTOM;
    let mut scaling = match (cfg.scaling_policy, cfg.scaling) {
        (MF_SCALING_OFF, _) if times != [0; 3] || numbers != [0; 4] => {
            return Err(Error::invalid(
                "mf_config has a scaling_* threshold without a scaling_policy",
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
    Ok(scaling)
}

fn time(ns: i64) -> Duration {
    sized::timeout(ns).unwrap_or(Duration::MAX) // negative ones are refused above
}

fn share(permille: u32) -> f32 {
    permille as f32 / 1000.0
}

type Function = unsafe extern "C" fn(
    user: *mut c_void,
    task_class: mf_class,
    stats: *const mf_engine_stats,
    workers: u32,
) -> i32;

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
        // SAFETY: a function of this type by the word of whoever called `mf_engine_start`, with its
        // own argument and counters that stay until it returns.
        let answer = unsafe {
            (self.function)(
                self.user,
                snapshot.class as i32,
                &raw const stats,
                snapshot.target,
            )
        };
        let workers = u32::try_from(answer).ok()?;
        Some(Proposal::new(workers, "the scaling function says so"))
    }
}

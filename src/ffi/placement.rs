//! Where workers run and how, from C.

use crate::config::Builder;
use crate::error::{Error, Result};
use crate::ffi::config::{mf_class_config, mf_config};
use crate::ffi::sized;
use crate::placement::{Affinity, HugePages, IoPriority, Scheduler};
use crate::task::Class;

/// In mf_config.affinity: workers run where the thread may run that calls mf_engine_start(); the
/// default. In mf_class_affinity.affinity: as mf_config.affinity.
pub const MF_AFFINITY_NONE: i32 = 0;
/// In mf_config.affinity: each worker runs on as many processors as it has threads, which have an L3
/// cache in common if one has so many; workers are spread over NUMA nodes, caches and cores.
pub const MF_AFFINITY_SPREAD: i32 = 1;
/// In mf_config.affinity: as in mf_config.affinity_cpus.
pub const MF_AFFINITY_LIST: i32 = 2;
/// In mf_config.affinity: workers run on the processors of NUMA node mf_config.affinity_node, whose
/// memory they prefer.
pub const MF_AFFINITY_NODE: i32 = 3;

/// In mf_class_config.scheduler: as the thread that calls mf_engine_start(); the default.
pub const MF_SCHEDULER_INHERIT: i32 = 0;
/// In mf_class_config.scheduler: SCHED_OTHER.
pub const MF_SCHEDULER_NORMAL: i32 = 1;
/// In mf_class_config.scheduler: SCHED_BATCH.
pub const MF_SCHEDULER_BATCH: i32 = 2;
/// In mf_class_config.scheduler: SCHED_IDLE.
pub const MF_SCHEDULER_IDLE: i32 = 3;

/// In mf_class_config.io_priority: as the thread that calls mf_engine_start(); the default.
pub const MF_IO_INHERIT: i32 = 0;
/// In mf_class_config.io_priority: plus a level from 0, served first, to 7. This and MF_IO_IDLE are
/// the numbers of ioprio_set(2).
pub const MF_IO_BEST_EFFORT: i32 = 0x4000;
/// In mf_class_config.io_priority: served when nobody else wants anything of the disk.
pub const MF_IO_IDLE: i32 = 0x6000;

/// In mf_config.huge_pages: as the kernel likes it; the default.
pub const MF_HUGE_PAGES_OFF: u32 = 0;
/// In mf_config.huge_pages: payloads and results in shared memory lie in transparent huge pages, if
/// /sys/kernel/mm/transparent_hugepage/shmem_enabled allows that.
pub const MF_HUGE_PAGES_ADVISE: u32 = 1;

/// An affinity of one class. Part of mf_config, frozen: 24 bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct mf_class_affinity {
    /// MF_AFFINITY_*; 0 = as mf_config.affinity.
    pub affinity: i32,
    /// For MF_AFFINITY_NODE.
    pub node: u32,
    /// For MF_AFFINITY_LIST, as mf_config.affinity_cpus, but counted from the class's first worker.
    pub cpus: *const u32,
    /// How many cpus there are.
    pub count: usize,
}

const _: () = assert!(size_of::<mf_class_affinity>() == 24);

/// Longer lists are nonsense: they repeat themselves.
const MOST_CPUS: usize = 1 << 16;

/// Adds the settings of the placement.
///
/// # Safety
/// The lists of processors are NULL or as long as they are said to be.
pub(crate) unsafe fn of(cfg: &mf_config, mut builder: Builder) -> Result<Builder> {
    let all = mf_class_affinity {
        affinity: cfg.affinity,
        node: cfg.affinity_node,
        cpus: cfg.affinity_cpus,
        count: cfg.affinity_count,
    };
    // SAFETY: the caller's word.
    let all = unsafe { affinity(&all, "mf_config.affinity") }?;
    for (class, own) in Class::ALL.into_iter().zip(&cfg.class_affinity) {
        // SAFETY: the caller's word.
        let own = unsafe { affinity(own, "mf_config.class_affinity") }?;
        let chosen = if own == Affinity::None {
            all.clone()
        } else {
            own
        };
        let c = &cfg.classes[class.index()];
        builder = builder
            .affinity(class, chosen)
            .nice(class, c.nice)
            .scheduler(class, scheduler(c)?)
            .io_priority(class, io_priority(c)?);
    }
    Ok(builder.huge_pages(match cfg.huge_pages {
        MF_HUGE_PAGES_OFF => HugePages::Off,
        MF_HUGE_PAGES_ADVISE => HugePages::Advise,
        other => return Err(unknown("mf_config.huge_pages", other)),
    }))
}

/// # Safety
/// `cpus` is NULL or an array of `count`.
unsafe fn affinity(from: &mf_class_affinity, what: &str) -> Result<Affinity> {
    let stray = |bad: bool, of: &str, without: &str| match bad {
        true => Err(Error::invalid(format!(
            "{what} has {of}, but is not {without}"
        ))),
        false => Ok(()),
    };
    let is = |kind| from.affinity == kind;
    stray(
        from.count != 0 && !is(MF_AFFINITY_LIST),
        "processors",
        "MF_AFFINITY_LIST",
    )?;
    stray(
        from.node != 0 && !is(MF_AFFINITY_NODE),
        "a node",
        "MF_AFFINITY_NODE",
    )?;
    match from.affinity {
        MF_AFFINITY_NONE => Ok(Affinity::None),
        MF_AFFINITY_SPREAD => Ok(Affinity::Spread),
        MF_AFFINITY_NODE => Ok(Affinity::Node(from.node)),
        MF_AFFINITY_LIST if from.count > MOST_CPUS => Err(Error::invalid(format!(
            "{what} has {} processors, more than {MOST_CPUS}",
            from.count
        ))),
        MF_AFFINITY_LIST => {
            let cpus = (0..from.count).map(|index| {
                // SAFETY: an element of the caller's array; NULL is looked for.
                unsafe { sized::read(from.cpus.wrapping_add(index), what) }
            });
            Ok(Affinity::List(cpus.collect::<Result<_>>()?))
        }
        other => Err(unknown(what, other)),
    }
}

fn scheduler(class: &mf_class_config) -> Result<Scheduler> {
    match class.scheduler {
        MF_SCHEDULER_INHERIT => Ok(Scheduler::Inherit),
        MF_SCHEDULER_NORMAL => Ok(Scheduler::Normal),
        MF_SCHEDULER_BATCH => Ok(Scheduler::Batch),
        MF_SCHEDULER_IDLE => Ok(Scheduler::Idle),
        other => Err(unknown("mf_class_config.scheduler", other)),
    }
}

fn io_priority(class: &mf_class_config) -> Result<IoPriority> {
    match class.io_priority {
        MF_IO_INHERIT => Ok(IoPriority::Inherit),
        MF_IO_IDLE => Ok(IoPriority::Idle),
        other => match u8::try_from(other.wrapping_sub(MF_IO_BEST_EFFORT)) {
            Ok(level @ 0..=7) => Ok(IoPriority::BestEffort(level)),
            _ => Err(unknown("mf_class_config.io_priority", other)),
        },
    }
}

fn unknown(what: &str, value: impl std::fmt::Display) -> Error {
    Error::invalid(format!("{what} is {value}, which is unknown"))
}

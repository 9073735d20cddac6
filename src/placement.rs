//! Where workers run and with what priority: settings only, `engine::placement` makes seats of them
//! and `sys::placement` takes them.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};

/// Which processors the workers of a class run on.
///
/// A worker gets as many processors as it has threads, and any of its threads may run on any of them.
/// Only processors that the thread may use that starts the engine are given out: its affinity, and
/// with it the cpuset of its control group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Affinity {
    /// Those that the thread may use that starts the engine.
    #[default]
    None,
    /// Spread over the machine: on different NUMA nodes and L3 caches in turn, and on cores of their
    /// own before two workers share a core. The processors of one worker have an L3 cache in common,
    /// if one has so many, or else a node. If both classes are spread, they are seated together.
    Spread,
    /// In turn on those of this list, from its start. If both classes have the same list, the CPU-bound
    /// workers come first, and the IO-bound ones go on where they end.
    List(Vec<u32>),
    /// All those of this NUMA node, whose memory the workers prefer.
    Node(u32),
}

/// How the kernel's scheduler treats the workers of a class; see sched(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Scheduler {
    /// As it treats the thread that starts the engine.
    #[default]
    Inherit,
    /// `SCHED_OTHER`, the usual one.
    Normal,
    /// `SCHED_BATCH`: taken for busy with computing, so that others are interrupted less for them.
    Batch,
    /// `SCHED_IDLE`: next to nothing while anybody else has something to do.
    Idle,
}

/// When the disk serves the workers of a class, if its scheduler heeds that (BFQ, mq-deadline); see
/// ioprio_set(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum IoPriority {
    /// As it serves the thread that starts the engine; if nothing is set there, by the niceness.
    #[default]
    Inherit,
    /// Before others of this kind with a higher number: 0 to 7.
    BestEffort(u8),
    /// When nobody else wants anything of it.
    Idle,
}

/// Whether payloads and results in shared memory lie in huge pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum HugePages {
    /// As the kernel likes it.
    #[default]
    Off,
    /// The kernel is asked for them. It can grant that if
    /// `/sys/kernel/mm/transparent_hugepage/shmem_enabled` is not `never`.
    Advise,
}

/// The place of a class.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Placement {
    pub(crate) affinity: Affinity,
    /// Added to the niceness of the thread that starts the engine.
    pub(crate) nice: i32,
    pub(crate) scheduler: Scheduler,
    pub(crate) io_priority: IoPriority,
}

impl Placement {
    /// Refuses what no machine can do. What this one cannot do is left out, with a note.
    pub(crate) fn validate(&self, class: &str) -> Result<()> {
        if !(-20..=19).contains(&self.nice) {
            return Err(Error::invalid(format!(
                "nice of class {class} is {}, not in -20..=19",
                self.nice
            )));
        }
        if self.affinity == Affinity::List(Vec::new()) {
            return Err(Error::invalid(format!(
                "the list of processors of class {class} is empty"
            )));
        }
        if let IoPriority::BestEffort(level @ 8..) = self.io_priority {
            return Err(Error::invalid(format!(
                "the I/O priority of class {class} is {level}, not in 0..=7"
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_machine_can_do_is_refused_by_name() {
        let refused = |placement: Placement, word: &str| {
            let text = placement.validate("io").unwrap_err().to_string();
            assert!(text.contains(word) && text.contains("class io"), "{text}");
        };
        let usual = Placement::default;
        for nice in [-21, 20, i32::MIN] {
            refused(Placement { nice, ..usual() }, "nice");
        }
        let affinity = Affinity::List(Vec::new());
        refused(
            Placement {
                affinity,
                ..usual()
            },
            "processors",
        );
        let io_priority = IoPriority::BestEffort(8);
        refused(
            Placement {
                io_priority,
                ..usual()
            },
            "I/O",
        );
        let extreme = Placement {
            affinity: Affinity::List(vec![u32::MAX]),
            nice: -20,
            scheduler: Scheduler::Idle,
            io_priority: IoPriority::BestEffort(7),
        };
        assert!(
            extreme.validate("io").is_ok(),
            "others may have such machines"
        );
        assert!(usual().validate("io").is_ok());
    }
}

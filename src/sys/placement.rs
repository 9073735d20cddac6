//! Taking a seat: this process's processors, memory and priorities. All of it survives an exec, and
//! threads and children inherit it.

use std::fs;
use std::io;

use rustix::io::Errno;
use rustix::process::{Pid, getpriority_process, setpriority_process};

use crate::placement::{IoPriority, Scheduler};
use crate::sys::cpuset::{self, Cpus};
use crate::sys::numa::{self, checked};

/// Where one worker runs, and how. The default changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Seat {
    /// None: as inherited.
    pub(crate) cpus: Cpus,
    /// The NUMA node whose memory is preferred.
    pub(crate) node: Option<u32>,
    /// Added to what is inherited.
    pub(crate) nice: i32,
    pub(crate) scheduler: Scheduler,
    pub(crate) io_priority: IoPriority,
}

/// What may be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Affinity,
    Memory,
    Nice,
    Scheduler,
    IoPriority,
}

impl Step {
    pub(crate) const ALL: [Self; 5] = [
        Self::Affinity,
        Self::Memory,
        Self::Nice,
        Self::Scheduler,
        Self::IoPriority,
    ];

    /// What a worker could not do, why, and what can be done about it.
    pub(crate) fn refusal(self, seat: &Seat, errno: i32) -> String {
        let (call, what, remedy) = match self {
            Self::Affinity => (
                "sched_setaffinity",
                format!("run on processors {} only", seat.cpus),
                match errno {
                    libc::EINVAL => {
                        "; none of them may be used any more (see cpuset.cpus of the cgroup)"
                    }
                    _ => "",
                },
            ),
            Self::Memory => (
                "set_mempolicy",
                match seat.node {
                    Some(node) => format!("prefer the memory of node {node}"),
                    None => "prefer the memory of a node".into(),
                },
                match errno {
                    libc::EPERM => "; a container may need CAP_SYS_NICE for that",
                    libc::ENOSYS => "; the kernel has no CONFIG_NUMA",
                    _ => "",
                },
            ),
            Self::Nice => (
                "setpriority",
                format!("change their niceness by {:+}", seat.nice),
                match errno {
                    libc::EACCES | libc::EPERM => {
                        "; give the host CAP_SYS_NICE or raise RLIMIT_NICE (ulimit -e)"
                    }
                    _ => "",
                },
            ),
            Self::Scheduler => (
                "sched_setscheduler",
                format!("change their scheduling policy to {:?}", seat.scheduler),
                match errno {
                    libc::EPERM => "; give the host CAP_SYS_NICE or raise RLIMIT_NICE (ulimit -e)",
                    _ => "",
                },
            ),
            Self::IoPriority => (
                "ioprio_set",
                format!("change their I/O priority to {:?}", seat.io_priority),
                "",
            ),
        };
        let error = io::Error::from_raw_os_error(errno);
        format!("cannot {what}: {call}: {error}{remedy}")
    }
}

/// Words of a seat on its way to another process.
pub(crate) const SEAT_WORDS: usize = 3 + cpuset::WORDS;

impl Seat {
    pub(crate) fn to_words(self) -> [u64; SEAT_WORDS] {
        let mut words = [0; SEAT_WORDS];
        words[0] = u64::from(self.nice.cast_unsigned());
        words[1] = self.node.map_or(0, |node| u64::from(node) + 1);
        let io_priority = match self.io_priority {
            IoPriority::Inherit => 0,
            IoPriority::BestEffort(level) => 1 + u64::from(level),
            IoPriority::Idle => u64::from(u32::MAX),
        };
        words[2] = io_priority << 8 | self.scheduler as u64;
        words[3..].copy_from_slice(self.cpus.words());
        words
    }

    pub(crate) fn from_words(words: [u64; SEAT_WORDS]) -> Option<Self> {
        let [nice, node, priorities, cpus @ ..] = words;
        Some(Self {
            cpus: Cpus::from_words(cpus),
            node: match node {
                0 => None,
                node => Some(u32::try_from(node - 1).ok()?),
            },
            nice: u32::try_from(nice).ok()?.cast_signed(),
            scheduler: match priorities & 0xff {
                0 => Scheduler::Inherit,
                1 => Scheduler::Normal,
                2 => Scheduler::Batch,
                3 => Scheduler::Idle,
                _ => return None,
            },
            io_priority: match u32::try_from(priorities >> 8).ok()? {
                0 => IoPriority::Inherit,
                u32::MAX => IoPriority::Idle,
                level => IoPriority::BestEffort(u8::try_from(level - 1).ok()?),
            },
        })
    }
}

/// Seats every thread of this process, of which there should be one. What is refused is left as it
/// was; those steps, each once, and the error numbers.
pub(crate) fn apply(seat: &Seat) -> Vec<(Step, i32)> {
    let mut refused = Vec::new();
    if *seat == Seat::default() {
        return refused;
    }
    for thread in threads() {
        for step in Step::ALL {
            if let Err(errno) = take(seat, step, thread)
                && !refused.iter().any(|&(known, _)| known == step)
            {
                refused.push((step, errno.raw_os_error()));
            }
        }
    }
    refused
}

/// The threads of this process; `None` is the calling one, and the only one if `/proc` does not tell.
fn threads() -> Vec<Option<Pid>> {
    let entries = fs::read_dir("/proc/self/task").into_iter().flatten();
    let ids = entries.filter_map(|entry| {
        let id = entry.ok()?.file_name().to_str()?.parse().ok()?;
        Pid::from_raw(id)
    });
    among(&ids.collect::<Vec<_>>(), rustix::thread::gettid())
}

/// `ids` without the calling thread's own, `me`. If that is not among them, they are numbers of another pid
/// namespace (a `/proc` from outside of a container), and in this one of other processes' threads.
fn among(ids: &[Pid], me: Pid) -> Vec<Option<Pid>> {
    if !ids.contains(&me) {
        return vec![None];
    }
    ids.iter().map(|&id| (id != me).then_some(id)).collect()
}

/// One step for one thread.
fn take(seat: &Seat, step: Step, thread: Option<Pid>) -> Result<(), Errno> {
    let id = thread.map_or(0, |pid| pid.as_raw_nonzero().get());
    match step {
        Step::Affinity if !seat.cpus.is_empty() => seat.cpus.confine(thread),
        // Of the calling thread only: there is no call for another one.
        Step::Memory if thread.is_none() => match seat.node {
            Some(node) => numa::prefer(node),
            None => Ok(()),
        },
        Step::Nice if seat.nice != 0 => getpriority_process(thread)
            .and_then(|now| setpriority_process(thread, (now + seat.nice).clamp(-20, 19))),
        Step::Scheduler => match seat.scheduler {
            Scheduler::Inherit => Ok(()),
            Scheduler::Normal => set_scheduler(id, libc::SCHED_OTHER),
            Scheduler::Batch => set_scheduler(id, libc::SCHED_BATCH),
            Scheduler::Idle => set_scheduler(id, libc::SCHED_IDLE),
        },
        Step::IoPriority => match seat.io_priority {
            IoPriority::Inherit => Ok(()),
            IoPriority::BestEffort(level) => set_io_priority(id, 2, level),
            IoPriority::Idle => set_io_priority(id, 3, 0),
        },
        _ => Ok(()),
    }
}

/// By number: the function of that name does nothing in musl.
fn set_scheduler(thread: i32, policy: i32) -> Result<(), Errno> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: `parameters` is what this call reads and outlives it; a thread's id and a policy are
    // numbers that the kernel checks.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_sched_setscheduler,
            thread,
            policy,
            &raw const parameters,
        )
    };
    checked(answer)
}

fn set_io_priority(thread: i32, class: u32, level: u8) -> Result<(), Errno> {
    const WHO_PROCESS: i32 = 1; // a thread, in fact
    let priority = class << 13 | u32::from(level);
    // SAFETY: three numbers, which the kernel checks.
    checked(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, thread, priority) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_arrives_as_it_was_sent() {
        let full = Seat {
            cpus: Cpus::parse("0,63-64,1023"),
            node: Some(u32::MAX),
            nice: -20,
            scheduler: Scheduler::Idle,
            io_priority: IoPriority::BestEffort(7),
        };
        let others = [
            Seat::default(),
            Seat {
                node: Some(0),
                nice: 19,
                scheduler: Scheduler::Batch,
                ..Seat::default()
            },
            Seat {
                io_priority: IoPriority::Idle,
                scheduler: Scheduler::Normal,
                ..Seat::default()
            },
            Seat {
                io_priority: IoPriority::BestEffort(0),
                ..Seat::default()
            },
        ];
        for seat in others.into_iter().chain([full]) {
            assert_eq!(Seat::from_words(seat.to_words()), Some(seat));
        }
        for (word, nonsense) in [
            (0, 1 << 32),
            (1, u64::MAX),
            (2, 4),
            (2, 1000 << 8),
            (2, u64::MAX),
        ] {
            let mut words = full.to_words();
            words[word] = nonsense;
            assert_eq!(Seat::from_words(words), None, "{word} {nonsense}");
        }
    }

    #[test]
    fn threads_with_the_numbers_of_another_pid_namespace_are_left_alone() {
        let [me, sibling, stranger] = [7, 8, 9].map(|id| Pid::from_raw(id).unwrap());
        assert_eq!(among(&[me, sibling], me), [None, Some(sibling)]);
        assert_eq!(among(&[stranger], me), [None]);
        assert_eq!(among(&[], me), [None]);
        assert!(threads().contains(&None));
    }

    #[test]
    fn what_is_refused_is_left_and_the_rest_is_done() {
        let seat = Seat {
            cpus: Cpus::parse("1023"), // which this machine does not have
            nice: 1,
            ..Seat::default()
        };
        let thread = move || {
            let before = (
                Cpus::allowed(None).unwrap(),
                getpriority_process(None).unwrap(),
            );
            let refused: Vec<_> = (Step::ALL.into_iter())
                .filter_map(|step| Some((step, take(&seat, step, None).err()?)))
                .collect();
            let after = (
                Cpus::allowed(None).unwrap(),
                getpriority_process(None).unwrap(),
            );
            (before, refused, after)
        };
        let (before, refused, after) = std::thread::spawn(thread).join().unwrap();
        assert_eq!(refused, [(Step::Affinity, Errno::INVAL)]);
        assert_eq!(after, (before.0, (before.1 + 1).min(19)));
    }

    #[test]
    fn every_refusal_says_what_was_refused_by_what_and_what_to_do() {
        let seat = Seat {
            cpus: Cpus::parse("3-4"),
            node: Some(7),
            nice: -5,
            ..Seat::default()
        };
        for (step, errno, words) in [
            (
                Step::Affinity,
                libc::EINVAL,
                ["processors 3-4", "sched_setaffinity", "cpuset"],
            ),
            (
                Step::Memory,
                libc::EPERM,
                ["node 7", "set_mempolicy", "CAP_SYS_NICE"],
            ),
            (
                Step::Nice,
                libc::EACCES,
                ["by -5", "setpriority", "RLIMIT_NICE"],
            ),
            (
                Step::Scheduler,
                libc::EPERM,
                ["policy", "sched_setscheduler", "CAP_SYS_NICE"],
            ),
            (
                Step::IoPriority,
                libc::EPERM,
                ["I/O", "ioprio_set", "not permitted"],
            ),
        ] {
            let text = step.refusal(&seat, errno);
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        }
    }
}

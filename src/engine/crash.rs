//! What a worker's death means for the tasks that it ran: how it died, which task's thread it was,
//! and the words for it.
//!
//! The worker's own report is believed only as far as the host's records agree with it: the signal
//! must be the one that the process died of, the task must have been out on that very lane.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};

use crate::engine::core::Core;
use crate::engine::lane::Lane;
use crate::engine::modules::Modules;
use crate::engine::symbols::Trace;
use crate::engine::task_table::TaskTable;
use crate::shm::crash::{CrashFacts, SEVERAL};
use crate::shm::layout::CREDITS;
use crate::sys::process::{Exit, signal_name};
use crate::task::TaskId;

/// What is being found out about one worker.
#[derive(Debug, Default)]
pub(crate) struct Inquest {
    /// Where the code of a worker program came from.
    pub(crate) modules: Option<Arc<Modules>>,
    pub(crate) findings: Option<Findings>,
}

/// What is known of a death.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// The worker's report, if there is one that agrees with its end.
    pub(crate) facts: Option<Arc<CrashFacts>>,
    /// What its backtrace says, once that is known.
    pub(crate) trace: Arc<OnceLock<Trace>>,
}

impl Findings {
    /// Reads the report of a worker that has ended.
    pub(crate) fn of(lane: &Lane, exit: Exit) -> Self {
        let facts = lane.shared.up().crash.read();
        let agrees = |facts: &CrashFacts| match exit {
            Exit::Signal(signal) => signal == facts.signal,
            Exit::Code(_) => false, // somebody knew what to do about the signal
            Exit::Unknown => !lane.killed,
        };
        Self {
            facts: facts.filter(agrees).map(Arc::new),
            trace: Arc::default(),
        }
    }
}

/// The task in whose thread a worker crashed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Convicted {
    pub(crate) index: u32,
    pub(crate) id: TaskId,
}

impl Convicted {
    /// The task that the report means, if the worker had started it.
    pub(crate) fn by(facts: &CrashFacts, table: &TaskTable, lane: &Lane) -> Option<Self> {
        let (_, index) = started_on(lane).find(|&(ticket, _)| ticket == facts.ticket)?;
        Some(Self {
            index,
            id: table.get(index).id,
        })
    }
}

/// Tickets and task-table slots of what the worker has started, as it says, and not ended.
fn started_on(lane: &Lane) -> impl Iterator<Item = (u64, u32)> {
    let out = (0..CREDITS).filter_map(|slot| lane.collector.outstanding_at(slot));
    out.filter_map(|(slot, ticket)| {
        let slot = usize::from(slot);
        lane.shared.up().slots[slot].started(ticket)?;
        Some((ticket, lane.tasks[slot]))
    })
}

/// For the log, to go behind what is said about a worker: the tasks that it runs, but for the one that
/// was named already.
pub(crate) fn running_tasks(table: &TaskTable, lane: &Lane, named: Option<Convicted>) -> String {
    const MOST: usize = 8;
    let others =
        started_on(lane).filter(|&(_, index)| named.is_none_or(|task| task.index != index));
    let ids: Vec<String> = others
        .map(|(_, index)| table.get(index).id.to_string())
        .collect();
    let word = match (named.is_some(), ids.len()) {
        (_, 0) => return String::new(),
        (true, _) => "beside",
        (false, 1) => "running task",
        (false, _) => "running tasks",
    };
    let more = match ids.len().saturating_sub(MOST) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(", {word} {}{more}", ids[..ids.len().min(MOST)].join(", "))
}

/// How a worker ended, and by whose fault.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) exit: Exit,
    pub(crate) facts: Option<Arc<CrashFacts>>,
    pub(crate) convicted: Option<Convicted>,
    /// The function that crashed.
    pub(crate) place: Option<String>,
}

impl Verdict {
    /// All that is known without a report.
    pub(crate) fn unreported(exit: Exit) -> Self {
        Self {
            exit,
            facts: None,
            convicted: None,
            place: None,
        }
    }

    /// On a worker that has ended; its tasks are not settled yet.
    pub(crate) fn of(core: &Core, lane: &Lane, exit: Exit) -> Self {
        let unreported = Self::unreported(exit);
        let Some(Findings {
            facts: Some(facts),
            trace,
        }) = &lane.inquest.findings
        else {
            return unreported;
        };
        let convicted = Convicted::by(facts, &core.table, lane);
        if convicted.is_none() && !matches!(facts.ticket, 0 | SEVERAL) {
            // Of a task that was not running: nonsense, or of a fault that a handler of the host's
            // put right long ago.
            return unreported;
        }
        Self {
            exit: match exit {
                Exit::Unknown => Exit::Signal(facts.signal),
                known => known,
            },
            convicted,
            place: trace.get().and_then(|trace| trace.place.clone()),
            facts: Some(Arc::clone(facts)),
        }
    }

    /// Whether this task is known to be the one that crashed.
    pub(crate) fn convicts(&self, index: u32) -> bool {
        self.convicted.is_some_and(|task| task.index == index)
    }

    /// `died of SIGSEGV at 0x0`
    pub(crate) fn how(&self) -> String {
        let mut text = match self.exit {
            Exit::Signal(signal) => format!("died of {}", signal_name(signal)),
            Exit::Code(code) => format!("exited with code {code}"),
            Exit::Unknown => "died of an unknown signal".to_owned(),
        };
        if let Some(address) = self.fault_address() {
            let _ = write!(text, " at {address:#x}"); // a string takes everything
        }
        text
    }

    /// The address that the fault is about, if it is about one and the kernel knows it.
    pub(crate) fn fault_address(&self) -> Option<u64> {
        const SI_KERNEL: i32 = 128; // on x86-64: an address that no mapping can have
        let facts = self.facts.as_ref()?;
        let known = facts.code > 0 && (facts.signal, facts.code) != (libc::SIGSEGV, SI_KERNEL);
        known.then_some(facts.address)
    }

    /// How one of the tasks that the worker ran has to do with it, to go behind "running task ...,
    /// attempt ...".
    pub(crate) fn involvement(&self, index: u32) -> String {
        let place = match &self.place {
            Some(place) => format!(" in {place}"),
            None => String::new(),
        };
        match (&self.convicted, &self.facts) {
            (Some(task), _) if task.index == index && place.is_empty() => String::new(),
            (Some(task), _) if task.index == index => format!(",{place}"),
            (Some(task), _) => format!(", beside task {}, which crashed{place}", task.id),
            (None, Some(facts)) => {
                let thread = match facts.ticket {
                    SEVERAL => "that had several tasks in hand",
                    _ => "that took no task",
                };
                let comma = if place.is_empty() { "" } else { "," };
                format!(", on a thread {thread}{comma}{place}")
            }
            (None, None) => String::new(),
        }
    }

    /// The line for the log, if there was a report.
    pub(crate) fn headline(&self, worker: u32, pid: u32) -> Option<String> {
        let facts = self.facts.as_ref()?;
        let mut text = format!("worker {worker} (pid {pid}) {}", self.how());
        let _ = write!(text, " in thread {}", facts.thread); // as above
        if let Some(task) = &self.convicted {
            let _ = write!(text, " running task {}", task.id);
        }
        if let Some(place) = &self.place {
            let _ = write!(text, ", in {place}");
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(signal: i32, code: i32, convicted: Option<u32>, place: Option<&str>) -> Verdict {
        Verdict {
            exit: Exit::Signal(signal),
            facts: Some(Arc::new(CrashFacts {
                signal,
                code,
                address: 0x10,
                thread: 1,
                ticket: 0,
                pc: 0,
                frames: Vec::new(),
            })),
            convicted: convicted.map(|index| Convicted {
                index,
                id: TaskId::from_bytes([7; 16]),
            }),
            place: place.map(str::to_owned),
        }
    }

    #[test]
    fn the_address_is_named_only_if_there_is_one() {
        let how = |signal, code| verdict(signal, code, None, None).how();
        assert_eq!(how(libc::SIGSEGV, 1), "died of SIGSEGV at 0x10");
        assert_eq!(how(libc::SIGSEGV, 128), "died of SIGSEGV", "non-canonical");
        assert_eq!(how(libc::SIGSEGV, 0), "died of SIGSEGV", "sent");
        assert_eq!(how(libc::SIGABRT, -6), "died of SIGABRT");
        assert_eq!(how(libc::SIGBUS, 2), "died of SIGBUS at 0x10");
    }

    #[test]
    fn only_the_convicted_task_is_said_to_have_crashed() {
        let known = verdict(libc::SIGSEGV, 1, Some(3), Some("f (a.c:1)"));
        let id = TaskId::from_bytes([7; 16]);
        assert_eq!(known.involvement(3), ", in f (a.c:1)");
        assert_eq!(
            known.involvement(4),
            format!(", beside task {id}, which crashed in f (a.c:1)")
        );
        assert!(known.convicts(3) && !known.convicts(4));
        let nameless = verdict(libc::SIGSEGV, 1, Some(3), None);
        assert_eq!(nameless.involvement(3), "");
        assert_eq!(
            nameless.involvement(4),
            format!(", beside task {id}, which crashed")
        );
        let stray = verdict(libc::SIGSEGV, 1, None, Some("f"));
        assert_eq!(
            stray.involvement(3),
            ", on a thread that took no task, in f"
        );
    }
}

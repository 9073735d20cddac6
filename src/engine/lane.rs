//! One worker as the host sees it: its lane, its process, and what is out on it.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::crash::Inquest;
use crate::engine::policy::Candidate;
use crate::shm::doorbell;
use crate::shm::layout::CREDITS;
use crate::shm::ring::{self, Message};
use crate::shm::segments::HostLane;
use crate::shm::slot::Collector;
use crate::status::now_ms;
use crate::sys::event::Event;
use crate::sys::process::{Exit, Process};
use crate::sys::socket::Socket;
use crate::task::{Class, TaskId};
use crate::worker::link::ToWorker;

/// About what a hand-off to a sleeping worker costs: a lane holds tasks for this long in advance,
/// so that its worker need not wait for the next one.
const HANDOFF_NS: u64 = 100_000;
/// Tasks of this length lose so little by a hand-off that none is held in advance: it would wait
/// behind one that runs while another worker becomes free.
const LONG_NS: u64 = 20 * HANDOFF_NS;
/// One batch of completions moves the average service time by 1/8 of the difference.
const SMOOTHING: u32 = 3;

/// The life of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LaneState {
    /// Asked for; not ready to take tasks.
    Starting,
    Ready,
    /// Gets no new tasks and leaves when it has finished.
    Draining,
    /// Told to leave.
    Leaving,
}

/// Why the engine ends a worker that did not ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doom {
    /// This task ran beyond its deadline.
    Late(TaskId),
    /// This task was cancelled by force.
    Cancelled(TaskId),
    /// It was stopped for so long.
    Stopped(Duration),
    /// It left tasks unstarted for so long.
    Silent(Duration),
    /// It wrote what no worker writes.
    Violation(&'static str),
}

impl Doom {
    /// Whether a task is to blame, and not the worker.
    pub(crate) fn is_for_a_task(self) -> bool {
        matches!(self, Self::Late(_) | Self::Cancelled(_))
    }
}

impl fmt::Display for Doom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late(task) => write!(f, "was killed because task {task} missed its deadline"),
            Self::Cancelled(task) => {
                write!(f, "was killed because task {task} was cancelled by force")
            }
            Self::Stopped(span) => write!(f, "was killed because it was stopped for {span:?}"),
            Self::Silent(span) => {
                write!(
                    f,
                    "was killed because it started none of its tasks for {span:?}"
                )
            }
            Self::Violation(what) => write!(f, "was killed because it broke the protocol: {what}"),
        }
    }
}

/// One incarnation of a worker.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) worker: u32,
    pub(crate) incarnation: u64,
    pub(crate) class: Class,
    pub(crate) threads: u32,
    pub(crate) state: LaneState,
    pub(crate) state_since: Instant,
    pub(crate) shared: Arc<HostLane>,
    pub(crate) event: Event,
    pub(crate) control: Socket,
    pub(crate) process: Option<Process>,
    /// It said hello before the zygote said that it exists.
    pub(crate) greeted: bool,
    /// The parts of its seat that it was refused, a bit each.
    pub(crate) refused: u8,
    /// Set once the zygote has reported it.
    pub(crate) exit: Option<Exit>,
    /// When the pidfd became readable.
    pub(crate) ended: Option<Instant>,
    pub(crate) killed: bool,
    pub(crate) doom: Option<Doom>,
    /// When the grace of a doomed worker ends.
    pub(crate) kill_at: Option<Instant>,
    pub(crate) inquest: Inquest,
    /// It broke the protocol: nothing that it wrote counts any more.
    pub(crate) violated: bool,
    /// Signals of its eventfd so far.
    pub(crate) signals: u64,
    /// It was asked to hand tasks back.
    pub(crate) asked_back: bool,
    pub(crate) started_at: Instant,
    /// The same in milliseconds since 1970.
    pub(crate) started_ms: i64,
    pub(crate) collector: Collector,
    producer: ring::Producer,
    bell: doorbell::Producer,
    /// Published descriptors that the doorbell has not announced.
    unannounced: bool,
    /// Task-table slots by credit.
    pub(crate) tasks: Box<[u32; CREDITS]>,
    /// Tasks whose completion was nonsense; settled with the death that follows.
    pub(crate) suspects: Vec<u32>,
    /// A task on it has a deadline, or is cancelled by force.
    pub(crate) watched: bool,
    /// It runs, or waits for, one task that must run alone.
    apart: bool,
    /// It has had as many tasks as a worker may have.
    retired: bool,
    /// Average service time in ns; 0 = not known yet.
    service_ns: u64,
    /// The average that `bound` was made from.
    bound_service_ns: u64,
    bound: u32,
    /// Its threads are busy with long tasks: nothing may wait behind them.
    stalled: bool,
    /// The consumed index at the last look, and since when it has stood there.
    pub(crate) seen_head: u64,
    pub(crate) head_since: Instant,
    pub(crate) recalled: bool,
    pub(crate) health: Health,
    /// Why it could not start, if it said so.
    pub(crate) trouble: Option<String>,
    /// Its zygote is gone: nobody will tell how it ended.
    pub(crate) orphaned: bool,
    /// Tasks that crashed in this slot before.
    pub(crate) crashed_before: u64,
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    pub(crate) busy_ns: u64,
    /// When it ended its last task, or became ready; in ticks, 0 before.
    pub(crate) active_at: u64,
}

/// What the supervisor's looks at a worker's health have found.
#[derive(Debug)]
pub(crate) struct Health {
    /// Completions and running tasks at the last change. Not the consumed index: a recall moves it.
    pub(crate) completed: u64,
    pub(crate) running: u32,
    /// When that was.
    pub(crate) moved: Instant,
    /// When to ask the kernel for its state next.
    pub(crate) look_at: Instant,
    pub(crate) stopped_since: Option<Instant>,
}

/// What a new lane is made of.
#[derive(Debug)]
pub(crate) struct NewLane {
    pub(crate) worker: u32,
    pub(crate) incarnation: u64,
    pub(crate) class: Class,
    pub(crate) threads: u32,
    pub(crate) shared: HostLane,
    pub(crate) event: Event,
    pub(crate) control: Socket,
}

impl Lane {
    pub(crate) fn new(new: NewLane, crashed_before: u64) -> Self {
        let now = Instant::now();
        Self {
            worker: new.worker,
            incarnation: new.incarnation,
            class: new.class,
            threads: new.threads,
            state: LaneState::Starting,
            state_since: now,
            shared: Arc::new(new.shared),
            event: new.event,
            control: new.control,
            process: None,
            greeted: false,
            refused: 0,
            exit: None,
            ended: None,
            killed: false,
            doom: None,
            kill_at: None,
            inquest: Inquest::default(),
            violated: false,
            signals: 0,
            asked_back: false,
            started_at: now,
            started_ms: now_ms(),
            collector: Collector::new(),
            producer: ring::Producer::default(),
            bell: doorbell::Producer::default(),
            unannounced: false,
            tasks: Box::new([0; CREDITS]),
            suspects: Vec::new(),
            watched: false,
            apart: false,
            retired: false,
            service_ns: 0,
            bound_service_ns: 0,
            bound: new.threads + 1,
            stalled: false,
            seen_head: 0,
            head_since: now,
            recalled: false,
            health: Health {
                completed: 0,
                running: 0,
                moved: now,
                look_at: now,
                stopped_since: None,
            },
            trouble: None,
            orphaned: false,
            crashed_before,
            completed: 0,
            failed: 0,
            busy_ns: 0,
            active_at: 0,
        }
    }

    /// Tasks on the lane, started or not.
    #[inline]
    pub(crate) fn load(&self) -> u32 {
        self.collector.outstanding()
    }

    /// Whether another task may be handed to the worker.
    #[inline]
    pub(crate) fn has_credit(&mut self) -> bool {
        self.state == LaneState::Ready
            && self.load() < self.bound
            && self.collector.has_free(&self.shared.up().bitmap)
    }

    /// How loaded it is, in tasks; `None` if it takes no more.
    ///
    /// Not in tasks per thread: all workers of a class have as many threads, and a free thread is not all
    /// that counts. Tasks beside each other share a process, its fate, and an interpreter's lock.
    #[inline]
    pub(crate) fn rank(&self) -> Option<u32> {
        let takes = self.state == LaneState::Ready && self.load() < self.bound;
        takes.then(|| self.load())
    }

    pub(crate) fn as_candidate(&self) -> Candidate {
        Candidate {
            slot: self.worker,
            pid: self.pid(),
            incarnation: self.incarnation,
            threads: self.threads,
            load: self.load(),
            depth: self.bound,
            completed: self.completed,
            failed: self.failed,
            crashed: self.crashed_before,
            busy_ns: self.busy_ns,
            service_ns: self.service_ns,
        }
    }

    /// Most tasks on the lane at present.
    pub(crate) fn bound(&self) -> u32 {
        self.bound
    }

    /// Whether the worker sleeps on its doorbell; a hint.
    #[inline]
    pub(crate) fn is_asleep(&self) -> bool {
        // Relaxed: a hint.
        self.shared
            .up()
            .sleep_epoch
            .0
            .load(std::sync::atomic::Ordering::Relaxed)
            != 0
    }

    /// Publishes a descriptor; the caller rings the bell after its batch. True if it is the first
    /// since the last time.
    #[inline]
    pub(crate) fn publish(&mut self, message: &Message) -> bool {
        self.producer.push(&self.shared.down().ring, message);
        !std::mem::replace(&mut self.unannounced, true)
    }

    /// Announces what was published since the last time and wakes the worker if it sleeps.
    #[inline]
    pub(crate) fn ring_bell(&mut self) {
        if !self.unannounced {
            return;
        }
        self.unannounced = false;
        let tail = self.producer.tail();
        self.bell.ring(
            tail,
            &self.shared.down().tail,
            &self.shared.up().sleep_epoch,
        );
    }

    /// Descriptors published so far.
    pub(crate) fn published(&self) -> u64 {
        self.producer.tail()
    }

    /// Descriptors that the worker says it has claimed; a hint.
    pub(crate) fn head(&self) -> u64 {
        // Relaxed: a hint.
        self.shared
            .up()
            .head
            .0
            .load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Takes note of `count` tasks that took `sum_ns` together, and sets the depth of the lane:
    /// deep enough to hide the hand-off, no deeper.
    #[inline]
    pub(crate) fn note_service(&mut self, sum_ns: u64, count: u32) {
        let sample = if count == 1 {
            sum_ns
        } else {
            sum_ns / u64::from(count)
        };
        let sample = sample.clamp(1, 10_000_000_000);
        self.service_ns = match self.service_ns {
            0 => sample,
            average => (average - (average >> SMOOTHING) + (sample >> SMOOTHING)).max(1),
        };
        // Two divisions saved while nothing changes much.
        if self.stalled || self.service_ns.abs_diff(self.bound_service_ns) > self.service_ns / 8 {
            self.stalled = false;
            self.set_bound();
        }
    }

    fn set_bound(&mut self) {
        if self.apart || self.retired {
            self.bound = 0;
            return;
        }
        self.bound_service_ns = self.service_ns;
        let most = CREDITS as u64 - u64::from(self.threads);
        let ahead = if self.stalled || self.service_ns >= LONG_NS {
            0
        } else {
            (u64::from(self.threads) * HANDOFF_NS)
                .checked_div(self.service_ns)
                .unwrap_or(1)
                .clamp(1, most)
        };
        self.bound = self.threads + u32::try_from(ahead).unwrap_or(1);
    }

    /// Long tasks came up: nothing more is handed out behind them until one ends.
    pub(crate) fn stall(&mut self) {
        self.stalled = true;
        self.set_bound();
    }

    /// Whether it takes tasks and has none.
    pub(crate) fn is_idle(&mut self) -> bool {
        self.state == LaneState::Ready
            && self.load() == 0
            && !self.retired
            && self.collector.has_free(&self.shared.up().bitmap)
    }

    pub(crate) fn is_apart(&self) -> bool {
        self.apart
    }

    /// Keeps all other tasks away, or lets them come again.
    pub(crate) fn set_apart(&mut self, apart: bool) {
        self.apart = apart;
        self.set_bound();
    }

    /// Nothing more is handed to this worker, for good.
    pub(crate) fn retire(&mut self) {
        self.retired = true;
        self.set_bound();
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired
    }

    /// Asks the worker to hand back what it has not started.
    pub(crate) fn recall(&mut self) {
        self.asked_back = true;
        // A full socket holds an unanswered recall already.
        let _ = ToWorker::Recall.send(&self.control);
    }

    pub(crate) fn set_state(&mut self, state: LaneState) {
        self.state = state;
        self.state_since = Instant::now();
    }

    /// Sends the worker away; it finishes what it runs.
    pub(crate) fn send_away(&mut self) {
        self.set_state(LaneState::Leaving);
        let _ = ToWorker::Shutdown.send(&self.control); // if it does not listen, it is killed
    }

    pub(crate) fn service_ns(&self) -> u64 {
        self.service_ns
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().map_or(0, Process::pid_number)
    }

    /// Whether one of the tasks that are out was started; a worker that broke the protocol may say
    /// anything.
    pub(crate) fn has_started_any(&self) -> bool {
        let mut out = (0..CREDITS).filter_map(|slot| self.collector.outstanding_at(slot));
        out.any(|(slot, ticket)| {
            let cell = &self.shared.up().slots[usize::from(slot)];
            cell.started(ticket).is_some() || cell.is_done(ticket)
        })
    }

    /// Asks the process to leave as soon as it has finished what it runs.
    pub(crate) fn terminate(&self) {
        if let Some(process) = &self.process {
            process.terminate();
        }
    }

    /// Kills the worker; its death is settled when its pidfd is readable.
    pub(crate) fn kill(&mut self) {
        self.killed = true;
        if let Some(process) = &self.process {
            process.kill();
        }
    }
}

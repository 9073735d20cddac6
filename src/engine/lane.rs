//! One worker as the host sees it: its lane, its process, and what is out on it.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Instant;

use crate::shm::doorbell;
use crate::shm::layout::CREDITS;
use crate::shm::ring::{self, Message};
use crate::shm::segments::HostLane;
use crate::shm::slot::Collector;
use crate::sys::event::Event;
use crate::sys::process::{Exit, Process};
use crate::sys::socket::Socket;
use crate::task::Class;
use crate::worker::link::ToWorker;

/// About what a hand-off to a sleeping worker costs: a lane holds tasks for this long in advance,
/// so that its worker need not wait for the next one.
const HANDOFF_NS: u64 = 100_000;
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
    /// Set once the zygote has reported it.
    pub(crate) exit: Option<Exit>,
    /// When the pidfd became readable.
    pub(crate) ended: Option<Instant>,
    pub(crate) killed: bool,
    /// It broke the protocol: nothing that it wrote counts any more.
    pub(crate) violated: bool,
    /// Signals of its eventfd so far.
    pub(crate) signals: u64,
    /// It was asked to hand tasks back.
    pub(crate) asked_back: bool,
    pub(crate) started_at: Instant,
    pub(crate) collector: Collector,
    producer: ring::Producer,
    bell: doorbell::Producer,
    /// Published descriptors that the doorbell has not announced.
    unannounced: bool,
    /// Task-table slots by credit.
    pub(crate) tasks: Box<[u32; CREDITS]>,
    /// Tasks whose completion was nonsense; settled with the death that follows.
    pub(crate) suspects: Vec<u32>,
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
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    pub(crate) busy_ns: u64,
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
    pub(crate) fn new(new: NewLane) -> Self {
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
            exit: None,
            ended: None,
            killed: false,
            violated: false,
            signals: 0,
            asked_back: false,
            started_at: now,
            collector: Collector::new(),
            producer: ring::Producer::default(),
            bell: doorbell::Producer::default(),
            unannounced: false,
            tasks: Box::new([0; CREDITS]),
            suspects: Vec::new(),
            service_ns: 0,
            bound_service_ns: 0,
            bound: new.threads + 1,
            stalled: false,
            seen_head: 0,
            head_since: now,
            recalled: false,
            completed: 0,
            failed: 0,
            busy_ns: 0,
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
        self.bound_service_ns = self.service_ns;
        let most = CREDITS as u64 - u64::from(self.threads);
        let ahead = if self.stalled {
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

    /// Kills the worker; its death is settled when its pidfd is readable.
    pub(crate) fn kill(&mut self) {
        self.killed = true;
        if let Some(process) = &self.process {
            process.kill();
        }
    }
}

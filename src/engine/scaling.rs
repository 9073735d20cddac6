//! How many workers a class should have: policies, which are pure functions of what they are shown
//! and of what they were shown before.
//!
//! The supervisor shows them a [`Snapshot`] now and then, off the fast path, and carries out what they
//! propose. They have no clock of their own: `Snapshot::now` is all they know of the time, so a test
//! can show them hours in no time.
#![forbid(unsafe_code)]

pub(crate) mod adaptive;
pub(crate) mod by_load;
pub(crate) mod custom;
pub(crate) mod log;
#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "small numbers of a test")]
mod simulation;

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use self::adaptive::Adaptive;
use self::by_load::ByLoad;
use crate::engine::memory;
use crate::engine::stats::Stats;
use crate::error::{Error, Result};
use crate::status::MemoryState;
use crate::task::Class;

/// The load of one class of workers at one moment: all that a [`ScalingPolicy`] knows.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Which workers.
    pub class: Class,
    /// When, since the engine was started.
    pub now: Duration,
    /// Fewest workers; what a policy proposes is raised to it.
    pub min: u32,
    /// Most workers; what a policy proposes is lowered to it.
    pub max: u32,
    /// Workers wanted at present.
    pub target: u32,
    /// Workers that take tasks.
    pub ready: u32,
    /// Workers that are being started.
    pub starting: u32,
    /// Threads of each worker.
    pub threads: u32,
    /// Tasks that no worker has.
    pub queued: u64,
    /// Tasks on workers, running or next in line.
    pub on_workers: u64,
    /// Most tasks on one worker.
    pub peak: u32,
    /// How long the task waits that has waited longest for a worker.
    pub oldest: Duration,
    /// Average time that a task runs; zero if none has ended yet.
    pub service: Duration,
    /// Tasks that workers have ended since the start.
    pub ended: u64,
    /// The share of the processors that is in use, 0 to 1: of those that this process may use, or of
    /// the time that its control group may use if that is nearer to its end. `None` = not known.
    pub cpu: Option<f32>,
    /// The share of memory that is in use, 0 to 1: of the machine's, or of what the control group may
    /// have if that is nearer to its end. `None` = not known.
    pub memory: Option<f32>,
    /// The share of the last 10 s in which some task stood still for lack of memory, 0 to 1 (PSI).
    /// `None` = not known.
    pub memory_pressure: Option<f32>,
    /// What the engine does about memory: unless that is
    /// [`Ample`](crate::status::MemoryState::Ample), nothing grows.
    pub memory_state: MemoryState,
    /// Counters of the whole engine.
    pub stats: Stats,
}

impl Snapshot {
    /// Tasks that have not ended.
    #[must_use]
    pub fn tasks(&self) -> u64 {
        self.queued + self.on_workers
    }

    /// Workers that take tasks or soon will.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        (self.ready + self.starting).max(1)
    }

    /// Whether nothing may grow: there is no memory for more workers, or the processors are busier than
    /// `cpu`, where 1 is no limit.
    fn is_no_time_to_grow(&self, cpu: f32) -> bool {
        let busy = cpu < 1.0 && self.cpu.is_some_and(|share| share >= cpu);
        busy || self.memory_state != MemoryState::Ample
    }
}

/// How many workers a class should have, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The workers.
    pub workers: u32,
    /// The reason, for whoever reads the log of decisions.
    pub reason: Cow<'static, str>,
}

impl Proposal {
    /// A proposal with its reason.
    #[must_use]
    pub fn new(workers: u32, reason: impl Into<Cow<'static, str>>) -> Self {
        let reason = reason.into();
        Self { workers, reason }
    }
}

impl From<u32> for Proposal {
    fn from(workers: u32) -> Self {
        Self::new(workers, "the policy says so")
    }
}

/// Decides how many workers a class should have; see [`Scaling::custom`].
///
/// One of the host's own runs on a thread of its own, one question at a time: it may be slow, but what
/// it says is of its past then; while it thinks, the class stays as it is. If it panics, that is logged
/// and its answer is as if it had been `None`.
pub trait ScalingPolicy: Send {
    /// The workers that the class should have; `None` leaves it as it is. Called for each class
    /// in turn.
    fn decide(&mut self, snapshot: &Snapshot) -> Option<Proposal>;
}

impl<F: FnMut(&Snapshot) -> Option<u32> + Send> ScalingPolicy for F {
    fn decide(&mut self, snapshot: &Snapshot) -> Option<Proposal> {
        self(snapshot).map(Proposal::from)
    }
}

/// A policy of the host's own on its way to its thread: taken out when the engine starts.
pub(crate) type Handed = Arc<Mutex<Option<Box<dyn ScalingPolicy>>>>;

#[derive(Clone)]
pub(crate) enum Kind {
    Off,
    ByLoad { per_worker: bool },
    Adaptive,
    Custom(Handed),
}

impl Kind {
    /// What the status calls it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::ByLoad { per_worker: false } => "by_load",
            Self::ByLoad { per_worker: true } => "compatible",
            Self::Adaptive => "adaptive",
            Self::Custom(_) => "custom",
        }
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "Off",
            Self::ByLoad { per_worker: false } => "ByLoad",
            Self::ByLoad { per_worker: true } => "Compatible",
            Self::Adaptive => "Adaptive",
            Self::Custom(_) => "Custom",
        })
    }
}

/// How the number of workers follows the load, between the minimum and the maximum of
/// [`Builder::workers_between`](crate::Builder::workers_between). The thresholds that a policy does not
/// have do not matter to it.
#[derive(Debug, Clone)]
#[must_use = "give it to `Builder::scaling`"]
pub struct Scaling {
    pub(crate) kind: Kind,
    pub(crate) interval: Duration,
    pub(crate) max_wait: Duration,
    pub(crate) cooldown: Duration,
    pub(crate) load: f32,
    pub(crate) peak: f32,
    pub(crate) cpu: f32,
    pub(crate) idle_looks: u32,
    pub(crate) memory: memory::Limits,
}

impl Default for Scaling {
    fn default() -> Self {
        Self::off()
    }
}

/// Far below what would overflow when it is added or multiplied.
const LONGEST_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);
/// Idle looks are not counted more often than this.
pub(crate) const IDLE_LOOK: Duration = Duration::from_secs(1);

impl Scaling {
    fn of(kind: Kind) -> Self {
        Self {
            kind,
            interval: Duration::from_millis(100),
            max_wait: Duration::from_millis(100),
            cooldown: Duration::from_millis(200),
            load: 2.5,
            peak: 4.0,
            cpu: 0.9,
            idle_looks: 3,
            memory: memory::Limits::default(),
        }
    }

    /// The minimum of workers, and [`Engine::resize`](crate::Engine::resize); the default.
    pub fn off() -> Self {
        Self::of(Kind::Off)
    }

    /// By thresholds: grows by 1, 2, 4 ... workers while there are more than [`Scaling::load`] tasks
    /// per thread on average, more than [`Scaling::peak`] on any worker, or one waits longer than
    /// [`Scaling::max_wait`]; shrinks by one idle worker after [`Scaling::idle_looks`] idle seconds.
    pub fn by_load() -> Self {
        Self::of(Kind::ByLoad { per_worker: false })
    }

    /// [`Scaling::by_load`], counted per worker instead of per thread.
    pub fn compatible() -> Self {
        Self::of(Kind::ByLoad { per_worker: true })
    }

    /// By queueing delay: once a task waits longer than [`Scaling::max_wait`], it goes in one step
    /// to the size that the arrivals and the service time ask for and that works off what waits;
    /// back when that has been too much for a while, which grows if the load comes back.
    pub fn adaptive() -> Self {
        Self::of(Kind::Adaptive)
    }

    /// By a policy of the host's own.
    pub fn custom(policy: impl ScalingPolicy + 'static) -> Self {
        let policy: Box<dyn ScalingPolicy> = Box::new(policy);
        Self::of(Kind::Custom(Arc::new(Mutex::new(Some(policy)))))
    }

    /// Time between two looks at the load: 100 ms by default, at least 1 ms, at most a day.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// How long a task may wait for a worker before the class grows: 100 ms by default.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    /// Least time between two changes: 200 ms by default.
    pub fn cooldown(mut self, cooldown: Duration) -> Self {
        self.cooldown = cooldown;
        self
    }

    /// Tasks per thread on average beyond which the class grows: 2.5 by default.
    pub fn load(mut self, tasks: f32) -> Self {
        self.load = tasks;
        self
    }

    /// Tasks per thread of one worker beyond which the class grows: 4 by default.
    pub fn peak(mut self, tasks: f32) -> Self {
        self.peak = tasks;
        self
    }

    /// The share of the processors in use from which on nothing grows: 0.9 by default; 1 = no limit.
    pub fn cpu(mut self, share: f32) -> Self {
        self.cpu = share;
        self
    }

    /// Idle looks in a row, a second apart or the interval if that is longer, before the class
    /// shrinks: 3 by default.
    pub fn idle_looks(mut self, looks: u32) -> Self {
        self.idle_looks = looks;
        self
    }

    /// The share of memory in use from which on nothing grows: 0.9 by default; 1 = no limit. In use is
    /// what cannot be had without taking it from somebody: of the machine's memory, or of what a control
    /// group may have if that is nearer to its end. Of a machine with more than 64 GiB it counts how
    /// much is left, as if it had 64 GiB.
    pub fn memory(mut self, share: f32) -> Self {
        self.memory.grow = share;
        self
    }

    /// The share of time in which tasks of the machine, or of the control group, stand still for lack of
    /// memory, from which on nothing grows: 0.1 by default; 1 = no limit.
    pub fn memory_pressure(mut self, share: f32) -> Self {
        self.memory.pressure = share;
        self
    }

    /// The share of memory in use from which on idle workers leave, one after the other, down to the
    /// minimum: 0.95 by default; 1 = no limit. Not while scaling is off.
    pub fn memory_shed(mut self, share: f32) -> Self {
        self.memory.shed = share;
        self
    }

    /// The share of memory in use from which on submits and loans are refused
    /// ([`Full::Memory`](crate::Full::Memory)): 0.98 by default; 1 = no limit. Also while scaling is off.
    pub fn memory_refuse(mut self, share: f32) -> Self {
        self.memory.refuse = share;
        self
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let bad = |what: &str| Err(Error::invalid(format!("the scaling's {what}")));
        if !(Duration::from_millis(1)..=LONGEST_INTERVAL).contains(&self.interval) {
            return bad("interval is not between 1 ms and a day");
        }
        let tasks = [self.load, self.peak];
        if !tasks.iter().all(|&t| t.is_finite() && t > 0.0) {
            return bad("load or peak is not a positive number");
        }
        if !(self.cpu > 0.0 && self.cpu <= 1.0) {
            return bad("cpu is not above 0 and at most 1");
        }
        if self.idle_looks == 0 {
            return bad("idle_looks is 0");
        }
        self.memory.validate()
    }

    pub(crate) fn is_off(&self) -> bool {
        matches!(self.kind, Kind::Off)
    }

    /// The built-in policy for one class, if it is one.
    pub(crate) fn built_in(&self) -> Option<Box<dyn ScalingPolicy>> {
        match self.kind {
            Kind::ByLoad { per_worker } => Some(Box::new(ByLoad::new(self, per_worker))),
            Kind::Adaptive => Some(Box::new(Adaptive::new(self))),
            Kind::Off | Kind::Custom(_) => None,
        }
    }

    /// How long a class must be idle before it shrinks, at first.
    fn patience(&self) -> Duration {
        self.interval.max(IDLE_LOOK).saturating_mul(self.idle_looks)
    }
}

/// How long a policy waits before it shrinks: longer each time the load comes back soon after, so
/// that a load that alternates does not make the workers come and go with it.
#[derive(Debug)]
struct Patience {
    at_first: Duration,
    now: Duration,
    /// When the class shrank last.
    shrank: Option<Duration>,
    /// When it lengthened or shortened last.
    changed: Duration,
}

impl Patience {
    const MOST: Duration = Duration::from_secs(300);

    fn new(at_first: Duration) -> Self {
        Self {
            at_first,
            now: at_first,
            shrank: None,
            changed: Duration::ZERO,
        }
    }

    fn note_shrink(&mut self, now: Duration) {
        self.shrank = Some(now);
    }

    /// The class grows. Once for each time that it shrank: the shrink was a mistake.
    fn note_growth(&mut self, now: Duration) {
        if let Some(shrank) = self.shrank.take()
            && now.saturating_sub(shrank) < self.now * 4
        {
            self.now = (self.now * 2).min(Self::MOST.max(self.at_first));
            self.changed = now;
        }
    }

    /// How long that is at present: half after each quiet while.
    fn at(&mut self, now: Duration) -> Duration {
        if self.now > self.at_first && now.saturating_sub(self.changed) >= self.now * 16 {
            self.now = (self.now / 2).max(self.at_first);
            self.changed = now;
        }
        self.now
    }
}

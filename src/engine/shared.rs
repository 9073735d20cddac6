//! What all threads of the host share of an engine, and how they wait.
//!
//! Among the blocked threads of the host one is the *leader*: it sleeps on the workers' eventfds
//! and drains for all; the others sleep on a condition variable and take its place when it leaves.
//! So a wake-up costs one thread switch for the common case of one waiting thread, and no herd for
//! many. When nobody polls, the supervisor drains.
#![forbid(unsafe_code)]

use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;

use crate::config::Config;
use crate::engine::core::Core;
use crate::engine::lane::{Lane, LaneState};
use crate::engine::placement::Seating;
use crate::engine::policy;
use crate::engine::scaling::Snapshot;
use crate::engine::stats::Stats;
use crate::engine::usage::UsageMeter;
use crate::error::{Error, Result};
use crate::shm::control::ControlSegment;
use crate::shm::segments::HostInputs;
use crate::sys::clock::Clock;
use crate::sys::event::{EpollSet, Event};
use crate::sys::fork::ForkGuard;
use crate::sys::spin::Spin;
use crate::sys::sync::lock;
use crate::task::Class;

/// No host thread sleeps longer than this without looking at everything again: a worker with
/// corrupted memory can at most delay its own completions by it.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// The key of the kick event in the leader's epoll set; the others are worker slots.
const KICK: u64 = u64::MAX;
/// The key of the ready event in the user's epoll set.
const READY: u64 = u64::MAX;

/// The file descriptor that a host's own loop watches.
#[derive(Debug)]
pub(crate) struct External {
    pub(crate) set: EpollSet,
    /// Readable exactly while the ready list is not empty.
    ready: Event,
}

/// An engine, apart from the handle that stops it.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) inputs: HostInputs,
    pub(crate) control: ControlSegment,
    pub(crate) seating: Seating,
    /// On cache lines of its own: every submit and every poll takes it.
    core: CachePadded<Mutex<Core>>,
    /// The followers' bed.
    changed: Condvar,
    /// The leader's: the workers' eventfds and the kick.
    pub(crate) bells: EpollSet,
    kick: Event,
    pub(crate) external: OnceLock<External>,
    /// Wakes the supervisor.
    pub(crate) supervisor: Event,
    pub(crate) spin: Spin,
    guard: ForkGuard,
    began: Instant,
    /// The same in milliseconds since 1970.
    pub(crate) started_ms: i64,
    pub(crate) usage: UsageMeter,
    /// Tells this engine from others.
    tag: u32,
}

/// The lock's guard.
pub(crate) type Locked<'a> = MutexGuard<'a, Core>;

impl Shared {
    pub(crate) fn new(
        config: Config,
        clock: Clock,
        inputs: HostInputs,
        control: ControlSegment,
        seating: Seating,
        core: Core,
        guard: ForkGuard,
    ) -> Result<Self> {
        let bells = EpollSet::new()?;
        let kick = Event::new()?;
        bells.add(&kick, KICK)?;
        Ok(Self {
            spin: Spin::new(clock.ticks(config.spin)),
            config,
            clock,
            inputs,
            started_ms: control.created_ms(),
            control,
            seating,
            tag: core.tag,
            began: Instant::now(),
            usage: UsageMeter::default(),
            core: CachePadded::new(Mutex::new(core)),
            changed: Condvar::new(),
            bells,
            kick,
            external: OnceLock::new(),
            supervisor: Event::new()?,
            guard,
        })
    }

    /// Refuses to work in a forked child of the host.
    #[inline]
    pub(crate) fn check_process(&self) -> Result<()> {
        if self.guard.is_child() {
            return Err(Error::invalid(
                "the engine belongs to the process that started it, not to its forked child",
            ));
        }
        Ok(())
    }

    pub(crate) fn is_childs_copy(&self) -> bool {
        self.guard.is_child()
    }

    #[inline]
    pub(crate) fn lock(&self) -> Locked<'_> {
        self.try_lock().unwrap_or_else(|| self.lock_slowly())
    }

    #[cold]
    fn lock_slowly(&self) -> Locked<'_> {
        policy::check_reentrance(self.tag);
        lock(&self.core)
    }

    #[inline]
    pub(crate) fn try_lock(&self) -> Option<Locked<'_>> {
        match self.core.try_lock() {
            Ok(core) => Some(core),
            // As in `sys::sync::lock`.
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// The load of a class, for its scaling policy.
    pub(crate) fn look(&self, core: &Core, class: Class) -> Snapshot {
        let (state, config) = (&core.classes[class.index()], self.config.class(class));
        let lanes = || core.lanes().filter(|lane| lane.class == class);
        let count = |wanted: LaneState| {
            let count = lanes().filter(|lane| lane.state == wanted).count();
            u32::try_from(count).unwrap_or(u32::MAX)
        };
        let services: Vec<u64> = lanes().map(Lane::service_ns).filter(|&ns| ns > 0).collect();
        let service = services.iter().sum::<u64>() / services.len().max(1) as u64;
        let oldest = core
            .waiting_since(class)
            .map_or(0, |since| self.clock.now().saturating_sub(since));
        Snapshot {
            class,
            now: self.began.elapsed(),
            min: config.min.max(1).min(config.max), // the last worker of a class stays
            max: config.max,
            target: state.target,
            ready: count(LaneState::Ready),
            starting: count(LaneState::Starting),
            threads: config.threads,
            queued: state.waiting() as u64,
            on_workers: lanes().map(|lane| u64::from(lane.load())).sum(),
            peak: lanes().map(Lane::load).max().unwrap_or(0),
            oldest: Duration::from_nanos(self.clock.ns(oldest)),
            service: Duration::from_nanos(service),
            ended: state.ended,
            cpu: core.machine.cpu,
            memory: core.machine.memory,
            memory_pressure: core.machine.memory_pressure,
            memory_state: core.machine.memory_state,
            stats: Stats::of(core),
        }
    }

    /// After a submit.
    #[inline]
    pub(crate) fn note_submit(&self, core: &mut Core) {
        self.note_change(core);
    }

    /// After anything that shows in the status: wakes the supervisor if it thought that nothing was
    /// going on. It goes back to rest by itself, so that this is at most 10 times a second.
    #[inline]
    pub(crate) fn note_change(&self, core: &mut Core) {
        if core.blocked.supervisor_idle {
            core.blocked.supervisor_idle = false;
            self.supervisor.signal();
        }
    }

    /// After a drain: wakes those whose completions may have been kept, and keeps the ready event
    /// true. Call before the lock is let go.
    #[inline]
    pub(crate) fn notify(&self, core: &mut Core) {
        if core.kept != 0 {
            core.kept = 0;
            self.wake_blocked(core);
        }
        if let Some(external) = self.external.get() {
            let ready = core.table.ready() != 0;
            if ready != core.blocked.ready_signalled {
                core.blocked.ready_signalled = ready;
                if ready {
                    external.ready.signal();
                } else {
                    external.ready.drain();
                }
            }
        }
    }

    /// After completions were handed out: their slots are free.
    #[inline]
    pub(crate) fn note_room(&self, core: &mut Core) {
        self.note_change(core);
        if core.blocked.room_waiters != 0 {
            self.wake_blocked(core);
        }
    }

    /// Makes every blocked thread look again.
    pub(crate) fn wake_blocked(&self, core: &mut Core) {
        if core.blocked.followers != 0 {
            self.changed.notify_all();
        }
        if core.blocked.leader_asleep {
            self.kick.signal();
        }
    }

    /// Blocks until `done` has an answer; `None` after `deadline`. `done` is asked under the lock,
    /// whenever something may have changed.
    pub(crate) fn block<'a, R>(
        &'a self,
        core: Locked<'a>,
        deadline: Option<Instant>,
        done: impl FnMut(&mut Core) -> Option<R>,
    ) -> (Locked<'a>, Option<R>) {
        let (core, answer) = self.lead_or_follow(core, deadline, done);
        // Whoever leaves sees to it that another takes the leader's place.
        if core.blocked.followers != 0 && !core.blocked.leader {
            self.changed.notify_one();
        }
        (core, answer)
    }

    fn lead_or_follow<'a, R>(
        &'a self,
        mut core: Locked<'a>,
        deadline: Option<Instant>,
        mut done: impl FnMut(&mut Core) -> Option<R>,
    ) -> (Locked<'a>, Option<R>) {
        let mut keys = Vec::new();
        loop {
            if let Some(answer) = done(&mut core) {
                return (core, Some(answer));
            }
            let nap = match deadline {
                None => LOOK_AGAIN,
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return (core, None);
                    }
                    left.min(LOOK_AGAIN)
                }
            };
            if core.blocked.leader {
                core.blocked.followers += 1;
                core = self
                    .changed
                    .wait_timeout(core, nap)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
                core.blocked.followers -= 1;
                continue;
            }
            let answer;
            (core, answer) = self.lead(core, nap, &mut keys, &mut done);
            if answer.is_some() {
                return (core, answer);
            }
        }
    }

    /// One sleep of the leader.
    fn lead<'a, R>(
        &'a self,
        mut core: Locked<'a>,
        nap: Duration,
        keys: &mut Vec<u64>,
        done: &mut impl FnMut(&mut Core) -> Option<R>,
    ) -> (Locked<'a>, Option<R>) {
        let epoch = &self.inputs.layout().host_epoch;
        core.blocked.leader = true;
        core.sleepers.arm(epoch);
        // Armed; whatever was finished before a worker could see that, is found here.
        core.drain_thoroughly(&mut ());
        let mut answer = done(&mut core);
        if answer.is_none() {
            core.blocked.leader_asleep = true;
            drop(core);
            if self.bells.wait(keys, nap).is_err() {
                keys.clear();
            }
            core = self.lock();
            core.blocked.leader_asleep = false;
            // In this order: a worker signals once for an epoch, so what it signals for the one
            // that others go on sleeping with must not be drained. What it signalled before, the
            // drain finds.
            self.drain_bells(&mut core, keys);
            let _ = core.sleepers.disarm(epoch);
            core.drain(&mut ());
            answer = done(&mut core);
        } else if core.sleepers.disarm(epoch) {
            core.drain(&mut ());
        }
        core.blocked.leader = false;
        self.notify(&mut core);
        (core, answer)
    }

    /// Makes the signalled eventfds unreadable again. Before `Sleepers::disarm`, and completions
    /// must be looked for afterwards. The kick is the leader's alone: one that it has not seen yet
    /// stays.
    pub(crate) fn drain_bells(&self, core: &mut Core, keys: &[u64]) {
        for &key in keys {
            if key == KICK {
                if !core.blocked.leader_asleep {
                    self.kick.drain();
                }
            } else if let Ok(worker) = usize::try_from(key)
                && let Some(Some(lane)) = core.lanes.get(worker)
            {
                let signals = lane.event.drain();
                core.note_signals(worker, signals);
            }
        }
    }

    /// The set behind the event fd; made at the first call.
    pub(crate) fn external(&self) -> Result<&External> {
        let mut core = self.lock();
        if self.external.get().is_none() {
            let external = External {
                set: EpollSet::new()?,
                ready: Event::new()?,
            };
            external.set.add(&external.ready, READY)?;
            for lane in core.lanes() {
                external.set.add(&lane.event, u64::from(lane.worker))?;
            }
            let _ = self.external.set(external);
            let _ = self.arm_external(&mut core);
            self.notify(&mut core);
        }
        self.external
            .get()
            .ok_or_else(|| Error::Internal("no event fd".into()))
    }

    /// A poll begins: the owner of the event fd is awake.
    pub(crate) fn disarm_external(&self, core: &mut Core) {
        if !core.blocked.external_armed {
            return;
        }
        core.blocked.external_armed = false;
        if let Some(external) = self.external.get() {
            let mut keys = Vec::new();
            if external.set.wait(&mut keys, Duration::ZERO).is_ok() {
                keys.retain(|&key| key != READY);
                self.drain_bells(core, &keys);
            }
        }
        // After the eventfds: see `lead`. The poll drains next.
        let _ = core.sleepers.disarm(&self.inputs.layout().host_epoch);
    }

    /// A poll ends: the owner of the event fd may go to sleep. True if there is such an owner;
    /// then what was finished meanwhile lies in the ready list.
    #[inline]
    pub(crate) fn arm_external(&self, core: &mut Core) -> bool {
        if self.external.get().is_none() || core.blocked.external_armed {
            return false;
        }
        core.blocked.external_armed = true;
        core.sleepers.arm(&self.inputs.layout().host_epoch);
        core.drain_thoroughly(&mut ());
        true
    }
}

//! The supervisor thread: starts workers, notices their deaths, settles what they leave, and looks
//! after the engine when nobody polls. Never on the fast path.
#![forbid(unsafe_code)]

mod health;
mod inquest;
mod machine;
mod messages;
mod report;
mod scaling;
mod spawning;
mod zygote;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::engine::core::{Core, Phase};
use crate::engine::crash::{Verdict, running_tasks};
use crate::engine::lane::{Doom, Lane, LaneState};
use crate::engine::modules::Modules;
use crate::engine::shared::Shared;
use crate::engine::symbols::Symbols;
use crate::error::{Error, Result};
use crate::shm::control::Publisher;
use crate::status::Crash;
use crate::sys::event::EpollSet;
use crate::sys::process::Exit;
use crate::task::Class;
use crate::worker::zygote::{Role, ZygoteLink};

/// How often the supervisor looks around while tasks are in flight.
const TICK: Duration = Duration::from_millis(10);
/// The same, while descriptors wait behind running tasks.
const SHORT_TICK: Duration = Duration::from_millis(2);
/// Ticks without a task in flight after which it sleeps until a submit wakes it.
const IDLE_TICKS: u32 = 10;
/// How often the control segment is brought up to date.
const PUBLISH: Duration = Duration::from_millis(100);
/// How long a death waits for the zygote to say how: on a crowded machine it may be kept off the
/// processor for a while, and a crash that names no signal is a poor one. One that has died is not
/// waited for.
const EXIT_REPORT: Duration = Duration::from_secs(2);
/// Result memory that every worker begins with.
const FIRST_RESULTS: u64 = 256 << 10;
/// A descriptor that nobody claims for so long is recalled if another worker is free ...
const STUCK_WHILE_FREE: Duration = Duration::from_millis(2);
/// ... and for so long, in any case; or for some multiple of the usual service time.
const STUCK: Duration = Duration::from_millis(10);
/// While the engine stops: how long the zygote may owe an answer before it is killed.
const ZYGOTE_GRACE: Duration = Duration::from_secs(2);
/// Workers asked for and not there yet: so few that the requests and the answers fit in the zygote's
/// socket, or each side might wait for the other to read; or this one for a zygote program that
/// hangs.
const SPAWNS: usize = 32;
/// Messages of one worker that are heard before the others have their turn.
const MESSAGES: usize = 64;
/// A worker that lived so long did not fail at its start.
const HEALTHY: Duration = Duration::from_secs(1);
/// So many starts of a class must fail in a row, over so long, before its tasks are given up.
const BAD_STARTS: u32 = 5;
const BAD_STARTS_FOR: Duration = Duration::from_millis(500);
/// A zygote that does not answer for so long may be stopped.
const ZYGOTE_SILENCE: Duration = Duration::from_secs(1);
/// Delays between failing starts of a worker.
const BACKOFF: Duration = Duration::from_millis(10);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// What a key of the supervisor's epoll set means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Wake,
    Zygote,
    ZygoteDeath,
    Bells,
    Death(u64),
    Control(u64),
}

impl Source {
    fn key(self) -> u64 {
        match self {
            Self::Wake => 0,
            Self::Zygote => 1,
            Self::ZygoteDeath => 2,
            Self::Bells => 3,
            Self::Death(incarnation) => incarnation << 1 | 1 << 32,
            Self::Control(incarnation) => incarnation << 1 | 1 << 32 | 1,
        }
    }

    fn from_key(key: u64) -> Self {
        match key {
            0 => Self::Wake,
            1 => Self::Zygote,
            2 => Self::ZygoteDeath,
            3 => Self::Bells,
            key if key & 1 == 0 => Self::Death((key & !(1 << 32)) >> 1),
            key => Self::Control((key & !(1 << 32)) >> 1),
        }
    }
}

/// What is kept per worker slot across incarnations.
#[derive(Debug)]
struct SlotState {
    failures: u32,
    not_before: Option<Instant>,
}

/// Starts of a class that have failed in a row.
#[derive(Debug, Default)]
struct BadStarts {
    count: u32,
    since: Option<Instant>,
}

/// The thread's own state.
pub(crate) struct Supervisor {
    shared: Arc<Shared>,
    zygote: zygote::Helper,
    sources: EpollSet,
    slots: Vec<SlotState>,
    bad_starts: [BadStarts; 2],
    incarnations: u64,
    symbols: Symbols,
    /// Where the code of handler workers comes from.
    modules: Arc<Modules>,
    /// Counts as a sleeper: nobody else drains.
    draining: bool,
    pace: Pace,
    idle_ticks: u32,
    /// The control segment's; `None` if nobody can see it.
    publisher: Option<Publisher>,
    published: Option<Instant>,
    /// When it looked at the workers' health last.
    looked_at: Instant,
    /// When the next task may miss its deadline, from then.
    next_late: Option<Duration>,
    watch: machine::Watch,
    /// `None` if the engine does not scale.
    scaler: Option<scaling::Scaler>,
    /// Workers that say more than can be heard, and since when nobody listens.
    unheard: Vec<(u64, Instant)>,
}

/// How often the host polls.
#[derive(Debug)]
struct Pace {
    since: Instant,
    polls: u64,
    quick: bool,
}

impl Pace {
    /// A host that polls at least this often needs no help: a hand-off costs about as much.
    const QUICK: Duration = Duration::from_micros(200);
    const WINDOW: Duration = Duration::from_millis(5);

    fn new() -> Self {
        Self {
            since: Instant::now(),
            polls: 0,
            quick: false,
        }
    }

    /// Whether the host was quick in the last window; `polls` is how often it has polled so far.
    fn is_quick(&mut self, polls: u64) -> bool {
        let elapsed = self.since.elapsed();
        if elapsed >= Self::WINDOW {
            let needed = elapsed.as_nanos() / Self::QUICK.as_nanos();
            self.quick = u128::from(polls - self.polls) >= needed;
            self.since += elapsed;
            self.polls = polls;
        }
        self.quick
    }
}

impl Supervisor {
    /// Starts the thread.
    pub(crate) fn spawn(shared: Arc<Shared>, zygote: ZygoteLink) -> Result<JoinHandle<()>> {
        let sources = EpollSet::new()?;
        sources.add(&shared.supervisor, Source::Wake.key())?;
        let zygote = zygote::Helper::adopt(zygote, &shared, &sources)?;
        let slots = (0..shared.config.max_workers())
            .map(|_| SlotState {
                failures: 0,
                not_before: None,
            })
            .collect();
        // Early, so that it is what the zygote has.
        let modules = match shared.config.role {
            Some(Role::Handler(_)) => Modules::of_this_process(),
            _ => Modules::default(),
        };
        let scaler = scaling::Scaler::new(&shared)?;
        let publisher = shared
            .control
            .is_named()
            .then(|| shared.control.publisher());
        let publisher = publisher.flatten();
        let supervisor = Self {
            watch: machine::Watch::new(&shared.config),
            shared,
            scaler,
            zygote,
            sources,
            slots,
            bad_starts: Default::default(),
            incarnations: 0,
            symbols: Symbols::default(),
            modules: Arc::new(modules),
            draining: false,
            pace: Pace::new(),
            idle_ticks: 0,
            publisher,
            published: None,
            looked_at: Instant::now(),
            next_late: None,
            unheard: Vec::new(),
        };
        std::thread::Builder::new()
            .name("mf-supervisor".into())
            .spawn(move || {
                let shared = Arc::clone(&supervisor.shared);
                if catch_unwind(AssertUnwindSafe(|| supervisor.run())).is_err() {
                    // AssertUnwindSafe, here and above: what is left is only taken down.
                    let _ = catch_unwind(AssertUnwindSafe(|| give_up_engine(&shared)));
                }
            })
            .map_err(|e| Error::system("pthread_create", "cannot start the supervisor thread", e))
    }

    fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut keys = Vec::new();
        let mut timeout = Duration::ZERO;
        loop {
            if self.sources.wait(&mut keys, timeout).is_err() {
                std::thread::sleep(TICK); // out of kernel memory: try again
                keys.clear();
            }
            self.watch.prepare();
            let mut core = shared.lock();
            for &key in &keys {
                self.handle(&mut core, Source::from_key(key));
            }
            self.bury_the_dead(&mut core);
            core = self.revive_zygote(&shared, core);
            self.look_after_lanes(&mut core);
            self.take_over(&mut core);
            self.check_health(&mut core);
            self.look_at_machine(&mut core);
            self.scale(&mut core);
            let missing = self.plan(&mut core);
            if !missing.is_empty() {
                // Making segments takes a while: not under the lock.
                drop(core);
                let made: Vec<_> = missing
                    .into_iter()
                    .map(|(worker, class)| (worker, class, self.prepare(worker, class)))
                    .collect();
                core = shared.lock();
                // An engine that was stopped meanwhile has no use for them: a worker whose lane is
                // dropped leaves.
                let wanted = core.phase < Phase::Cancelling;
                for (worker, class, new) in made.into_iter().filter(|_| wanted) {
                    if let Err(e) = new.and_then(|new| self.admit(&mut core, new)) {
                        self.put_off(&mut core, worker, class, e);
                    }
                }
            }
            if core.phase == Phase::Stopped {
                let report = self.report(&core);
                shared.notify(&mut core);
                drop(core);
                self.publish(report);
                shared.control.remove_name();
                return; // dropping the link ends the zygote
            }
            timeout = self.next_timeout(&mut core);
            let looks = [self.next_look(&core), self.next_look_at_machine(&core)];
            for look in looks.into_iter().flatten() {
                timeout = timeout.min(look);
            }
            if !self.hear_again(&mut core) {
                timeout = timeout.min(SHORT_TICK);
            }
            let report = self.report(&core);
            shared.notify(&mut core);
            drop(core);
            self.publish(report);
        }
    }

    // ---- events ----

    fn handle(&mut self, core: &mut Core, source: Source) {
        match source {
            Source::Wake => drop(self.shared.supervisor.drain()),
            Source::Bells => {} // `take_over` drains
            Source::Zygote => self.hear_zygote(core),
            Source::ZygoteDeath => {
                self.hear_zygote(core); // what it still said
                self.lose_zygote(core);
            }
            Source::Death(incarnation) => {
                if let Some(lane) = find(core, incarnation) {
                    lane.ended = Some(Instant::now());
                    if let Some(process) = &lane.process {
                        self.sources.remove(process);
                    }
                    let worker = lane.worker as usize;
                    core.withdraw(worker);
                }
            }
            Source::Control(incarnation) => self.hear_worker(core, incarnation),
        }
    }

    // ---- deaths ----

    /// Settles every worker whose process has ended and whose exit status is known, or will not
    /// come.
    fn bury_the_dead(&mut self, core: &mut Core) {
        for worker in 0..core.lanes.len() {
            let Some(lane) = &core.lanes[worker] else {
                continue;
            };
            let Some(ended) = lane.ended else { continue };
            let exit = match lane.exit {
                Some(exit) => exit,
                None if lane.orphaned || ended.elapsed() >= EXIT_REPORT => Exit::Unknown,
                None => {
                    if ended.elapsed() >= EXIT_REPORT / 10 {
                        self.zygote.resume(); // in case somebody has stopped it
                    }
                    continue;
                }
            };
            if self.inquire(core, worker, exit) {
                self.remove(core, worker, exit);
            }
        }
    }

    /// Takes a lane out of the engine and settles what was on it. Its process has ended, or never
    /// was.
    pub(super) fn remove(&mut self, core: &mut Core, worker: usize, exit: Exit) {
        let Some(lane) = &core.lanes[worker] else {
            return;
        };
        let verdict = Verdict::of(core, lane, exit);
        let wanted = core.phase >= Phase::Cancelling
            || match lane.doom {
                None => lane.state == LaneState::Leaving,
                Some(doom) => doom.is_for_a_task(),
            };
        if !wanted {
            self.note_death(core, worker, &verdict);
        }
        self.detach(core, worker);
        core.bury(worker, &verdict);
        core.kept += 1; // whoever waits for the stop looks again
    }

    /// Stops listening to a worker.
    pub(super) fn detach(&self, core: &Core, worker: usize) {
        let Some(lane) = &core.lanes[worker] else {
            return;
        };
        self.sources.remove(&lane.control);
        if let Some(process) = &lane.process {
            self.sources.remove(process); // its exit may have been reported first
        }
        self.shared.bells.remove(&lane.event);
        if let Some(external) = self.shared.external.get() {
            external.set.remove(&lane.event);
        }
    }

    /// Keeps account of a worker that nobody sent away.
    fn note_death(&mut self, core: &mut Core, worker: usize, verdict: &Verdict) {
        let Some(lane) = &mut core.lanes[worker] else {
            return;
        };
        let running = running_tasks(&core.table, lane, verdict.convicted);
        let (pid, incarnation, class) = (lane.pid(), lane.incarnation, lane.class);
        // A worker that has started a task, or had none, is no failed start, whatever became of it.
        let joined = lane.state != LaneState::Starting;
        let healthy = (works(lane) || joined && (lane.load() == 0 || lane.has_started_any()))
            && !matches!(lane.doom, Some(Doom::Silent(_)));
        let fruitless = lane.completed == 0;
        let exit = verdict.exit;
        match verdict.headline(lane.worker, pid) {
            Some(line) => log::error!("{line}{running}"),
            None => log::warn!("worker {worker} (pid {pid}) ended: {exit}{running}"),
        }
        let crash = Crash::of(lane, verdict);
        if self.shared.control.is_named() {
            self.shared.control.log_crash(&(&crash).into());
        }
        let (trouble, doom) = (lane.trouble.take(), lane.doom);
        let slot = &mut self.slots[worker];
        // Also one that dies of each first task is not replaced as fast as the machine can.
        let most = if healthy { TICK * 10 } else { MAX_BACKOFF };
        if healthy && !fruitless {
            (slot.failures, slot.not_before) = (0, None);
        } else {
            slot.failures = slot.failures.saturating_add(1);
            let delay = BACKOFF * 2_u32.pow((slot.failures - 1).min(10));
            slot.not_before = Some(Instant::now() + delay.min(most));
        }
        core.totals.died += 1;
        core.deaths.note(crash);
        if !healthy {
            let why = match (trouble, doom) {
                (Some(trouble), _) => trouble,
                (None, Some(doom)) => format!("worker {worker} (pid {pid}) {doom}"),
                (None, None) => format!(
                    "worker {worker} (pid {pid}) {} at its start{}",
                    verdict.how(),
                    self.shared.config.sandbox.hint()
                ),
            };
            self.fail_start(core, incarnation, || Error::Internal(why.clone()));
            self.note_bad_start(core, class, why, false);
        }
    }

    /// A start has failed. After several in a row, or one that shows that no other can succeed, the
    /// tasks of the class are not kept waiting.
    pub(super) fn note_bad_start(
        &mut self,
        core: &mut Core,
        class: Class,
        why: String,
        hopeless: bool,
    ) {
        let bad = &mut self.bad_starts[class.index()];
        bad.count = bad.count.saturating_add(1);
        let since = *bad.since.get_or_insert_with(Instant::now);
        if hopeless || (bad.count >= BAD_STARTS && since.elapsed() >= BAD_STARTS_FOR) {
            log::error!("class {}: no worker can be started: {why}", class.name());
            core.classes[class.index()].broken = Some(why);
            core.pump_all(); // what waits for a worker that cannot come ends
        }
    }

    /// A worker of this class has shown that it works.
    fn note_good_start(&mut self, core: &mut Core, class: Class) {
        self.bad_starts[class.index()] = BadStarts::default();
        core.classes[class.index()].broken = None;
    }

    // ---- lanes ----

    /// Recalls what waits behind long tasks, and sends away who is done.
    fn look_after_lanes(&mut self, core: &mut Core) {
        let now = Instant::now();
        for worker in 0..core.lanes.len() {
            let Some(lane) = &core.lanes[worker] else {
                continue;
            };
            let class = lane.class;
            core.inspect(worker);
            let free = core.lanes().any(|other| {
                other.class == class
                    && other.worker as usize != worker
                    && other.state == LaneState::Ready
                    && other.load() < other.threads
            });
            let Some(lane) = &mut core.lanes[worker] else {
                continue;
            };
            if recall_if_stuck(lane, free, now) {
                core.note_load(worker);
            }
            let Some(lane) = &mut core.lanes[worker] else {
                continue;
            };
            match lane.state {
                LaneState::Draining if lane.load() == 0 => lane.send_away(),
                LaneState::Ready if core.kill_after.is_some() && lane.load() == 0 => {
                    lane.send_away();
                }
                _ => {}
            }
            if works(lane) && self.bad_starts[class.index()].count > 0 {
                self.note_good_start(core, class);
            }
            let Some(lane) = &mut core.lanes[worker] else {
                continue;
            };
            if lane.kill_at.is_some_and(|at| now >= at) && !lane.killed {
                lane.kill();
            }
            if lane.process.is_none() && lane.state_since.elapsed() >= ZYGOTE_SILENCE {
                self.zygote.resume(); // in case somebody has stopped it
            }
            let patience = match lane.state {
                LaneState::Starting if !core.starting => self.shared.config.start_timeout,
                // One that is ended for a reason has the time that goes with it: `kill_at`.
                LaneState::Leaving if lane.doom.is_none() => self.shared.config.stop_grace,
                _ => Duration::MAX,
            };
            if lane.state_since.elapsed() >= patience && !lane.killed {
                log::error!(
                    "worker {worker} does not {}: killed",
                    match lane.state {
                        LaneState::Starting => "join",
                        _ => "leave",
                    }
                );
                lane.kill();
                if lane.process.is_none() && self.shared.config.has_zygote_program() {
                    // Nobody has forked it: the runtime hangs.
                    let why = format!("it has started no worker for {patience:?}");
                    self.zygote.note_trouble(why);
                    self.zygote.kill();
                }
            }
            let Some(kill_after) = core.kill_after else {
                continue;
            };
            if now >= kill_after && !lane.killed {
                lane.kill();
            }
            if now >= kill_after + ZYGOTE_GRACE && lane.process.is_none() {
                // A zygote that does not even answer; its death lets go of what it owes.
                self.zygote.kill();
            }
        }
    }

    /// Drains while tasks are in flight and nobody else does, or not often enough to keep the
    /// workers supplied.
    fn take_over(&mut self, core: &mut Core) {
        let quick = self.pace.is_quick(core.blocked.polls);
        let wanted = core.unfinished() > 0 && !core.blocked.leader && !quick;
        let epoch = &self.shared.inputs.layout().host_epoch;
        if self.draining {
            let mut keys = Vec::new();
            if self.shared.bells.wait(&mut keys, Duration::ZERO).is_ok() {
                self.shared.drain_bells(core, &keys);
            }
            // After the eventfds: see `Shared::lead`. The drain follows in any case.
            let _ = core.sleepers.disarm(epoch);
        }
        if wanted {
            if !self.draining
                && self
                    .sources
                    .add(&self.shared.bells, Source::Bells.key())
                    .is_err()
            {
                return core.drain_thoroughly(&mut ()); // the next tick tries again
            }
            self.draining = true;
            core.sleepers.arm(epoch);
            core.drain_thoroughly(&mut ());
        } else if self.draining {
            self.draining = false;
            self.sources.remove(&self.shared.bells);
            core.drain(&mut ());
        } else if core.unfinished() > 0 {
            // A worker may hold back a few flips while it runs a long task.
            core.drain_thoroughly(&mut ());
        }
    }

    // ---- time ----

    fn next_timeout(&mut self, core: &mut Core) -> Duration {
        let now = Instant::now();
        let waiting_for_exit = core.lanes().any(|lane| lane.ended.is_some());
        let stuck = core
            .lanes()
            .any(|lane| unclaimed(lane) && now > lane.head_since);
        if waiting_for_exit || stuck {
            self.idle_ticks = 0;
            return self.next_late.unwrap_or(SHORT_TICK).min(SHORT_TICK);
        }
        let busy = core.unfinished() > 0
            || core.kill_after.is_some()
            || core.lanes().any(|lane| lane.state != LaneState::Ready);
        if busy {
            self.idle_ticks = 0;
            return self.next_late.unwrap_or(TICK).min(TICK);
        }
        if !core.degraded && core.is_short_of_workers() {
            // Nothing to do but to try again, when the delay after a failed start is over.
            self.idle_ticks = 0;
            core.blocked.supervisor_idle = true;
            let slots = self.slots.iter().filter_map(|slot| slot.not_before);
            let tries = slots.chain([self.zygote.not_before()]);
            // Those that were over before are of workers that are there. One that has become due since
            // then is tried in the next turn.
            let waits = tries
                .filter(|&at| at > self.looked_at)
                .map(|at| at.saturating_duration_since(now));
            return waits.min().unwrap_or(TICK).max(TICK);
        }
        self.idle_ticks += 1;
        if self.idle_ticks < IDLE_TICKS {
            return TICK;
        }
        self.idle_ticks = 0;
        core.blocked.supervisor_idle = true;
        Duration::from_secs(3600)
    }
}

/// After a panic of the supervisor (a bug of ours, or a logger that panics): without it no death would
/// be noticed. Every worker is killed and its tasks are settled, what waits ends, and so does what is
/// submitted from now on.
fn give_up_engine(shared: &Shared) {
    const WHY: &str = "the engine's supervisor thread panicked";
    let mut core = shared.lock();
    core.degraded = true;
    for class in &mut core.classes {
        class.broken = Some(WHY.to_owned());
    }
    for lane in core.lanes_mut() {
        lane.kill();
    }
    for worker in 0..core.lanes.len() {
        let Some(lane) = &core.lanes[worker] else {
            continue;
        };
        shared.bells.remove(&lane.event);
        if let Some(process) = &lane.process
            && !process.wait_end(ZYGOTE_GRACE)
        {
            continue; // it sits in the kernel, and may still read what its tasks were given
        }
        core.bury(worker, &Verdict::unreported(Exit::Unknown));
    }
    core.pump_all();
    core.start_failure
        .get_or_insert_with(|| Error::Internal(WHY.to_owned()));
    shared.wake_blocked(&mut core);
    shared.notify(&mut core);
    shared.control.remove_name();
}

fn find(core: &mut Core, incarnation: u64) -> Option<&mut Lane> {
    core.lanes_mut()
        .find(|lane| lane.incarnation == incarnation)
}

/// Whether a worker slot counts towards its class's target.
fn is_staying(core: &Core, worker: u32) -> bool {
    core.lanes[worker as usize]
        .as_ref()
        .is_some_and(|lane| matches!(lane.state, LaneState::Starting | LaneState::Ready))
}

/// Whether the worker has shown that it can work.
fn works(lane: &Lane) -> bool {
    let lasts = lane.started_at.elapsed() >= HEALTHY && lane.load() == 0;
    lane.state != LaneState::Starting && (lane.completed > 0 || lasts)
}

/// Whether descriptors wait on the lane that no thread has claimed.
fn unclaimed(lane: &Lane) -> bool {
    lane.load() != 0 && lane.published() != lane.head()
}

/// Recalls what no thread has claimed for too long: a long task has come up in front of it.
/// True if so.
fn recall_if_stuck(lane: &mut Lane, other_is_free: bool, now: Instant) -> bool {
    let head = lane.head();
    if head != lane.seen_head || !unclaimed(lane) {
        lane.seen_head = head;
        lane.head_since = now;
        lane.recalled = false;
        return false;
    }
    let usual = Duration::from_nanos(lane.service_ns());
    let patience = if other_is_free {
        STUCK_WHILE_FREE.max(usual * 2)
    } else {
        STUCK.max(usual * 8)
    };
    let stuck = !lane.recalled && now.duration_since(lane.head_since) >= patience;
    if stuck {
        lane.recalled = true;
        lane.stall();
        lane.recall();
    }
    stuck
}

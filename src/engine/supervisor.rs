//! The supervisor thread: starts workers, notices their deaths, settles what they leave, and looks
//! after the engine when nobody polls. Never on the fast path.
#![forbid(unsafe_code)]

use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::engine::core::{Core, Phase};
use crate::engine::lane::{Lane, LaneState, NewLane};
use crate::engine::shared::Shared;
use crate::engine::stats;
use crate::error::{Error, Result};
use crate::shm::control::RowWriter;
use crate::shm::segments::{HostLane, LaneIdentity, LaneShape};
use crate::sys::event::{EpollSet, Event};
use crate::sys::process::{Exit, Process};
use crate::sys::socket::Socket;
use crate::task::Class;
use crate::worker::link::{FromWorker, FromZygote, Incoming, ToWorker, ToZygote};
use crate::worker::zygote::ZygoteLink;

/// How often the supervisor looks around while tasks are in flight.
const TICK: Duration = Duration::from_millis(10);
/// The same, while descriptors wait behind running tasks.
const SHORT_TICK: Duration = Duration::from_millis(2);
/// Ticks without a task in flight after which it sleeps until a submit wakes it.
const IDLE_TICKS: u32 = 10;
/// How often the control segment is brought up to date.
const PUBLISH: Duration = Duration::from_millis(100);
/// How long a death waits for the zygote to say how.
const EXIT_REPORT: Duration = Duration::from_millis(100);
/// Result memory that every worker begins with.
const FIRST_RESULTS: u64 = 256 << 10;
/// A descriptor that nobody claims for so long is recalled if another worker is free ...
const STUCK_WHILE_FREE: Duration = Duration::from_millis(2);
/// ... and for so long, in any case; or for some multiple of the usual service time.
const STUCK: Duration = Duration::from_millis(10);
/// While the engine stops: how long the zygote may owe an answer before it is killed.
const ZYGOTE_GRACE: Duration = Duration::from_secs(2);
/// Workers asked for in one turn: so few that the requests and the answers fit in the zygote's
/// socket, or each side might wait for the other to read.
const SPAWNS: usize = 32;
/// Messages of one worker that are heard before the others have their turn.
const MESSAGES: usize = 16;
/// A worker that lived so long did not fail at its start.
const HEALTHY: Duration = Duration::from_secs(1);
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
    row: Option<RowWriter>,
    failures: u32,
    not_before: Option<Instant>,
}

/// The thread's own state.
pub(crate) struct Supervisor {
    shared: Arc<Shared>,
    zygote: ZygoteLink,
    sources: EpollSet,
    slots: Vec<SlotState>,
    incarnations: u64,
    /// Counts as a sleeper: nobody else drains.
    draining: bool,
    pace: Pace,
    idle_ticks: u32,
    published: Instant,
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
        sources.add(&zygote.socket, Source::Zygote.key())?;
        sources.add(&zygote.process, Source::ZygoteDeath.key())?;
        if let Some(name) = shared.control.os_name() {
            let name = name.to_string_lossy().into_owned();
            ToZygote::Name(name)
                .send(&zygote.socket, &[])
                .map_err(|e| Error::system("sendmsg", "cannot reach the zygote", e))?;
        }
        let slots = (0..shared.config.max_workers())
            .map(|worker| SlotState {
                row: shared.control.row_writer(worker),
                failures: 0,
                not_before: None,
            })
            .collect();
        let supervisor = Self {
            shared,
            zygote,
            sources,
            slots,
            incarnations: 0,
            draining: false,
            pace: Pace::new(),
            idle_ticks: 0,
            published: Instant::now(),
        };
        std::thread::Builder::new()
            .name("mf-supervisor".into())
            .spawn(move || supervisor.run())
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
            let mut core = shared.lock();
            for &key in &keys {
                self.handle(&mut core, Source::from_key(key));
            }
            self.bury_the_dead(&mut core);
            self.look_after_lanes(&mut core);
            self.take_over(&mut core);
            let missing = self.plan(&mut core);
            if !missing.is_empty() {
                // Making segments takes a while: not under the lock.
                drop(core);
                let made: Vec<_> = missing
                    .into_iter()
                    .map(|(worker, class)| (worker, self.prepare(worker, class)))
                    .collect();
                core = shared.lock();
                for (worker, new) in made {
                    if let Err(e) = new.and_then(|new| self.admit(&mut core, new)) {
                        self.put_off(&mut core, worker, e);
                    }
                }
            }
            if core.phase == Phase::Stopped {
                shared.notify(&mut core);
                return; // dropping the link ends the zygote
            }
            timeout = self.next_timeout(&mut core);
            self.publish(&core, timeout > TICK);
            shared.notify(&mut core);
        }
    }

    // ---- events ----

    fn handle(&mut self, core: &mut Core, source: Source) {
        match source {
            Source::Wake => self.shared.supervisor.drain(),
            Source::Bells => {} // `take_over` drains
            Source::Zygote => self.hear_zygote(core),
            Source::ZygoteDeath => {
                self.sources.remove(&self.zygote.process);
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

    fn lose_zygote(&mut self, core: &mut Core) {
        if core.degraded {
            return;
        }
        core.degraded = true;
        self.sources.remove(&self.zygote.socket);
        let exit = self.zygote.process.reap();
        log::error!("the zygote died ({exit:?}): no worker can be started any more");
        if core.starting {
            core.start_failure.get_or_insert_with(|| {
                Error::Internal("the zygote died before the workers were ready".into())
            });
        }
        // Workers that were asked for and never came will not come.
        for worker in 0..core.lanes.len() {
            if core.lanes[worker]
                .as_ref()
                .is_some_and(|lane| lane.process.is_none())
            {
                self.remove(core, worker, Exit::Unknown);
            }
        }
        core.pump_all(); // what waits for a worker that cannot come ends
        core.kept += 1; // whoever waits for the start looks again
    }

    fn hear_zygote(&mut self, core: &mut Core) {
        loop {
            match FromZygote::receive(&self.zygote.socket, false) {
                Incoming::Message(FromZygote::Spawned { incarnation, pid }, mut fds) => {
                    let process = rustix::process::Pid::from_raw(pid.cast_signed())
                        .zip(fds.pop())
                        .map(|(pid, fd)| Process::from_parts(pid, fd));
                    self.meet(core, incarnation, process);
                }
                Incoming::Message(FromZygote::Refused { incarnation, errno }, _) => {
                    let error = std::io::Error::from_raw_os_error(errno);
                    self.fail_start(core, incarnation, || {
                        Error::system(
                            "fork",
                            "cannot start a worker (raise RLIMIT_NPROC or the cgroup's pids.max)",
                            error,
                        )
                    });
                    if let Some(worker) = find(core, incarnation).map(|lane| lane.worker) {
                        self.remove(core, worker as usize, Exit::Unknown);
                    }
                }
                Incoming::Message(FromZygote::Exited { incarnation, exit }, _) => {
                    if let Some(lane) = find(core, incarnation) {
                        lane.exit = Some(exit);
                        // The zygote has seen its pidfd readable: also if we have none.
                        lane.ended.get_or_insert_with(Instant::now);
                    }
                }
                Incoming::Nothing => return,
                Incoming::Closed => return self.lose_zygote(core),
            }
        }
    }

    /// A worker process exists; `process` is missing if its pidfd found no room here.
    fn meet(&mut self, core: &mut Core, incarnation: u64, process: Option<Process>) {
        let spawned = core.totals.spawned + 1;
        let Some(lane) = find(core, incarnation) else {
            return;
        };
        let worker = lane.worker;
        let Some(process) = process else {
            // It cannot be killed or watched; the zygote tells when it has ended.
            log::error!("no file descriptor is left for the pidfd of worker {worker}");
            core.totals.spawned = spawned;
            self.fail_start(core, incarnation, || {
                Error::system(
                    "recvmsg",
                    "cannot watch a worker (raise RLIMIT_NOFILE)",
                    rustix::io::Errno::MFILE,
                )
            });
            return core.send_away(worker);
        };
        let watched = self.sources.add(&process, Source::Death(incarnation).key());
        if let Err(e) = &watched {
            log::error!("cannot watch worker {worker}: {e}");
        }
        lane.process = Some(process);
        if watched.is_err() || lane.killed {
            lane.kill(); // for the second time, if it was dismissed before it was there
        }
        core.totals.spawned = spawned;
    }

    fn hear_worker(&mut self, core: &mut Core, incarnation: u64) {
        // The socket stays readable: what is not heard now is heard in the next turn.
        for _ in 0..MESSAGES {
            let Some(lane) = find(core, incarnation) else {
                return;
            };
            match FromWorker::receive(&lane.control) {
                Incoming::Message(FromWorker::Hello, _) => self.welcome(core, incarnation),
                Incoming::Message(FromWorker::ExecFailed { errno }, _) => {
                    let error = std::io::Error::from_raw_os_error(errno);
                    log::error!("cannot execute the worker program: {error}");
                    self.fail_start(core, incarnation, || {
                        Error::system("execvp", "cannot execute the worker program", error)
                    });
                }
                Incoming::Message(FromWorker::NeedResults { len }, _) => {
                    if len == 0 {
                        core.move_kept_to_heap(incarnation);
                    } else {
                        let wanted = len.checked_next_power_of_two().unwrap_or(len);
                        let wanted = wanted.max(FIRST_RESULTS);
                        if let Err(e) = lane.shared.grow_results(wanted) {
                            log::warn!("worker {}: result memory: {e}", lane.worker);
                        }
                    }
                    if let Some(lane) = find(core, incarnation) {
                        let _ = ToWorker::Grown.send(&lane.control); // it looks again by itself
                    }
                }
                Incoming::Nothing => return,
                Incoming::Closed => {
                    // It ended, or its program closed everything: then it is of no use either.
                    self.sources.remove(&lane.control);
                    if lane.ended.is_none() {
                        lane.kill();
                    }
                    let worker = lane.worker as usize;
                    return core.withdraw(worker);
                }
            }
        }
    }

    /// A worker is ready: seals its segment and lets it have tasks.
    fn welcome(&mut self, core: &mut Core, incarnation: u64) {
        let Some(lane) = find(core, incarnation) else {
            return;
        };
        if lane.state != LaneState::Starting {
            return; // said it twice
        }
        if let Err(e) = lane
            .shared
            .seal()
            .and_then(|()| lane.shared.grow_results(FIRST_RESULTS))
        {
            log::error!("worker {} is not accepted: {e}", lane.worker);
            return lane.kill();
        }
        lane.set_state(LaneState::Ready);
        let (worker, class) = (lane.worker, lane.class);
        core.classes[class.index()].ready.push(worker);
        core.pump_all();
        core.kept += 1; // whoever waits for the start looks again
    }

    fn fail_start(&mut self, core: &mut Core, incarnation: u64, why: impl FnOnce() -> Error) {
        if core.starting && find(core, incarnation).is_some() {
            core.start_failure.get_or_insert_with(why);
            core.kept += 1;
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
                None if core.degraded || ended.elapsed() >= EXIT_REPORT => Exit::Unknown,
                None => continue,
            };
            self.remove(core, worker, exit);
        }
    }

    /// Takes a lane out of the engine and settles what was on it. Its process has ended, or never
    /// was.
    fn remove(&mut self, core: &mut Core, worker: usize, exit: Exit) {
        let Some(lane) = &mut core.lanes[worker] else {
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
        let expected = lane.state == LaneState::Leaving || core.phase >= Phase::Cancelling;
        if !expected {
            let (pid, incarnation) = (lane.pid(), lane.incarnation);
            let healthy = lane.state != LaneState::Starting
                && (lane.completed > 0 || lane.started_at.elapsed() >= HEALTHY);
            let slot = &mut self.slots[worker];
            slot.failures = if healthy {
                0
            } else {
                slot.failures.saturating_add(1)
            };
            slot.not_before = match slot.failures {
                0 => None,
                n => Some(Instant::now() + (BACKOFF * 2_u32.pow((n - 1).min(10))).min(MAX_BACKOFF)),
            };
            core.totals.died += 1;
            log::warn!("worker {worker} (pid {pid}) ended: {exit:?}");
            self.shared
                .control
                .log_crash(&stats::crash_record(lane, exit));
            self.fail_start(core, incarnation, || {
                Error::Internal(format!(
                    "worker {worker} (pid {pid}) ended at its start: {exit:?}"
                ))
            });
        }
        core.bury(worker, exit);
        core.kept += 1; // whoever waits for the stop looks again
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
            let free = core.lanes().any(|other| {
                other.class == class
                    && other.worker as usize != worker
                    && other.state == LaneState::Ready
                    && other.load() < other.threads
            });
            let Some(lane) = &mut core.lanes[worker] else {
                continue;
            };
            recall_if_stuck(lane, free, now);
            match lane.state {
                LaneState::Draining if lane.load() == 0 => lane.send_away(),
                LaneState::Ready if core.kill_after.is_some() && lane.load() == 0 => {
                    lane.send_away();
                }
                _ => {}
            }
            let patience = match lane.state {
                LaneState::Starting if !core.starting => self.shared.config.start_timeout,
                LaneState::Leaving => self.shared.config.stop_grace,
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
            }
            let Some(kill_after) = core.kill_after else {
                continue;
            };
            if now >= kill_after && !lane.killed {
                lane.kill();
            }
            if now >= kill_after + ZYGOTE_GRACE && lane.process.is_none() && !core.degraded {
                // A zygote that does not even answer; its death lets go of what it owes.
                self.zygote.process.kill();
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

    // ---- spawning ----

    /// The worker slots in which a worker must be started now; surplus workers start to drain.
    fn plan(&mut self, core: &mut Core) -> Vec<(u32, Class)> {
        let mut missing = Vec::new();
        if core.phase >= Phase::Cancelling {
            return missing;
        }
        let now = Instant::now();
        let mut first = 0;
        for class in Class::ALL {
            let config = self.shared.config.class(class);
            let slots = first..first + config.max;
            first = slots.end;
            let staying = slots.clone().filter(|&w| is_staying(core, w)).count();
            let target = core.classes[class.index()].target as usize;
            for worker in slots
                .rev()
                .filter(|&w| is_staying(core, w))
                .take(staying.saturating_sub(target))
                .collect::<Vec<_>>()
            {
                core.dismiss(worker);
            }
            if core.degraded {
                continue;
            }
            let slots = first - config.max..first;
            let vacant = slots.filter(|&w| core.lanes[w as usize].is_none());
            let room = SPAWNS.saturating_sub(missing.len());
            for worker in vacant.take(target.saturating_sub(staying).min(room)) {
                let state = &self.slots[worker as usize];
                if state.not_before.is_none_or(|t| now >= t) {
                    missing.push((worker, class));
                }
            }
        }
        missing
    }

    /// Makes the segments of a new incarnation and asks the zygote for its process. Called without
    /// the lock.
    fn prepare(&mut self, worker: u32, class: Class) -> Result<NewLane> {
        self.incarnations += 1;
        let incarnation = self.incarnations;
        let config = &self.shared.config;
        let threads = config.class(class).threads;
        let shape = LaneShape {
            clock_scale: self.shared.clock.to_wire(),
            inputs_size: self.shared.inputs.size(),
            result_arena: config.result_arena.next_multiple_of(4096),
            max_result: config.max_result,
            inline_result: config.inline_result,
            host_pid: std::process::id(),
            spin_ns: u64::try_from(config.spin.as_nanos()).unwrap_or(u64::MAX),
            reply_wait_ns: u64::try_from(config.reply_wait.as_nanos()).unwrap_or(u64::MAX),
        };
        let who = LaneIdentity {
            worker,
            incarnation,
            threads,
            class: class as u32,
        };
        let shared = HostLane::create(&shape, who)?;
        let event = Event::new()?;
        let (control, theirs) = Socket::pair()?;
        let (down, up) = shared.fds();
        let fds = [
            self.shared.inputs.fd(),
            down,
            up,
            event.as_fd(),
            theirs.as_fd(),
        ];
        ToZygote::Spawn {
            worker,
            incarnation,
        }
        .send(&self.zygote.socket, &fds)
        .map_err(|e| Error::system("sendmsg", "cannot ask the zygote for a worker", e))?;
        Ok(NewLane {
            worker,
            incarnation,
            class,
            threads,
            shared,
            event,
            control,
        })
    }

    fn admit(&mut self, core: &mut Core, new: NewLane) -> Result<()> {
        let lane = Lane::new(new);
        self.sources
            .add(&lane.control, Source::Control(lane.incarnation).key())?;
        self.shared.bells.add(&lane.event, u64::from(lane.worker))?;
        if let Some(external) = self.shared.external.get() {
            external.set.add(&lane.event, u64::from(lane.worker))?;
        }
        let worker = lane.worker as usize;
        core.lanes[worker] = Some(lane);
        Ok(())
    }

    fn put_off(&mut self, core: &mut Core, worker: u32, error: Error) {
        log::error!("worker {worker} cannot be started: {error}");
        let slot = &mut self.slots[worker as usize];
        slot.failures = slot.failures.saturating_add(1);
        let delay = BACKOFF * 2_u32.pow(slot.failures.min(10));
        slot.not_before = Some(Instant::now() + delay.min(MAX_BACKOFF));
        if core.starting {
            core.start_failure.get_or_insert(error);
            core.kept += 1;
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
            return SHORT_TICK;
        }
        let busy = core.unfinished() > 0
            || core.kill_after.is_some()
            || core.lanes().any(|lane| lane.state != LaneState::Ready)
            || (!core.degraded && core.is_short_of_workers());
        if busy {
            self.idle_ticks = 0;
            return TICK;
        }
        self.idle_ticks += 1;
        if self.idle_ticks < IDLE_TICKS {
            return TICK;
        }
        self.idle_ticks = 0;
        core.blocked.supervisor_idle = true;
        Duration::from_secs(3600)
    }

    /// Brings the control segment up to date.
    fn publish(&mut self, core: &Core, now: bool) {
        if !now && self.published.elapsed() < PUBLISH {
            return;
        }
        self.published = Instant::now();
        stats::publish_counters(core, &self.shared.control);
        for (worker, slot) in self.slots.iter_mut().enumerate() {
            let Some(row) = &mut slot.row else { continue };
            stats::publish_worker(
                worker,
                core.lanes[worker].as_ref(),
                row,
                &self.shared.control,
            );
        }
    }
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

/// Whether descriptors wait on the lane that no thread has claimed.
fn unclaimed(lane: &Lane) -> bool {
    lane.load() != 0 && lane.published() != lane.head()
}

/// Recalls what no thread has claimed for too long: a long task has come up in front of it.
fn recall_if_stuck(lane: &mut Lane, other_is_free: bool, now: Instant) {
    let head = lane.head();
    if head != lane.seen_head || !unclaimed(lane) {
        lane.seen_head = head;
        lane.head_since = now;
        lane.recalled = false;
        return;
    }
    let usual = Duration::from_nanos(lane.service_ns());
    let patience = if other_is_free {
        STUCK_WHILE_FREE.max(usual * 2)
    } else {
        STUCK.max(usual * 8)
    };
    if !lane.recalled && now.duration_since(lane.head_since) >= patience {
        lane.recalled = true;
        lane.stall();
        lane.recall();
    }
}

//! Kills workers, by pidfd, so that no signal can reach a stranger with a pid that was used again.

#![forbid(unsafe_code)]

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use miniflow::{Engine, WorkerRow, WorkerState};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::ledger::Ledger;
use super::random::Random;
use super::starts::{StartLog, now_ns};

/// How long a process may take to end after a deadly signal, or after it was stopped.
const PATIENCE: Duration = Duration::from_secs(10);

/// A deadly thing to do to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Kill = 0,
    Segv = 1,
    /// The engine has to notice, and to kill it.
    Stop = 2,
    /// It may finish what it runs.
    Term = 3,
}

impl Manner {
    fn signal(self) -> Signal {
        match self {
            Self::Kill => Signal::KILL,
            Self::Segv => Signal::SEGV,
            Self::Stop => Signal::STOP,
            Self::Term => Signal::TERM,
        }
    }
}

/// A worker that was ready when it was killed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kill {
    pub(super) slot: u32,
    pub(super) pid: u32,
    /// As [`now_ns`].
    pub(super) at: u64,
}

/// Deaths that the killer has seen, by [`Manner`].
#[derive(Debug, Default)]
pub(super) struct Deaths([AtomicU64; 4]);

impl Deaths {
    pub(super) fn by_manner(&self) -> [u64; 4] {
        self.0.each_ref().map(|n| n.load(SeqCst))
    }
}

struct Victim {
    process: OwnedFd,
    pid: u32,
    manner: Manner,
    since: Instant,
}

pub(super) struct Killer<'a> {
    engine: &'a Engine,
    ledger: &'a Ledger,
    deaths: &'a Deaths,
    log: StartLog,
    random: Random,
    victims: Vec<Victim>,
    kills: Vec<Kill>,
}

impl<'a> Killer<'a> {
    pub(super) fn new(
        engine: &'a Engine,
        ledger: &'a Ledger,
        deaths: &'a Deaths,
        log: StartLog,
        random: Random,
    ) -> Self {
        Self {
            engine,
            ledger,
            deaths,
            log,
            random,
            victims: Vec::new(),
            kills: Vec::new(),
        }
    }

    /// Kills until `over`, then waits for the last to end. Returns the kills of ready workers by
    /// SIGKILL.
    pub(super) fn run(mut self, over: impl Fn() -> bool) -> Vec<Kill> {
        while !over() {
            self.count_the_dead();
            let at_once = if self.random.chance(10) { 8 } else { 1 };
            (0..at_once).for_each(|_| self.strike());
            let pause = self.random.below(2_500);
            thread::sleep(Duration::from_micros(pause));
        }
        while !self.victims.is_empty() {
            self.count_the_dead();
            thread::sleep(Duration::from_millis(1));
        }
        self.kills
    }

    fn count_the_dead(&mut self) {
        let (ledger, deaths, log) = (self.ledger, self.deaths, self.log);
        self.victims.retain(|victim| {
            if has_ended(&victim.process) {
                // Else it is counted already.
                if !log.killed_itself(victim.pid) {
                    deaths.0[victim.manner as usize].fetch_add(1, SeqCst);
                }
                return false;
            }
            let waiting = victim.since.elapsed() < PATIENCE;
            if !waiting {
                ledger.complain(format!(
                    "worker {} did not end within {PATIENCE:?} of {:?}",
                    victim.pid, victim.manner
                ));
            }
            waiting
        });
    }

    fn strike(&mut self) {
        let mut rows = self.engine.workers();
        // One that has done nothing yet is spared half of the time: the engine waits a little before
        // it replaces such a one, and then there is less to be killed.
        let any = self.random.chance(50);
        rows.retain(|row| {
            row.pid != 0
                && (any || row.state == WorkerState::Ready && row.completed > 0)
                && self.victims.iter().all(|victim| victim.pid != row.pid)
        });
        if rows.is_empty() {
            return;
        }
        let row = rows[self.random.index(rows.len())];
        let Some(process) = open_worker(row.pid) else {
            return;
        };
        match self.random.below(100) {
            0..=4 => self.pause(&process),
            5..=14 => self.kill(&row, process, Manner::Stop),
            15..=24 => self.kill(&row, process, Manner::Segv),
            25..=29 => self.kill(&row, process, Manner::Term),
            _ => self.kill(&row, process, Manner::Kill),
        }
    }

    fn kill(&mut self, row: &WorkerRow, process: OwnedFd, manner: Manner) {
        let at = now_ns();
        if pidfd_send_signal(&process, manner.signal()).is_err() {
            return; // it has ended by itself
        }
        if manner == Manner::Kill && row.state == WorkerState::Ready {
            let (slot, pid) = (row.slot, row.pid);
            self.kills.push(Kill { slot, pid, at });
        }
        self.victims.push(Victim {
            process,
            pid: row.pid,
            manner,
            since: Instant::now(),
        });
    }

    /// Stops a worker for less time than the engine minds.
    fn pause(&mut self, process: &OwnedFd) {
        if pidfd_send_signal(process, Signal::STOP).is_ok() {
            thread::sleep(Duration::from_micros(self.random.below(3_000)));
            let _ = pidfd_send_signal(process, Signal::CONT); // it may have been killed meanwhile
        }
    }
}

/// The process with this pid, if it is a worker of an engine of this process: a child of a child.
pub(super) fn open_worker(pid: u32) -> Option<OwnedFd> {
    let process = Pid::from_raw(pid.cast_signed())?;
    let process = pidfd_open(process, PidfdFlags::empty()).ok()?;
    let zygote = parent(pid)?;
    let is_ours = parent(zygote)? == std::process::id();
    // What was read is about this process if that has not ended, for until then nothing else has
    // its pid.
    (is_ours && !has_ended(&process)).then_some(process)
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it, in parentheses, may hold anything.
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

fn has_ended(process: &OwnedFd) -> bool {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    matches!(poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&now)), Ok(n) if n > 0)
}

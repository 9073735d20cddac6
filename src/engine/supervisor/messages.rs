//! What the zygote and the workers say to the supervisor.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Instant;

use super::{FIRST_RESULTS, MESSAGES, SHORT_TICK, Source, Supervisor, find};
use crate::engine::core::Core;
use crate::engine::lane::LaneState;
use crate::engine::modules::Modules;
use crate::error::Error;
use crate::sys::process::{Exit, Process};
use crate::worker::link::{FromWorker, FromZygote, Incoming, ToWorker};

impl Supervisor {
    pub(super) fn hear_zygote(&mut self, core: &mut Core) {
        while let Some(socket) = self.zygote.socket() {
            match FromZygote::receive(socket, false) {
                Incoming::Message(FromZygote::Spawned { incarnation, pid }, mut fds) => {
                    let process = rustix::process::Pid::from_raw(pid.cast_signed())
                        .zip(fds.pop())
                        .map(|(pid, fd)| Process::from_parts(pid, fd));
                    self.zygote.note_served();
                    self.meet(core, incarnation, process);
                }
                Incoming::Message(FromZygote::Refused { incarnation, errno }, _) => {
                    let error = Error::system(
                        "fork",
                        "cannot start a worker",
                        std::io::Error::from_raw_os_error(errno),
                    );
                    if let Some(lane) = find(core, incarnation) {
                        lane.trouble = Some(error.to_string());
                    }
                    self.fail_start(core, incarnation, || error);
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
                Incoming::Message(FromZygote::Failed(why), _) => {
                    self.zygote.note_trouble(why);
                    return self.lose_zygote(core);
                }
                Incoming::Nothing => return,
                Incoming::Closed | Incoming::Nonsense => return self.lose_zygote(core),
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
                Error::system("recvmsg", "cannot watch a worker", rustix::io::Errno::MFILE)
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
        let greeted = lane.greeted && lane.state == LaneState::Starting;
        core.totals.spawned = spawned;
        if greeted {
            self.welcome(core, incarnation);
        }
    }

    /// What a worker says is checked as what it writes is: it can be wrong in any way, and come
    /// without end.
    pub(super) fn hear_worker(&mut self, core: &mut Core, incarnation: u64) {
        let mut needs = Needs::default();
        for _ in 0..MESSAGES {
            let Some(lane) = find(core, incarnation) else {
                return;
            };
            let worker = lane.worker as usize;
            if lane.killed {
                // Nothing that it says counts any more.
                return self.sources.remove(&lane.control);
            }
            let state = lane.state;
            match FromWorker::receive(&lane.control) {
                Incoming::Message(FromWorker::Hello, _) => match state {
                    LaneState::Starting => self.welcome(core, incarnation),
                    LaneState::Leaving => {} // sent away before it joined
                    _ => core.quarantine(worker, "it joins twice"),
                },
                Incoming::Message(FromWorker::ExecFailed { errno }, _)
                    if state == LaneState::Starting =>
                {
                    let class = lane.class;
                    let what = if self.shared.config.has_zygote_program() {
                        "cannot execute the zygote program"
                    } else {
                        "cannot execute the worker program"
                    };
                    let error =
                        Error::system("execvp", what, std::io::Error::from_raw_os_error(errno));
                    lane.trouble = Some(error.to_string());
                    // No such program: the next try will not find it either.
                    let hopeless = matches!(errno, libc::ENOENT | libc::EACCES | libc::ENOEXEC);
                    if hopeless && !core.starting {
                        self.note_bad_start(core, class, error.to_string(), true);
                    }
                    self.fail_start(core, incarnation, || error);
                }
                Incoming::Message(FromWorker::SandboxFailed { step, errno }, _)
                    if state == LaneState::Starting =>
                {
                    let error = step.error(errno);
                    log::error!("worker {} does not run: {error}", lane.worker);
                    lane.trouble = Some(error.to_string());
                    self.fail_start(core, incarnation, || error);
                }
                Incoming::Message(FromWorker::SeatRefused { step, errno }, _)
                    if matches!(state, LaneState::Starting | LaneState::Leaving)
                        && lane.refused & 1 << step as u8 == 0 =>
                {
                    lane.refused |= 1 << step as u8;
                    let (slot, class) = (lane.worker, lane.class);
                    let (subject, text) = self.shared.seating.refusal(slot, class, step, errno);
                    core.notes.set(subject, text);
                }
                Incoming::Message(FromWorker::JoinFailed { errno }, _)
                    if state == LaneState::Starting =>
                {
                    let error = Error::system(
                        "mmap or pthread_create",
                        format!(
                            "a worker cannot map the engine's shared memory or start its threads{}",
                            self.shared.config.sandbox.hint()
                        ),
                        std::io::Error::from_raw_os_error(errno),
                    );
                    log::error!("worker {}: {error}", lane.worker);
                    lane.trouble = Some(error.to_string());
                    self.fail_start(core, incarnation, || error);
                }
                Incoming::Message(FromWorker::NeedResults { len }, _)
                    if state != LaneState::Starting && len <= lane.shared.result_capacity() =>
                {
                    needs.note(len);
                }
                // A program may join and leave before its zygote has told of it.
                Incoming::Message(FromWorker::Leaving, _)
                    if state != LaneState::Starting || lane.greeted =>
                {
                    if state != LaneState::Leaving {
                        // Gets no more, and `stop_grace` to end, from the first word of it on.
                        let worker = lane.worker;
                        core.send_away(worker);
                    }
                }
                Incoming::Message(FromWorker::Terminating, _) => {
                    // It got a SIGTERM: it hands back what it has not started, finishes the rest and
                    // leaves.
                    lane.asked_back = true;
                    core.let_go(worker);
                }
                Incoming::Message(..) | Incoming::Nonsense => {
                    core.quarantine(worker, "it says what no worker says");
                }
                Incoming::Nothing => return answer(core, incarnation, &needs),
                Incoming::Closed => {
                    // It ended, or its program closed everything: then it is of no use either.
                    self.sources.remove(&lane.control);
                    if lane.ended.is_none() {
                        lane.kill();
                    }
                    return core.withdraw(worker);
                }
            }
        }
        answer(core, incarnation, &needs);
        // There may be more, without end: after a pause, in which the others have their turn.
        if let Some(lane) = find(core, incarnation) {
            self.sources.remove(&lane.control);
            self.unheard.push((incarnation, Instant::now()));
        }
    }

    /// Listens again to the workers that had more to say than others have time for; false if some
    /// must still wait.
    pub(super) fn hear_again(&mut self, core: &mut Core) -> bool {
        let Self {
            unheard, sources, ..
        } = self;
        unheard.retain(|&(incarnation, since)| {
            if since.elapsed() < SHORT_TICK {
                return true;
            }
            match find(core, incarnation) {
                Some(lane) if !lane.killed => sources
                    .add(&lane.control, Source::Control(incarnation).key())
                    .is_err(),
                _ => false,
            }
        });
        unheard.is_empty()
    }

    /// A worker is ready: seals its segment and lets it have tasks.
    fn welcome(&mut self, core: &mut Core, incarnation: u64) {
        let Some(lane) = find(core, incarnation) else {
            return;
        };
        if lane.process.is_none() {
            // The zygote's word of it is on its way: until then nobody could be told its pid.
            lane.greeted = true;
            return;
        }
        if let Err(e) = lane
            .shared
            .seal()
            .and_then(|()| lane.shared.grow_results(FIRST_RESULTS))
        {
            log::error!("worker {} is not accepted: {e}", lane.worker);
            return lane.kill();
        }
        if let (true, Some(process)) = (self.shared.config.is_program(), &lane.process) {
            // For the names in its crash report. Now: there is nothing to read when it is dead.
            lane.inquest.modules = Some(Arc::new(Modules::of_process(process)));
        }
        lane.set_state(LaneState::Ready);
        lane.active_at = self.shared.clock.now();
        let worker = lane.worker;
        core.enlist(worker);
        core.pump_all();
        core.kept += 1; // whoever waits for the start looks again
    }

    pub(super) fn fail_start(
        &mut self,
        core: &mut Core,
        incarnation: u64,
        why: impl FnOnce() -> Error,
    ) {
        if core.starting && find(core, incarnation).is_some() {
            core.start_failure.get_or_insert_with(why);
            core.kept += 1;
        }
    }
}

/// What the threads of a worker ask for in one turn: however many they are, one answer serves all.
#[derive(Debug, Default)]
struct Needs {
    /// The most that the arena should hold.
    bytes: Option<u64>,
    /// The arena is full: what nobody has fetched should be moved.
    room: bool,
}

impl Needs {
    fn note(&mut self, len: u64) {
        if len == 0 {
            self.room = true;
        } else {
            self.bytes = self.bytes.max(Some(len));
        }
    }
}

fn answer(core: &mut Core, incarnation: u64, needs: &Needs) {
    if needs.room {
        core.move_kept_to_heap(incarnation);
    }
    let Some(lane) = find(core, incarnation) else {
        return;
    };
    if let Some(bytes) = needs.bytes {
        let wanted = bytes.checked_next_power_of_two().unwrap_or(bytes);
        if let Err(e) = lane.shared.grow_results(wanted.max(FIRST_RESULTS)) {
            log::warn!("worker {}: result memory: {e}", lane.worker);
        }
    }
    if needs.room || needs.bytes.is_some() {
        let _ = ToWorker::Grown.send(&lane.control); // it looks again by itself
    }
}

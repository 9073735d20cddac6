//! What the zygote and the workers say to the supervisor.
#![forbid(unsafe_code)]

use std::time::Instant;

use super::{FIRST_RESULTS, MESSAGES, Source, Supervisor, find};
use crate::engine::core::Core;
use crate::engine::lane::LaneState;
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
        let greeted = lane.greeted;
        core.totals.spawned = spawned;
        if greeted {
            self.welcome(core, incarnation);
        }
    }

    pub(super) fn hear_worker(&mut self, core: &mut Core, incarnation: u64) {
        // The socket stays readable: what is not heard now is heard in the next turn.
        for _ in 0..MESSAGES {
            let Some(lane) = find(core, incarnation) else {
                return;
            };
            match FromWorker::receive(&lane.control) {
                Incoming::Message(FromWorker::Hello, _) => self.welcome(core, incarnation),
                Incoming::Message(FromWorker::ExecFailed { errno }, _) => {
                    let class = lane.class;
                    let error = Error::system(
                        "execvp",
                        "cannot execute the worker program",
                        std::io::Error::from_raw_os_error(errno),
                    );
                    lane.trouble = Some(error.to_string());
                    // No such program: the next try will not find it either.
                    let hopeless = matches!(errno, libc::ENOENT | libc::EACCES | libc::ENOEXEC);
                    if hopeless && !core.starting {
                        self.note_bad_start(core, class, error.to_string(), true);
                    }
                    self.fail_start(core, incarnation, || error);
                }
                Incoming::Message(FromWorker::SandboxFailed { step, errno }, _) => {
                    let error = step.error(errno);
                    log::error!("worker {} does not run: {error}", lane.worker);
                    lane.trouble = Some(error.to_string());
                    self.fail_start(core, incarnation, || error);
                }
                Incoming::Message(FromWorker::JoinFailed { errno }, _) => {
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
                Incoming::Message(FromWorker::Leaving, _) => {
                    let worker = lane.worker;
                    core.send_away(worker); // gets no more, and `stop_grace` to end
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
        lane.set_state(LaneState::Ready);
        let (worker, class) = (lane.worker, lane.class);
        core.classes[class.index()].ready.push(worker);
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

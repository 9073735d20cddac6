//! The host side: accepts tasks, hands them to workers, collects what became of them.

pub(crate) mod central;
pub(crate) mod completion;
mod control;
pub(crate) mod core;
pub(crate) mod crash;
pub(crate) mod deaths;
#[cfg(any(test, fuzzing))]
pub(crate) mod hostile;
pub(crate) mod lane;
pub(crate) mod loan;
pub(crate) mod memory;
pub(crate) mod modules;
pub(crate) mod naming;
pub(crate) mod notes;
pub(crate) mod payload;
pub(crate) mod placement;
pub(crate) mod policy;
pub(crate) mod scaling;
pub(crate) mod shared;
pub(crate) mod stats;
pub(crate) mod supervisor;
pub(crate) mod symbols;
pub(crate) mod task_table;
pub(crate) mod usage;

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use self::completion::Completion;
use self::core::{Batch, COPY_UNDER_LOCK, Core, Phase};
use self::loan::Loan;
use self::placement::Seating;
use self::shared::Shared;
use self::supervisor::Supervisor;
use self::task_table::Place;
use crate::config::{Builder, Config};
use crate::error::{Error, Full, Result};
use crate::shm::segments::HostInputs;
use crate::sys::clock::Clock;
use crate::sys::fork::ForkGuard;
use crate::sys::{sandbox, selftest};
use crate::task::{Submission, SubmitOptions, TaskId, TaskState};
use crate::worker::zygote;

/// How long [`Engine::stop`] waits for killed processes to end.
const LAST_RESORT: Duration = Duration::from_secs(30);
/// A longer `stop_grace` is taken as this.
const LONGEST_GRACE: Duration = Duration::from_secs(1 << 30);

/// A running engine: submits tasks to worker processes and hands out their completions.
///
/// All methods may be called from any thread at any time. Waiting methods take a time-out;
/// `None` waits for ever. Dropping the engine stops it without a drain.
#[derive(Debug)]
pub struct Engine {
    shared: Arc<Shared>,
    supervisor: Mutex<Option<JoinHandle<()>>>,
}

impl Engine {
    /// The settings of a new engine.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn start(config: Config) -> Result<Self> {
        config.validate()?;
        selftest::run()?;
        let role = config
            .role
            .clone()
            .ok_or_else(|| Error::Internal("no role".into()))?;
        if config.sandbox.undumpable_host {
            sandbox::make_undumpable()?; // before the fork: the zygote and its children inherit it
        }
        // Forked before this engine has threads or segments.
        let zygote = zygote::start(&role, &config.inherit, &config.sandbox)?;
        let guard = ForkGuard::new()?;
        let clock = Clock::calibrate();
        let (control, note) = naming::segment(&config, |os_name| zygote.entrust(os_name))?;
        let inputs = HostInputs::create(config.payload_arena)?;
        let mut core = Core::new(&config, clock, random_tag()?)?;
        if let Some(note) = note {
            core.notes.set("name", note);
        }
        let seating = Seating::on_this_machine(&config, &mut core.notes);
        let inputs = inputs.with_huge_pages(seating.huge_pages.clone());
        let start_timeout = config.start_timeout;
        let shared = Arc::new(Shared::new(
            config, clock, inputs, control, seating, core, guard,
        )?);
        let thread = Supervisor::spawn(Arc::clone(&shared), zygote)?;
        let engine = Self {
            shared,
            supervisor: Mutex::new(Some(thread)),
        };
        engine.await_ready(start_timeout)?; // dropping the engine stops what was started
        Ok(engine)
    }

    /// Waits until the minimum of workers is ready.
    fn await_ready(&self, timeout: Duration) -> Result<()> {
        let wanted: usize = self
            .shared
            .config
            .classes
            .iter()
            .map(|c| c.min as usize)
            .sum();
        let (mut core, answer) =
            self.shared
                .block(self.shared.lock(), deadline(Some(timeout)), |core| {
                    if let Some(failure) = core.start_failure.take() {
                        return Some(Err(failure));
                    }
                    let ready: usize = core.classes.iter().map(|c| c.ready.len()).sum();
                    (ready >= wanted).then_some(Ok(()))
                });
        core.starting = false;
        answer.unwrap_or(Err(Error::Timeout))
    }

    // ---- submit ----

    /// Submits a CPU-bound task with default options.
    ///
    /// # Errors
    /// As for [`Engine::submit_with`].
    #[inline]
    pub fn submit(&self, payload: &[u8]) -> Result<TaskId> {
        self.submit_with(payload, &SubmitOptions::default())
    }

    /// Submits a task; the payload is copied.
    ///
    /// # Errors
    /// [`Error::WouldBlock`] if the task table or the payload arena is full or memory comes to its end,
    /// [`Error::TooLarge`], [`Error::Invalid`] for bad options or a class without workers,
    /// [`Error::Closed`] after [`Engine::stop`].
    #[inline]
    pub fn submit_with(&self, payload: &[u8], options: &SubmitOptions) -> Result<TaskId> {
        self.shared.check_process()?;
        if payload.len() > COPY_UNDER_LOCK {
            let mut loan = self.loan(payload.len())?;
            loan.copy_from_slice(payload);
            return loan.submit(options);
        }
        let mut core = self.shared.lock();
        let id = core.submit_copy(&self.shared.inputs, payload, options, None)?;
        core.announce();
        self.shared.note_submit(&mut core);
        Ok(id)
    }

    /// Submits a task, waiting for room at most `timeout`.
    ///
    /// # Errors
    /// As for [`Engine::submit_with`], and [`Error::Timeout`]. [`Error::WouldBlock`] comes at once
    /// if all room is held by completions that wait for the caller to poll them: waiting would
    /// never end.
    pub fn submit_wait(
        &self,
        payload: &[u8],
        options: &SubmitOptions,
        timeout: Option<Duration>,
    ) -> Result<TaskId> {
        let deadline = deadline(timeout);
        loop {
            match self.submit_with(payload, options) {
                Err(Error::WouldBlock(full)) if full != Full::Unpolled => {}
                other => return other,
            }
            let mut core = self.shared.lock();
            core.blocked.room_waiters += 1;
            let (mut core, answer) = self.shared.block(core, deadline, |core| {
                core.drain(&mut ());
                core.room_for(payload.len())
            });
            core.blocked.room_waiters -= 1;
            self.shared.notify(&mut core);
            match answer {
                None => return Err(Error::Timeout),
                Some(Err(full)) => return Err(Error::WouldBlock(full)),
                Some(Ok(())) => {}
            }
        }
    }

    /// Submits several tasks with one announcement; returns the ids of those that were accepted,
    /// which are the first ones.
    ///
    /// # Errors
    /// If not even the first is accepted, its error.
    pub fn submit_batch<'p>(
        &self,
        submissions: impl IntoIterator<Item = Submission<'p>>,
    ) -> Result<Vec<TaskId>> {
        // Asked for its items before the lock is taken: an iterator may use the engine.
        let submissions: Vec<_> = submissions.into_iter().collect();
        let mut ids = Vec::with_capacity(submissions.len());
        let refused = self.submit_each(submissions.into_iter(), |id| ids.push(id));
        match refused {
            Some(error) if ids.is_empty() => Err(error),
            _ => Ok(ids),
        }
    }

    /// [`Engine::submit_batch`] without a list: `accepted` is called with each id in turn. Returns
    /// why the first task that was not accepted was refused.
    ///
    /// `submissions` and `accepted` run under the engine's lock: they must be quick, and a call of
    /// the engine in them would wait for itself.
    pub fn submit_each<'p>(
        &self,
        submissions: impl Iterator<Item = Submission<'p>>,
        mut accepted: impl FnMut(TaskId),
    ) -> Option<Error> {
        if let Err(error) = self.shared.check_process() {
            return Some(error);
        }
        let now = self.shared.clock.now();
        let mut core = self.shared.lock();
        let mut refused = None;
        for Submission { payload, options } in submissions {
            let submitted = if payload.len() > COPY_UNDER_LOCK {
                core.announce();
                self.shared.note_submit(&mut core);
                drop(core);
                let submitted = self.submit_with(payload, &options);
                core = self.shared.lock();
                submitted
            } else {
                core.submit_copy(&self.shared.inputs, payload, &options, Some(now))
            };
            match submitted {
                Ok(id) => accepted(id),
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
        }
        core.announce();
        self.shared.note_submit(&mut core);
        refused
    }

    /// Room for a payload of `len` bytes in shared memory, to be written in place and submitted
    /// without a copy.
    ///
    /// # Errors
    /// [`Error::WouldBlock`] if the payload arena is full or memory comes to its end, [`Error::TooLarge`],
    /// [`Error::NoMemory`], [`Error::Closed`].
    pub fn loan(&self, len: usize) -> Result<Loan> {
        self.shared.check_process()?;
        let mut core = self.shared.lock();
        if core.phase != Phase::Running {
            return Err(Error::Closed);
        }
        let block = core.allocate(&self.shared.inputs, len);
        self.shared.note_change(&mut core);
        drop(core);
        let block = block?;
        Ok(Loan::new(Arc::clone(&self.shared), block, len))
    }

    // ---- completions ----

    /// Takes up to `max` completions, in no particular order, waiting at most `timeout` for the
    /// first. An empty list means that none came in time.
    ///
    /// # Errors
    /// [`Error::Closed`] if the engine is stopped, every completion was taken, and `timeout` is
    /// `None`; [`Error::Invalid`] in a forked child.
    pub fn poll(&self, max: usize, timeout: Option<Duration>) -> Result<Vec<Completion>> {
        let mut completions = Vec::new();
        self.poll_into(&mut completions, max, timeout)?;
        Ok(completions)
    }

    /// [`Engine::poll`] into a list that is kept between calls; returns how many were added.
    ///
    /// # Errors
    /// As for [`Engine::poll`].
    #[inline]
    pub fn poll_into(
        &self,
        completions: &mut Vec<Completion>,
        max: usize,
        timeout: Option<Duration>,
    ) -> Result<usize> {
        self.shared.check_process()?;
        let before = completions.len();
        if max == 0 {
            return Ok(0);
        }
        let mut batch = Batch {
            out: completions,
            max: before.saturating_add(max),
        };
        let mut core = self.shared.lock();
        core.blocked.polls += 1;
        self.take(&mut core, &mut batch);
        let found = batch.out.len() - before;
        if found != 0 || timeout == Some(Duration::ZERO) {
            return Ok(found);
        }
        drop(core);
        self.poll_slowly(&mut batch, before, timeout)
    }

    /// Drains into `batch` and keeps everybody else informed.
    #[inline]
    fn take(&self, core: &mut Core, batch: &mut Batch<'_>) {
        let before = batch.out.len();
        self.shared.disarm_external(core);
        core.drain(batch);
        if self.shared.arm_external(core) {
            core.drain(batch); // what arming has found
        }
        if batch.out.len() != before {
            self.shared.note_room(core);
        }
        self.shared.notify(core);
    }

    fn poll_slowly(
        &self,
        batch: &mut Batch<'_>,
        before: usize,
        timeout: Option<Duration>,
    ) -> Result<usize> {
        let deadline = deadline(timeout);
        self.shared.spin.until(self.shared.clock, || {
            if let Some(mut core) = self.shared.try_lock() {
                self.take(&mut core, batch);
            }
            batch.out.len() != before
        });
        if batch.out.len() != before {
            return Ok(batch.out.len() - before);
        }
        let (core, ended) = self.shared.block(self.shared.lock(), deadline, |core| {
            self.take(core, batch);
            if batch.out.len() != before {
                return Some(false);
            }
            (core.phase == Phase::Stopped && core.table.len() == 0).then_some(true)
        });
        drop(core);
        match ended {
            Some(true) if timeout.is_none() => Err(Error::Closed),
            _ => Ok(batch.out.len() - before),
        }
    }

    /// Waits for the completion of one task, which then never comes out of [`Engine::poll`].
    ///
    /// # Errors
    /// [`Error::NotFound`] at once if there is no such task or its completion was handed out;
    /// [`Error::Timeout`]; [`Error::Invalid`] if another thread waits for the same id.
    pub fn wait(&self, id: TaskId, timeout: Option<Duration>) -> Result<Completion> {
        self.shared.check_process()?;
        let mut core = self.shared.lock();
        core.blocked.polls += 1;
        let index = core.table.find(id).ok_or(Error::NotFound)?;
        let entry = core.table.get_mut(index);
        match entry.place {
            Place::Lane { worker, slot } if !entry.awaited => {
                let ticket = entry.ticket;
                entry.awaited = true;
                // Its slot is known: spin on the done word itself, without the lock.
                let Some(lane) = &core.lanes[worker as usize] else {
                    return Err(Error::Internal("a task without its lane".into()));
                };
                let shared = Arc::clone(&lane.shared);
                drop(core);
                let cell = &shared.up().slots[usize::from(slot)];
                let done = timeout != Some(Duration::ZERO)
                    && self
                        .shared
                        .spin
                        .until(self.shared.clock, || cell.is_done(ticket));
                core = self.shared.lock();
                if done {
                    core.table.get_mut(index).awaited = false;
                    let mut completion = None;
                    if core.take_early(worker, slot, ticket, &mut completion)
                        && let Some(completion) = completion
                    {
                        core.pump_all();
                        self.shared.note_room(&mut core);
                        self.shared.notify(&mut core);
                        return Ok(completion);
                    }
                    core.table.get_mut(index).awaited = true;
                }
            }
            _ if entry.awaited => {
                return Err(Error::invalid(format!(
                    "another thread waits for task {id}"
                )));
            }
            _ => entry.awaited = true,
        }
        let (mut core, completion) = self.shared.block(core, deadline(timeout), |core| {
            core.drain_thoroughly(&mut ());
            core.table.take(index)
        });
        if completion.is_some() {
            self.shared.note_room(&mut core);
        } else {
            core.table.stop_awaiting(index);
            core.kept += 1; // it may have come just now
        }
        self.shared.notify(&mut core);
        completion.ok_or(Error::Timeout)
    }

    /// Completions one after the other, until none is left in flight.
    pub fn completions(&self) -> Completions<'_> {
        Completions {
            engine: self,
            batch: Vec::new().into_iter(),
        }
    }

    /// Asks for a task to be cancelled. A queued one is; a running one is told
    /// ([`Task::is_cancelled`](crate::worker::Task::is_cancelled)). What became of it, its
    /// completion says.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such task or its completion was handed out.
    pub fn cancel(&self, id: TaskId) -> Result<()> {
        self.shared.check_process()?;
        let mut core = self.shared.lock();
        let index = core.table.find(id).ok_or(Error::NotFound)?;
        core.cancel(index);
        self.shared.notify(&mut core);
        Ok(())
    }

    /// Cancels a task only if it will then never run: it has not been started and waits for a
    /// worker. True if so, also after an earlier cancellation; its completion says
    /// [`Outcome::Cancelled`](crate::Outcome::Cancelled). False if a worker was given it, even if it
    /// was not started yet, or if it was started before and waits for its next attempt, or has
    /// ended: then nothing has changed, and the task is not told either.
    ///
    /// # Errors
    /// As for [`Engine::cancel`].
    pub fn cancel_unstarted(&self, id: TaskId) -> Result<bool> {
        self.shared.check_process()?;
        let mut core = self.shared.lock();
        let index = core.table.find(id).ok_or(Error::NotFound)?;
        let never_runs = core.cancel_unstarted(index);
        self.shared.notify(&mut core);
        Ok(never_runs)
    }

    /// [`Engine::cancel`], by force: if the task is running, its worker gets the time of
    /// [`Builder::kill_grace`] to finish what it runs and is then killed. Tasks that ran beside it
    /// may end as crashed, with the mark of a bystander ([`Completion::is_collateral`]).
    ///
    /// # Errors
    /// As for [`Engine::cancel`].
    pub fn cancel_kill(&self, id: TaskId) -> Result<()> {
        self.shared.check_process()?;
        let mut core = self.shared.lock();
        let index = core.table.find(id).ok_or(Error::NotFound)?;
        core.cancel(index);
        core.cancel_by_force(index);
        self.shared.supervisor.signal();
        self.shared.notify(&mut core);
        Ok(())
    }

    /// Where a task is.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such task or its completion was handed out.
    pub fn task_state(&self, id: TaskId) -> Result<TaskState> {
        self.shared.check_process()?;
        let core = self.shared.lock();
        let index = core.table.find(id).ok_or(Error::NotFound)?;
        let entry = core.table.get(index);
        let Place::Lane { worker, slot } = entry.place else {
            return Ok(match entry.place {
                Place::Central => TaskState::Queued,
                _ => TaskState::Done,
            });
        };
        let Some(lane) = &core.lanes[worker as usize] else {
            return Ok(TaskState::Queued);
        };
        let cell = &lane.shared.up().slots[usize::from(slot)];
        if cell.is_done(entry.ticket) {
            return Ok(TaskState::Done);
        }
        Ok(match cell.started(entry.ticket) {
            None => TaskState::Queued,
            Some(start) => {
                // Not before the submit, whatever the worker says.
                let start = start.max(entry.submitted);
                let ticks = self.shared.clock.now().saturating_sub(start);
                TaskState::Running {
                    worker,
                    elapsed: Duration::from_nanos(self.shared.clock.ns(ticks)),
                    progress: cell.progress(),
                }
            }
        })
    }

    /// A level-triggered descriptor for the host's own event loop: readable when completions may
    /// be waiting. Never read it; call [`Engine::poll`] with a zero time-out until it returns
    /// nothing, which edge-triggered loops must do too. Belongs to the engine.
    ///
    /// # Errors
    /// [`Error::System`] if no descriptor can be made.
    pub fn event_fd(&self) -> Result<BorrowedFd<'_>> {
        self.shared.check_process()?;
        Ok(self.shared.external()?.set.as_fd())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.shared.is_childs_copy() {
            // The threads, processes and mappings are the parent's; a child's copy of the handles
            // is left alone.
            let copy = Arc::clone(&self.shared);
            #[expect(clippy::mem_forget, reason = "nothing of it belongs to this process")]
            std::mem::forget(copy);
            return;
        }
        let _ = self.stop(Some(Duration::ZERO)); // stopped before: nothing to do
    }
}

/// Iterates over completions until none is left in flight; see [`Engine::completions`].
#[derive(Debug)]
pub struct Completions<'a> {
    engine: &'a Engine,
    batch: std::vec::IntoIter<Completion>,
}

impl Iterator for Completions<'_> {
    type Item = Completion;

    fn next(&mut self) -> Option<Completion> {
        loop {
            if let Some(completion) = self.batch.next() {
                return Some(completion);
            }
            if self.engine.shared.is_childs_copy() || self.engine.shared.lock().table.len() == 0 {
                return None;
            }
            // Another thread may take the last one, so no wait is for ever.
            let wait = Some(Duration::from_millis(50));
            self.batch = self.engine.poll(256, wait).ok()?.into_iter();
        }
    }
}

fn deadline(timeout: Option<Duration>) -> Option<Instant> {
    timeout.and_then(|t| Instant::now().checked_add(t))
}

fn random_tag() -> Result<u32> {
    let mut bytes = [0; 4];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| Error::system("getrandom", "cannot make task ids", e))?;
    Ok(u32::from_ne_bytes(bytes))
}

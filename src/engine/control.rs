//! Running an engine: how many workers it has, how it chooses among them, what it does, its end.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant, SystemTime};

use super::core::{Core, Phase};
use super::scaling::log::{Action, Decision};
use super::stats::{self, Stats, WorkerRow};
use super::{Engine, LAST_RESORT, LONGEST_GRACE, deadline, usage};
use crate::config::Policy;
use crate::error::{Error, Result};
use crate::status::{Status, prometheus};
use crate::sys::sync::lock;
use crate::task::Class;

impl Engine {
    /// Sets how many workers a class has. More are started, fewer leave when they have finished
    /// what they run, the longest idle first; what waits on them goes to others. A scaling policy leaves
    /// the class alone for the next 10 s, and for good if there are none.
    ///
    /// # Errors
    /// [`Error::Invalid`] if that is more than the configured maximum, [`Error::Closed`].
    pub fn resize(&self, class: Class, workers: u32) -> Result<()> {
        self.shared.check_process()?;
        let max = self.shared.config.class(class).max;
        if workers > max {
            return Err(Error::invalid(format!(
                "{workers} workers of class {} are more than the configured maximum of {max}",
                class.name()
            )));
        }
        let mut core = self.shared.lock();
        if core.phase != Phase::Running {
            return Err(Error::Closed);
        }
        if workers == 0 && core.has_tasks_of(class) {
            return Err(Error::invalid(format!(
                "class {} has tasks in flight: its last worker cannot leave",
                class.name()
            )));
        }
        let state = &mut core.classes[class.index()];
        let before = std::mem::replace(&mut state.target, workers);
        state.resized = Some(Instant::now());
        let decision = Decision {
            at: SystemTime::now(),
            action: Action::Resize,
            before,
            after: workers,
            reason: "by hand".into(),
            snapshot: self.shared.look(&core, class),
        };
        stats::log_decision(&decision, &self.shared.control);
        core.decisions.push(decision);
        core.blocked.supervisor_idle = false;
        self.shared.supervisor.signal();
        Ok(())
    }

    /// Changes how workers are chosen, from the next choice on. When it returns, a policy of the
    /// host's own that was in use before is not asked any more.
    ///
    /// # Errors
    /// [`Error::Closed`] if the engine is stopped, [`Error::Invalid`] in a forked child.
    pub fn set_policy(&self, policy: Policy) -> Result<()> {
        self.shared.check_process()?;
        let mut core = self.shared.lock();
        if core.phase != Phase::Running {
            return Err(Error::Closed);
        }
        let before = core.set_policy(policy);
        self.shared.note_change(&mut core);
        drop(core);
        drop(before); // not under the lock: it may be the host's code
        Ok(())
    }

    /// The last 1000 decisions about numbers of workers, from the oldest to the newest; none in a
    /// forked child.
    #[must_use]
    pub fn scaling_decisions(&self) -> Vec<Decision> {
        if self.shared.is_childs_copy() {
            return Vec::new();
        }
        let decisions = self.shared.lock().decisions.to_vec();
        decisions
            .iter()
            .map(|decision| Decision::clone(decision))
            .collect()
    }

    /// The name by which others can watch it: the one that it was given, or an automatic one; `None`
    /// if it has none.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.shared.control.name()
    }

    /// Counters of the engine; zeros in a forked child.
    #[must_use]
    pub fn stats(&self) -> Stats {
        if self.shared.is_childs_copy() {
            return Stats::default();
        }
        Stats::of(&self.shared.lock())
    }

    /// One row per worker process; none in a forked child.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerRow> {
        if self.shared.is_childs_copy() {
            return Vec::new();
        }
        let mut rows: Vec<_> = self.shared.lock().lanes().map(WorkerRow::of).collect();
        self.shared.usage.fill(&mut rows, usage::EVERY);
        rows
    }

    /// All that the engine says about itself: counters, classes, workers, how long tasks waited and
    /// ran, crashes, decisions. In a forked child: nothing of that, and
    /// [`EngineState::Stopped`](crate::status::EngineState::Stopped).
    #[must_use]
    pub fn status(&self) -> Status {
        if self.shared.is_childs_copy() {
            return Status::of_nothing();
        }
        stats::status(&self.shared)
    }

    /// [`Engine::status`] as JSON ([`Status::to_json`]); an empty object in a forked child.
    #[must_use]
    pub fn status_json(&self) -> String {
        if self.shared.is_childs_copy() {
            return "{}".into();
        }
        self.status().to_json()
    }

    /// [`Engine::status`] in the text format of Prometheus ([`Status::to_prometheus`]); empty in a
    /// forked child.
    #[must_use]
    pub fn metrics_text(&self) -> String {
        if self.shared.is_childs_copy() {
            return String::new();
        }
        prometheus(vec![self.status()])
    }

    /// Stops the engine: refuses new tasks, lets those that were accepted finish for at most
    /// `drain` (`None`: as long as it takes), then cancels the rest. Every task still has its
    /// completion, which can be polled until the engine is dropped.
    ///
    /// # Errors
    /// [`Error::Closed`] if it was stopped before, [`Error::Timeout`] if a worker does not end
    /// although it was killed.
    pub fn stop(&self, drain: Option<Duration>) -> Result<()> {
        self.shared.check_process()?;
        let shared = &self.shared;
        let mut core = shared.lock();
        if core.phase != Phase::Running {
            return Err(Error::Closed);
        }
        core.phase = Phase::Stopping;
        let none_left = |core: &mut Core| {
            core.drain(&mut ());
            (core.unfinished() == 0).then_some(())
        };
        let (mut core, _) = shared.block(core, deadline(drain), none_left);

        core.phase = Phase::Cancelling;
        core.pump_all(); // ends what waits, in one go
        for index in core.table.unfinished_slots() {
            core.cancel(index);
        }
        core.recall_all();
        for lane in core.lanes().filter(|lane| lane.load() != 0) {
            lane.terminate();
        }
        shared.notify(&mut core);
        let grace = shared.config.stop_grace.min(LONGEST_GRACE);
        let (mut core, _) = shared.block(core, deadline(Some(grace)), none_left);

        // The supervisor sends every worker away that has nothing left, and kills the others.
        core.blocked.supervisor_idle = false;
        let kill_after = Instant::now() + grace;
        core.kill_after = Some(kill_after);
        for lane in core.lanes_mut() {
            if lane.load() != 0 {
                lane.kill();
            }
        }
        shared.supervisor.signal();
        let (mut core, gone) = shared.block(core, Some(kill_after + LAST_RESORT), |core| {
            core.drain(&mut ());
            core.lanes().next().is_none().then_some(())
        });
        if gone.is_none() {
            // A killed process that does not end sits in the kernel; its tasks stay unsettled.
            return Err(Error::Timeout);
        }
        core.phase = Phase::Stopped;
        core.blocked.supervisor_idle = false;
        shared.wake_blocked(&mut core);
        shared.notify(&mut core);
        shared.supervisor.signal();
        drop(core);
        if let Some(thread) = lock(&self.supervisor).take() {
            let _ = thread.join(); // a panic there was logged; there is nothing left to stop
        }
        Ok(())
    }
}

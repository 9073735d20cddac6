//! Scaling by thresholds of load.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::{Patience, Proposal, Scaling, ScalingPolicy, Snapshot};

/// Most workers in one step.
const MOST_AT_ONCE: u32 = 1 << 16;

/// Grows while the load is above a threshold, shrinks by one after idle looks in a row.
#[derive(Debug)]
pub(crate) struct ByLoad {
    settings: Scaling,
    per_worker: bool,
    /// Workers by which it grows next.
    step: u32,
    last_action: Option<Duration>,
    /// Since when every look was idle.
    idle_since: Option<Duration>,
    patience: Patience,
}

impl ByLoad {
    pub(crate) fn new(settings: &Scaling, per_worker: bool) -> Self {
        Self {
            per_worker,
            step: 1,
            last_action: None,
            idle_since: None,
            patience: Patience::new(settings.patience()),
            settings: settings.clone(),
        }
    }

    /// Why the class should grow, if it should.
    fn pressure(&self, s: &Snapshot) -> Option<String> {
        let threads = if self.per_worker { 1 } else { s.threads.max(1) };
        let average = s.tasks() as f32 / (s.capacity() * threads) as f32;
        let peak = s.peak as f32 / threads as f32;
        let unit = if self.per_worker { "worker" } else { "thread" };
        if average > self.settings.load {
            return Some(format!("{average:.1} tasks per {unit}"));
        }
        if peak > self.settings.peak {
            return Some(format!("{peak:.1} tasks per {unit} of one worker"));
        }
        (s.queued > 0 && s.oldest > self.settings.max_wait)
            .then(|| format!("a task has waited {:.0?}", s.oldest))
    }
}

/// Whether one worker fewer would have enough to do with twice what there is.
fn is_idle(s: &Snapshot) -> bool {
    let fewer = u64::from(s.ready.saturating_sub(1)) * u64::from(s.threads);
    s.queued == 0 && s.starting == 0 && s.on_workers * 2 <= fewer
}

impl ScalingPolicy for ByLoad {
    fn decide(&mut self, s: &Snapshot) -> Option<Proposal> {
        if !is_idle(s) {
            self.idle_since = None;
        }
        let Some(why) = self.pressure(s) else {
            self.step = 1;
            if !is_idle(s) {
                return None;
            }
            let since = *self.idle_since.get_or_insert(s.now);
            let patience = self.patience.at(s.now);
            if s.target <= s.min || s.now.saturating_sub(since) < patience {
                return None;
            }
            self.idle_since = Some(s.now); // from the beginning, for the next one
            self.patience.note_shrink(s.now);
            self.last_action = Some(s.now);
            return Some(Proposal::new(
                s.target - 1,
                format!("idle for {:.1} s", patience.as_secs_f32()),
            ));
        };
        let soon = (self.last_action)
            .is_some_and(|last| s.now.saturating_sub(last) < self.settings.cooldown);
        if s.target >= s.max || soon || s.is_no_time_to_grow(self.settings.cpu) {
            return None;
        }
        let workers = s.target.saturating_add(self.step).min(s.max);
        self.step = (self.step * 2).min(MOST_AT_ONCE);
        self.last_action = Some(s.now);
        self.patience.note_growth(s.now);
        Some(Proposal::new(workers, why))
    }
}

//! Scaling by queueing delay.
//!
//! Little's law says how many threads are busy on average with tasks that arrive at a rate and run
//! for a time: their product. A class needs that, some more so that queues stay short, and for a
//! while as many as work off what waits already.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::time::Duration;

use super::{Patience, Proposal, Scaling, ScalingPolicy, Snapshot};

/// Threads are to be busy for this share of the time after growing ...
const BUSY: f32 = 0.8;
/// ... and shrinking leaves them busy for no more than this: the two must differ, or a load between
/// two sizes would have no size.
const BUSY_AFTER_SHRINK: f32 = 0.6;
/// Arrivals are counted over so long.
const WINDOW: Duration = Duration::from_secs(1);

/// Goes to the size that arrivals and service time ask for.
#[derive(Debug)]
pub(crate) struct Adaptive {
    settings: Scaling,
    last_action: Option<Duration>,
    /// Tasks that had arrived so far, at looks of the last [`WINDOW`].
    arrived: VecDeque<(Duration, u64)>,
    /// What the class needed at earlier looks: each entry is greater than those after it, so the
    /// first is the maximum of the time that [`Patience`] asks for.
    needed: VecDeque<(Duration, u32)>,
    first_look: Option<Duration>,
    patience: Patience,
}

impl Adaptive {
    pub(crate) fn new(settings: &Scaling) -> Self {
        Self {
            last_action: None,
            arrived: VecDeque::new(),
            needed: VecDeque::new(),
            first_look: None,
            patience: Patience::new(settings.patience()),
            settings: settings.clone(),
        }
    }

    /// Tasks per second that arrived lately.
    fn arrival_rate(&mut self, s: &Snapshot) -> f32 {
        let so_far = s.ended + s.tasks();
        self.arrived.push_back((s.now, so_far));
        // One that is older than the window stays: the window begins at it.
        while let Some(&(second, _)) = self.arrived.get(1)
            && s.now.saturating_sub(second) >= WINDOW
        {
            self.arrived.pop_front();
        }
        // Unless nobody has looked since: a rest says nothing about the load that ends it.
        if self.arrived.len() > 1
            && let Some(&(first, _)) = self.arrived.front()
            && s.now.saturating_sub(first) > 2 * (WINDOW + self.settings.interval)
        {
            self.arrived.pop_front();
        }
        let Some(&(since, before)) = self.arrived.front() else {
            return 0.0;
        };
        let span = s.now.saturating_sub(since).max(self.settings.interval);
        so_far.saturating_sub(before) as f32 / span.as_secs_f32()
    }

    /// Remembers what is needed now; the most that was needed in the last `patience`, or `None` if
    /// it has not been watched for so long.
    fn most_needed(&mut self, now: Duration, need: u32, patience: Duration) -> Option<u32> {
        while self.needed.back().is_some_and(|&(_, n)| n <= need) {
            self.needed.pop_back();
        }
        self.needed.push_back((now, need));
        while let Some(&(at, _)) = self.needed.front()
            && now.saturating_sub(at) > patience
        {
            self.needed.pop_front();
        }
        let first = *self.first_look.get_or_insert(now);
        let watched = now.saturating_sub(first) >= patience;
        self.needed.front().filter(|_| watched).map(|&(_, n)| n)
    }
}

impl ScalingPolicy for Adaptive {
    fn decide(&mut self, s: &Snapshot) -> Option<Proposal> {
        let threads = s.threads.max(1);
        let service = s.service.as_secs_f32();
        let busy = self.arrival_rate(s) * service;
        let waiting = s.tasks().saturating_sub(u64::from(s.ready * threads)) as f32;
        // Worked off in the time that a task may wait, or two service times if that is longer.
        let horizon = self.settings.max_wait.as_secs_f32().max(2.0 * service);
        let backlog = if horizon > 0.0 {
            waiting * service / horizon
        } else {
            0.0
        };
        let workers = |busy: f32| whole(busy / threads as f32);
        let running = s.on_workers.min(u64::from(s.ready * threads)) as f32;
        let kept = workers((busy.max(running) / BUSY_AFTER_SHRINK).max(backlog))
            .max(u32::from(s.tasks() != 0));
        let patience = self.patience.at(s.now);
        let most = self.most_needed(s.now, kept, patience);

        let soon = (self.last_action)
            .is_some_and(|last| s.now.saturating_sub(last) < self.settings.cooldown);
        if soon || s.starting > 0 {
            return None; // see first what the last step has done
        }
        if s.queued > 0 && s.oldest > self.settings.max_wait {
            if s.target >= s.max || s.is_no_time_to_grow(self.settings.cpu) {
                return None;
            }
            // Without a service time there is nothing to reckon with: twice as many.
            let need = match s.service.is_zero() {
                true => s.target.saturating_mul(2),
                false => workers(busy / BUSY + backlog),
            };
            self.last_action = Some(s.now);
            self.patience.note_growth(s.now);
            let why = format!(
                "a task has waited {:.0?}; {busy:.1} threads for what arrives, {waiting:.0} tasks wait",
                s.oldest
            );
            return Some(Proposal::new(need.clamp(s.target + 1, s.max), why));
        }
        let most = most?.max(s.min);
        if most < s.target {
            self.last_action = Some(s.now);
            self.patience.note_shrink(s.now);
            let why = format!("{most} were enough for {:.1} s", patience.as_secs_f32());
            return Some(Proposal::new(most, why));
        }
        None
    }
}

/// The least whole number that is not below.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates"
)]
fn whole(number: f32) -> u32 {
    number.ceil() as u32
}

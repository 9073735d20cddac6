//! What the supervisor shows to other processes, and when.
#![forbid(unsafe_code)]

use std::time::Instant;

use super::{PUBLISH, Supervisor};
use crate::engine::core::{Core, Phase};
use crate::engine::{stats, usage};
use crate::status::Status;
use crate::status::wire::{self, Moment};
use crate::sys::clock::monotonic_ns;

/// What is shown to others.
#[derive(Debug)]
pub(super) struct Report {
    status: Status,
    moment: Moment,
}

impl Supervisor {
    /// What is to be shown to others in this turn, if it is time for that.
    pub(super) fn report(&mut self, core: &Core) -> Option<Report> {
        let resting = core.blocked.supervisor_idle || core.phase == Phase::Stopped;
        let watched = self.publisher.is_some() || self.shared.config.recycle_rss != u64::MAX;
        let due = resting || self.published.is_none_or(|last| last.elapsed() >= PUBLISH);
        if !watched || !due {
            return None;
        }
        self.published = Some(Instant::now());
        Some(Report {
            moment: Moment {
                at_ns: monotonic_ns(),
                resting,
            },
            status: stats::without_logs(&self.shared, core),
        })
    }

    /// Measures what the workers use and brings the control segment up to date. Not under the lock.
    pub(super) fn publish(&mut self, report: Option<Report>) {
        let Some(Report { mut status, moment }) = report else {
            return;
        };
        let every = if moment.resting {
            PUBLISH
        } else {
            usage::EVERY
        };
        self.shared.usage.fill(&mut status.workers, every);
        if moment.resting {
            // Nobody measures until the engine is woken, and nothing runs.
            for row in &mut status.workers {
                row.cpu_permille = 0;
            }
        }
        if let Some(publisher) = &mut self.publisher {
            wire::publish(&status, moment, publisher);
        }
    }
}

//! Which workers must end although they have not died: with tasks beyond their limits, stopped,
//! hung, or used up.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use super::Supervisor;
use crate::engine::core::Core;
use crate::engine::lane::{Doom, Lane, LaneState};
use crate::engine::placement::HUGE_PAGES;
use crate::shm::layout::CREDITS;
use crate::sys::process::{self, Health};

/// Deadlines are not kept more exactly than this.
const FINEST: Duration = Duration::from_millis(1);
/// A supervisor that was away so long (the host itself was stopped) judges nobody by that time.
const AWAY: Duration = Duration::from_secs(1);

impl Supervisor {
    pub(super) fn check_health(&mut self, core: &mut Core) {
        let now = Instant::now();
        let away = now.duration_since(self.looked_at) > AWAY;
        self.looked_at = now;
        self.next_late = None;
        if let Some(text) = self.shared.seating.refused_pages() {
            core.notes.set(HUGE_PAGES, text);
        }
        for worker in 0..core.lanes.len() {
            if core.lanes[worker].is_none() {
                continue;
            }
            self.enforce_limits(core, worker);
            self.check_progress(core, worker, now, away);
            self.recycle(core, worker);
        }
    }

    /// Ends the worker if a task on it runs beyond its limits.
    fn enforce_limits(&mut self, core: &mut Core, worker: usize) {
        let overrun = core.find_overrun(worker);
        let next = overrun.next.map(|next| next.max(FINEST));
        self.next_late = [self.next_late, next].into_iter().flatten().min();
        if overrun.tasks.is_empty() {
            return;
        }
        let pid = core.lanes[worker].as_ref().map_or(0, Lane::pid);
        if process::health(pid).is_some_and(|health| health.stopped && health.traced) {
            return; // somebody looks at it in a debugger: the next look decides
        }
        core.end_overrun(worker, &overrun.tasks, self.shared.config.kill_grace);
    }

    /// Ends the worker if it is stopped, or does not start what it has.
    fn check_progress(&mut self, core: &mut Core, worker: usize, now: Instant, away: bool) {
        let config = &self.shared.config;
        let Some(lane) = &mut core.lanes[worker] else {
            return;
        };
        let idle = lane.load() == 0 && lane.state != LaneState::Starting;
        let health = &mut lane.health;
        let look_again = (config.stopped_grace / 4).clamp(super::TICK, super::TICK * 25);
        if lane.completed != health.completed || idle || away {
            (health.completed, health.moved) = (lane.completed, now);
            health.look_at = now + look_again;
            health.stopped_since = None;
            return;
        }
        if now < health.look_at || lane.killed {
            return;
        }
        health.look_at = now + look_again;
        let (running, waiting) = started_and_not(lane);
        let health = &mut lane.health;
        if running != health.running {
            (health.running, health.moved) = (running, now);
        }
        let Some(Health { stopped, traced }) = process::health(lane.pid()) else {
            return;
        };
        if traced {
            return;
        }
        if stopped {
            let since = *lane.health.stopped_since.get_or_insert(now);
            if now.duration_since(since) >= config.stopped_grace {
                core.condemn(worker, Doom::Stopped(config.stopped_grace), Duration::ZERO);
            }
            return;
        }
        lane.health.stopped_since = None;
        if now.duration_since(lane.health.moved) >= config.hang_timeout
            && waiting > 0
            // Of a program's threads nothing is known; it is free if it runs nothing.
            && running < if config.is_program() { 1 } else { lane.threads }
        {
            core.condemn(worker, Doom::Silent(config.hang_timeout), config.kill_grace);
        }
    }

    /// Sends the worker away if it has done its share.
    fn recycle(&mut self, core: &mut Core, worker: usize) {
        let config = &self.shared.config;
        let Some(lane) = &core.lanes[worker] else {
            return;
        };
        if lane.state != LaneState::Ready {
            return;
        }
        let mut used_up = lane.is_retired();
        if config.recycle_rss != u64::MAX {
            let rss = self.shared.usage.rss_bytes(worker, lane.incarnation);
            used_up |= rss.is_some_and(|rss| rss > config.recycle_rss);
        }
        if used_up {
            core.totals.recycled += 1;
            core.dismiss(u32::try_from(worker).unwrap_or(u32::MAX));
        }
    }
}

/// How many tasks on the lane run, and how many wait there.
fn started_and_not(lane: &Lane) -> (u32, u32) {
    let (mut running, mut waiting) = (0, 0);
    for (slot, ticket) in (0..CREDITS).filter_map(|slot| lane.collector.outstanding_at(slot)) {
        let cell = &lane.shared.up().slots[usize::from(slot)];
        if cell.is_done(ticket) {
            continue;
        }
        match cell.started(ticket) {
            Some(_) => running += 1,
            None => waiting += 1,
        }
    }
    (running, waiting)
}

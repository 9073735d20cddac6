//! Starting workers: which are missing, what they are made of, and what becomes of a failure.
#![forbid(unsafe_code)]

use std::cmp::Reverse;
use std::os::fd::AsFd;
use std::time::Instant;

use rustix::io::Errno;

use super::{BACKOFF, MAX_BACKOFF, SPAWNS, Source, Supervisor, is_staying};
use crate::engine::core::{Core, Phase};
use crate::engine::lane::{Lane, LaneState, NewLane};
use crate::error::{Error, Result};
use crate::shm::segments::{HostLane, LaneIdentity, LaneShape};
use crate::sys::event::Event;
use crate::sys::socket::Socket;
use crate::task::Class;
use crate::worker::link::ToZygote;

impl Supervisor {
    /// The worker slots in which a worker must be started now; surplus workers start to drain.
    pub(super) fn plan(&mut self, core: &mut Core) -> Vec<(u32, Class)> {
        let mut missing = Vec::new();
        if core.phase >= Phase::Cancelling {
            return missing;
        }
        let now = Instant::now();
        let unanswered = core.lanes().filter(|lane| lane.process.is_none()).count();
        let mut first = 0;
        for class in Class::ALL {
            let config = self.shared.config.class(class);
            let slots = first..first + config.max;
            first = slots.end;
            let staying = slots.clone().filter(|&w| is_staying(core, w)).count();
            let target = core.classes[class.index()].target as usize;
            if staying > target {
                let mut leaving: Vec<u32> = slots.filter(|&w| is_staying(core, w)).collect();
                leaving.sort_by_key(|&w| {
                    let worth = core.lanes[w as usize].as_ref().map(worth);
                    (worth, Reverse(w))
                });
                for &worker in &leaving[..staying - target] {
                    core.dismiss(worker);
                }
            }
            if self.zygote.socket().is_none() {
                continue;
            }
            let slots = first - config.max..first;
            let vacant = slots.filter(|&w| core.lanes[w as usize].is_none());
            let room = SPAWNS.saturating_sub(unanswered + missing.len());
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
    /// the lock. [`Error::Closed`] if the zygote is gone.
    pub(super) fn prepare(&mut self, worker: u32, class: Class) -> Result<NewLane> {
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
        let seat = self.shared.seating.seat(worker);
        let pages = self.shared.seating.huge_pages.clone();
        let shared = HostLane::create(&shape, who)?.with_huge_pages(pages);
        if let Some(node) = seat.node {
            // What refuses this refuses the worker's own wish for that node too, and it tells.
            let _ = shared.prefer_node(node);
        }
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
        let zygote = self.zygote.socket().ok_or(Error::Closed)?;
        ToZygote::Spawn {
            worker,
            incarnation,
            seat,
        }
        .send(zygote, &fds)
        .map_err(|e| match e {
            Errno::PIPE | Errno::CONNRESET => Error::Closed,
            _ => Error::system("sendmsg", "cannot ask the zygote for a worker", e),
        })?;
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

    pub(super) fn admit(&mut self, core: &mut Core, new: NewLane) -> Result<()> {
        let crashed = core.crashed[new.worker as usize];
        let lane = Lane::new(new, crashed);
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

    pub(super) fn put_off(&mut self, core: &mut Core, worker: u32, class: Class, error: Error) {
        if matches!(error, Error::Closed) {
            return; // the next turn hears of the zygote's death, and why it died
        }
        log::error!("worker {worker} cannot be started: {error}");
        self.note_bad_start(core, class, error.to_string(), false);
        let slot = &mut self.slots[worker as usize];
        slot.failures = slot.failures.saturating_add(1);
        let delay = BACKOFF * 2_u32.pow(slot.failures.min(10));
        slot.not_before = Some(Instant::now() + delay.min(MAX_BACKOFF));
        if core.starting {
            core.start_failure.get_or_insert(error);
            core.kept += 1;
        }
    }
}

/// How much a worker would be missed: least one that is not ready yet, then the one that has been idle
/// longest, then the least busy.
fn worth(lane: &Lane) -> (bool, u32, u64) {
    let idle_since = if lane.load() == 0 { lane.active_at } else { 0 };
    (lane.state == LaneState::Ready, lane.load(), idle_since)
}

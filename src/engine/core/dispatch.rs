//! Handing tasks to workers: whom to choose, and what goes into the descriptor.
#![forbid(unsafe_code)]

use super::ready::Fit;
use super::{CODE_NO_WORKER, Core, NO_ZYGOTE, Phase};
use crate::config::Policy;
use crate::engine::lane::Lane;
use crate::engine::policy::{Answer, Candidate, Custom};
use crate::engine::task_table::{Entry, Payload, Place};
use crate::shm::layout::{PAYLOAD_WORDS, TaskInfo};
use crate::shm::ring::{Message, Meta};
use crate::sys::sync::Ordering;
use crate::task::{Class, Outcome};

impl Core {
    /// A worker that has room for a task of this class.
    #[inline]
    pub(super) fn choose(&mut self, class: Class) -> Option<u32> {
        let ready = &self.classes[class.index()].ready;
        if let &[worker] = ready.workers() {
            return Self::has_room(&mut self.lanes, worker).then_some(worker);
        }
        match &self.policy {
            Policy::LeastLoaded if !ready.is_indexed() => self.choose_of_few(class, false),
            Policy::RoundRobin if !ready.is_indexed() => self.choose_of_few(class, true),
            _ => self.choose_otherwise(class),
        }
    }

    /// A look at each worker.
    #[inline]
    fn choose_of_few(&mut self, class: Class, round_robin: bool) -> Option<u32> {
        let ready = &mut self.classes[class.index()].ready;
        let count = ready.len();
        let start = ready.turn;
        let mut best: Option<(u32, bool, usize)> = None;
        for step in 0..count {
            let at = (start + step) % count;
            let worker = ready.workers()[at];
            if !Self::has_room(&mut self.lanes, worker) {
                continue;
            }
            let Some(lane) = &self.lanes[worker as usize] else {
                continue;
            };
            let (load, asleep) = if round_robin {
                (0, false)
            } else {
                (lane.load(), lane.is_asleep())
            };
            if best.is_none_or(|(l, a, _)| (load, asleep) < (l, a)) {
                best = Some((load, asleep, at));
                if (load, asleep) == (0, false) {
                    break;
                }
            }
        }
        let (_, _, at) = best?;
        ready.turn = at + 1;
        Some(ready.workers()[at])
    }

    /// The policies that are not the usual ones, and the usual ones among many workers.
    #[inline(never)]
    fn choose_otherwise(&mut self, class: Class) -> Option<u32> {
        match &self.policy {
            Policy::LeastLoaded => self.least_loaded(class),
            Policy::RoundRobin => {
                let lanes = &mut self.lanes;
                let ready = &mut self.classes[class.index()].ready;
                ready.next_in_turn(|worker| fit(lanes, worker))
            }
            Policy::PowerOfTwo => self.less_loaded_of_two(class),
            Policy::Custom(policy) => {
                let policy = policy.clone();
                self.ask(class, &policy)
            }
        }
    }

    fn least_loaded(&mut self, class: Class) -> Option<u32> {
        let ready = &mut self.classes[class.index()].ready;
        if !ready.is_indexed() {
            return self.choose_of_few(class, false);
        }
        #[cfg(debug_assertions)]
        ready.assert_holds(|worker| self.lanes[worker as usize].as_ref().and_then(Lane::rank));
        let lanes = &mut self.lanes;
        ready.least_loaded(|worker| fit(lanes, worker))
    }

    fn less_loaded_of_two(&mut self, class: Class) -> Option<u32> {
        let count = self.classes[class.index()].ready.len() as u64;
        if count > 1 {
            // Xorshift; the bias of the remainders is one in 2^22 at most.
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let first = (self.random >> 32) % count;
            let second = (first + 1 + (self.random & 0xffff_ffff) % (count - 1)) % count;
            let lanes = &mut self.lanes;
            let workers = self.classes[class.index()].ready.workers();
            let mut merit = |place: u64| {
                let worker = *workers.get(usize::try_from(place).ok()?)?;
                let lane = lanes[worker as usize].as_mut()?;
                let room = lane.has_credit();
                room.then(|| (lane.load(), lane.is_asleep(), worker))
            };
            let pair = [merit(first), merit(second)];
            if let Some((.., worker)) = pair.into_iter().flatten().min() {
                return Some(worker);
            }
        }
        self.least_loaded(class)
    }

    /// The choice of the host's own policy, or ours if it makes none.
    fn ask(&mut self, class: Class, policy: &Custom) -> Option<u32> {
        let lanes = &mut self.lanes;
        let workers = self.classes[class.index()].ready.workers();
        let candidates: Vec<Candidate> = workers
            .iter()
            .filter_map(|&worker| {
                let lane = lanes[worker as usize].as_mut()?;
                lane.has_credit().then(|| lane.as_candidate())
            })
            .collect();
        if candidates.len() > 1 {
            match policy.ask(self.tag, class, &candidates) {
                Answer::This(index) => return Some(candidates[index].slot),
                Answer::Own => {}
                Answer::Failure(why) => {
                    self.totals.policy_failures += 1;
                    if self.totals.policy_failures.is_power_of_two() {
                        // Not each of perhaps millions.
                        let count = self.totals.policy_failures;
                        log::error!("the dispatch policy failed ({count} times so far): {why}");
                    }
                }
            }
        }
        self.least_loaded(class)
    }

    /// Uses another policy from now on; returns the one before.
    pub(crate) fn set_policy(&mut self, policy: Policy) -> Policy {
        std::mem::replace(&mut self.policy, policy)
    }

    /// A worker's load, or whether it has room, may have changed without a task that came or went.
    pub(crate) fn note_load(&mut self, worker: usize) {
        if let Some(lane) = &self.lanes[worker] {
            let ready = &mut self.classes[lane.class.index()].ready;
            ready.note(lane.worker, lane.rank());
        }
    }

    #[inline]
    fn has_room(lanes: &mut [Option<Lane>], worker: u32) -> bool {
        lanes[worker as usize]
            .as_mut()
            .is_some_and(Lane::has_credit)
    }

    /// Hands a task to a worker that has room.
    #[inline(always)] // see `submit_copy`
    pub(super) fn dispatch(&mut self, index: u32, worker: u32) {
        let ticket = self.next_ticket;
        let Some(lane) = &mut self.lanes[worker as usize] else {
            return self.enqueue(index);
        };
        let Some(slot) = lane.collector.give(ticket) else {
            return self.enqueue(index);
        };
        self.next_ticket += 1;
        let entry = self.table.get_mut(index);
        entry.place = Place::Lane { worker, slot };
        entry.ticket = ticket;
        lane.tasks[usize::from(slot)] = index;
        lane.watched |= entry.limits.deadline != 0;
        let attempt = entry.attempt + 1;
        let (meta, payload) = match entry.payload {
            Payload::Inline { words, len } => (Meta::new(slot, attempt, len, false), words),
            Payload::Arena { block, len } => {
                let mut words = [0; PAYLOAD_WORDS];
                words[0] = block.offset;
                (Meta::new(slot, attempt, len, true), words)
            }
        };
        describe(&lane.shared.down().info[usize::from(slot)], entry);
        let first = lane.publish(&Message {
            ticket,
            meta,
            payload,
        });
        if first {
            self.unannounced.push(worker);
        }
        if lane.published() == self.recycle_after {
            lane.retire();
        }
        let ready = &mut self.classes[lane.class.index()].ready;
        if ready.is_indexed() {
            ready.note(worker, lane.rank());
        }
    }

    /// Hands a new sticky task to its worker, or has it wait for that.
    #[cold]
    pub(super) fn place_sticky(&mut self, index: u32) {
        let entry = self.table.get(index);
        let (class, key) = (entry.class, entry.sticky_key);
        let state = &mut self.classes[class.index()];
        let Some(worker) = state.sticky.worker_of(key, state.ready.workers()) else {
            return self.enqueue(index); // until there is a worker
        };
        if state.sticky.first(worker).is_none() && Self::has_room(&mut self.lanes, worker) {
            self.dispatch(index, worker);
        } else {
            state.sticky.push(&mut self.table, worker, index);
        }
    }

    /// A worker has come, which may be the one for any key: all that waits because of its key is placed
    /// anew. It is at the front of the central queue afterwards.
    pub(super) fn reconsider_sticky(&mut self, class: Class) {
        let sticky = &mut self.classes[class.index()].sticky;
        sticky.forget_workers();
        let tasks: Vec<u32> = std::iter::from_fn(|| sticky.pop_any(&mut self.table)).collect();
        self.place_anew(class, tasks);
    }

    /// A worker has gone: what waits for it is for others now. The keys of those stay where they are.
    pub(super) fn reconsider_sticky_of(&mut self, class: Class, worker: u32) {
        let sticky = &mut self.classes[class.index()].sticky;
        sticky.forget_workers();
        let tasks: Vec<u32> = std::iter::from_fn(|| sticky.pop(&mut self.table, worker)).collect();
        self.place_anew(class, tasks);
    }

    fn place_anew(&mut self, class: Class, tasks: Vec<u32>) {
        for index in tasks.into_iter().rev() {
            let central = &mut self.classes[class.index()].central;
            central.push_front(&mut self.table, index);
        }
    }

    /// Hands out sticky tasks that wait for their worker, as far as that has room; but none that
    /// comes after what waits in the central queue.
    #[cold]
    fn pump_sticky(&mut self, class: Class) {
        for worker in self.classes[class.index()].sticky.awaited() {
            while Self::has_room(&mut self.lanes, worker) {
                let state = &mut self.classes[class.index()];
                let Some(first) = state.sticky.first(worker) else {
                    break;
                };
                // Higher priority first, then who has waited longer.
                let rank = |index| {
                    let entry = self.table.get(index);
                    (-entry.priority, entry.submitted)
                };
                if (state.central.first()).is_some_and(|other| rank(other) < rank(first)) {
                    break;
                }
                let Some(index) = state.sticky.pop(&mut self.table, worker) else {
                    break;
                };
                if self.table.get(index).cancelled {
                    self.end(index, Outcome::Cancelled, 0, String::new());
                } else {
                    self.dispatch(index, worker);
                }
            }
        }
    }

    /// Hands out what waits in the central queue, as far as there are credits.
    pub(crate) fn pump(&mut self, class: Class) {
        if self.phase >= Phase::Cancelling {
            while let Some(index) = self.pop_waiting(class) {
                self.end(index, Outcome::Cancelled, 0, String::new());
            }
        } else {
            self.give_up(class);
        }
        let state = &self.classes[class.index()];
        if !state.alone.is_empty() || state.reserved.is_some() {
            self.pump_alone(class);
        }
        if self.classes[class.index()].sticky.len() != 0 {
            self.pump_sticky(class);
        }
        while !self.classes[class.index()].central.is_empty() {
            let Some(worker) = self.choose(class) else {
                return;
            };
            let Some(index) = self.classes[class.index()].central.pop(&mut self.table) else {
                return;
            };
            if self.table.get(index).cancelled {
                // Asked for while a worker had it, which then handed it back.
                self.end(index, Outcome::Cancelled, 0, String::new());
            } else if self.table.get(index).sticky_key != 0 {
                self.place_sticky(index);
            } else {
                self.dispatch(index, worker);
            }
        }
        if self.classes[class.index()].sticky.len() != 0 {
            self.pump_sticky(class); // what came after all that
        }
    }

    /// Hands out tasks that must run alone, each to an idle worker which then gets nothing beside
    /// it. If none is idle, the least loaded one gets nothing more until it is; but no more than
    /// half of the workers (at least one) are kept from the other tasks in this way.
    #[cold]
    fn pump_alone(&mut self, class: Class) {
        while let Some(worker) = self.idle_worker(class) {
            let state = &mut self.classes[class.index()];
            let Some(index) = self.table.pop_front(&mut state.alone) else {
                break;
            };
            if self.table.get(index).cancelled {
                self.end(index, Outcome::Cancelled, 0, String::new());
                continue;
            }
            state.reserved = state.reserved.filter(|&reserved| reserved != worker);
            self.set_apart(worker, true);
            self.dispatch(index, worker);
        }
        let state = &mut self.classes[class.index()];
        match state.reserved {
            None if !state.alone.is_empty() => {
                let lanes = || {
                    let lane = |&worker: &u32| self.lanes[worker as usize].as_ref();
                    state.ready.workers().iter().filter_map(lane)
                };
                let apart = lanes().filter(|lane| lane.is_apart()).count();
                let candidates = lanes().filter(|lane| !lane.is_apart());
                if apart < (state.ready.len() / 2).max(1)
                    && let Some(worker) = candidates.min_by_key(|l| l.load()).map(|l| l.worker)
                {
                    state.reserved = Some(worker);
                    self.set_apart(worker, true);
                    if let Some(lane) = &mut self.lanes[worker as usize] {
                        lane.recall();
                    }
                }
            }
            Some(worker) if state.alone.is_empty() => {
                state.reserved = None;
                self.set_apart(worker, false);
            }
            _ => {}
        }
    }

    /// Keeps all other tasks away from a worker, or lets them come again.
    fn set_apart(&mut self, worker: u32, apart: bool) {
        if let Some(lane) = &mut self.lanes[worker as usize] {
            lane.set_apart(apart);
        }
        self.note_load(worker as usize);
    }

    /// A worker with nothing to do.
    fn idle_worker(&mut self, class: Class) -> Option<u32> {
        let ready = &self.classes[class.index()].ready;
        ready.workers().iter().copied().find(|&worker| {
            self.lanes[worker as usize]
                .as_mut()
                .is_some_and(Lane::is_idle)
        })
    }

    /// Takes a task that no worker has, in whichever queue it waits.
    fn pop_waiting(&mut self, class: Class) -> Option<u32> {
        let state = &mut self.classes[class.index()];
        (state.central.pop(&mut self.table))
            .or_else(|| self.table.pop_front(&mut state.alone))
            .or_else(|| state.sticky.pop_any(&mut self.table))
    }

    /// Ends what waits for a worker if none is there and none can be started.
    #[inline]
    pub(super) fn give_up(&mut self, class: Class) {
        if self.degraded || self.classes[class.index()].broken.is_some() {
            self.give_up_slowly(class);
        }
    }

    #[cold]
    fn give_up_slowly(&mut self, class: Class) {
        let state = &self.classes[class.index()];
        let why = match &state.broken {
            Some(why) if state.ready.is_empty() => format!("no worker can be started: {why}"),
            _ if self.degraded && self.is_deserted(class) => NO_ZYGOTE.to_owned(),
            _ => return,
        };
        while let Some(index) = self.pop_waiting(class) {
            self.end(index, Outcome::Failed, CODE_NO_WORKER, why.clone());
        }
    }

    /// [`Core::pump`] for both classes, and [`Core::announce`].
    #[inline]
    pub(crate) fn pump_all(&mut self) {
        for class in Class::ALL {
            self.pump(class);
        }
        self.announce();
    }

    /// Rings the bell of every lane that got descriptors: once per batch.
    #[inline]
    pub(crate) fn announce(&mut self) {
        while let Some(worker) = self.unannounced.pop() {
            if let Some(lane) = &mut self.lanes[worker as usize] {
                lane.ring_bell();
            }
        }
    }
}

/// Whether a worker that seems to have room has it.
#[inline]
fn fit(lanes: &mut [Option<Lane>], worker: u32) -> Fit {
    let Some(lane) = &mut lanes[worker as usize] else {
        return Fit::Full;
    };
    if !lane.has_credit() {
        Fit::Full
    } else if lane.is_asleep() {
        Fit::Asleep
    } else {
        Fit::Awake
    }
}

/// Writes what a worker may want to know about the task.
#[inline]
fn describe(info: &TaskInfo, entry: &Entry) {
    // Relaxed: published by the Release store of the descriptor's sequence number.
    let [a, b] = entry.id.to_words();
    info.id[0].store(a, Ordering::Relaxed);
    info.id[1].store(b, Ordering::Relaxed);
    let [a, b] = entry.label.to_words();
    info.label[0].store(a, Ordering::Relaxed);
    info.label[1].store(b, Ordering::Relaxed);
    info.user_data.store(entry.user_data, Ordering::Relaxed);
}

//! Handing tasks to workers: whom to choose, and what goes into the descriptor.
#![forbid(unsafe_code)]

use super::{CODE_NO_WORKER, Core, NO_ZYGOTE, Phase};
use crate::config::Policy;
use crate::engine::lane::Lane;
use crate::engine::task_table::{Entry, Payload, Place};
use crate::shm::layout::{PAYLOAD_WORDS, TaskInfo};
use crate::shm::ring::{Message, Meta};
use crate::sys::sync::Ordering;
use crate::task::{Class, Outcome};

impl Core {
    /// A worker that has room for a task of this class.
    #[inline]
    pub(super) fn choose(&mut self, class: Class) -> Option<u32> {
        let state = &mut self.classes[class.index()];
        let count = state.ready.len();
        if count == 1 {
            let worker = state.ready[0];
            return Self::has_room(&mut self.lanes, worker).then_some(worker);
        }
        let start = state.turn;
        let mut best: Option<(u32, bool, usize)> = None;
        for step in 0..count {
            let at = (start + step) % count;
            let worker = state.ready[at];
            if !Self::has_room(&mut self.lanes, worker) {
                continue;
            }
            let Some(lane) = &self.lanes[worker as usize] else {
                continue;
            };
            let (load, asleep) = match self.policy {
                Policy::RoundRobin => (0, false),
                // All workers of a class have as many threads. A free thread is not all that counts: tasks
                // beside each other share a process, its fate, and an interpreter's lock.
                Policy::LeastLoaded => (lane.load(), lane.is_asleep()),
            };
            if best.is_none_or(|(l, a, _)| (load, asleep) < (l, a)) {
                best = Some((load, asleep, at));
                if (load, asleep) == (0, false) {
                    break;
                }
            }
        }
        let (_, _, at) = best?;
        state.turn = at + 1;
        Some(state.ready[at])
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
            } else {
                self.dispatch(index, worker);
            }
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
            if let Some(lane) = &mut self.lanes[worker as usize] {
                lane.set_apart(true);
            }
            self.dispatch(index, worker);
        }
        let state = &mut self.classes[class.index()];
        match state.reserved {
            None if !state.alone.is_empty() => {
                let lanes = || {
                    let lane = |&worker: &u32| self.lanes[worker as usize].as_ref();
                    state.ready.iter().filter_map(lane)
                };
                let apart = lanes().filter(|lane| lane.is_apart()).count();
                let candidates = lanes().filter(|lane| !lane.is_apart());
                if apart < (state.ready.len() / 2).max(1)
                    && let Some(worker) = candidates.min_by_key(|l| l.load()).map(|l| l.worker)
                    && let Some(lane) = &mut self.lanes[worker as usize]
                {
                    state.reserved = Some(worker);
                    lane.set_apart(true);
                    lane.recall();
                }
            }
            Some(worker) if state.alone.is_empty() => {
                state.reserved = None;
                if let Some(lane) = &mut self.lanes[worker as usize] {
                    lane.set_apart(false);
                }
            }
            _ => {}
        }
    }

    /// A worker with nothing to do.
    fn idle_worker(&mut self, class: Class) -> Option<u32> {
        let ready = &self.classes[class.index()].ready;
        ready.iter().copied().find(|&worker| {
            self.lanes[worker as usize]
                .as_mut()
                .is_some_and(Lane::is_idle)
        })
    }

    /// Takes a task that no worker has, in whichever queue it waits.
    fn pop_waiting(&mut self, class: Class) -> Option<u32> {
        let state = &mut self.classes[class.index()];
        (state.central.pop(&mut self.table)).or_else(|| self.table.pop_front(&mut state.alone))
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
